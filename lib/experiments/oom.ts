/** Who is killed when forked children write what fork has promised them? */
import { ProcessEndedError } from '../errors.js';
import type { Process, Region } from '../machine/machine.js';
import { bounds, isUnknown, sum } from '../schema/figure.js';
import type { Figure } from '../schema/figure.js';
import type { Findings, NamedFigure } from '../schema/result.js';
import type { Outcome } from '../schema/step.js';
import { formatBytes, formatCount } from '../schema/units.js';
import { defineExperiment, requireWholePages } from './define.js';
import type { ParamsOf, RunContext } from './define.js';
import { runPids, concludePids } from './oom-pids.js';

const MIB = 2 ** 20;

const params = {
  controller: {
    type: 'choice',
    default: 'memory',
    choices: ['memory', 'pids'],
    describe: 'which limit is hit: memory.max by copies, or pids.max by forks',
  },
  size: { type: 'size', default: 32 * MIB, min: 4096, max: 2 ** 44, describe: 'written data of the parent' },
  children: { type: 'integer', default: 3, min: 1, max: 64, describe: 'how many are forked, and write one by one' },
  steps: { type: 'integer', default: 4, min: 1, max: 1000, describe: 'in how many shares each child writes' },
  largest: {
    type: 'choice',
    default: 'bystander',
    choices: ['bystander', 'parent', 'writer'],
    describe: 'who has extra memory: the last child, the parent, or each child as it starts to write',
  },
  extra: { type: 'size', default: 64 * MIB, min: 0, max: 2 ** 44, describe: 'how much more the largest has' },
  limit: {
    type: 'size',
    default: 0,
    min: 0,
    max: 2 ** 44,
    describe: 'memory.max; 0 is enough for the data and the copies of one child and a half',
  },
  pids: { type: 'integer', default: 8, min: 2, max: 1000, describe: 'pids.max, where that is the limit' },
} as const;
type Params = ParamsOf<typeof params>;
type Context = RunContext<typeof params>;

/** What child `index` (from 0) has beside the data; each later writer more than those before it. */
function extraOf(values: Params, index: number): number {
  if (values.largest === 'writer') return (index + 1) * values.extra;
  return values.largest === 'bystander' && index === values.children - 1 ? values.extra : 0;
}

/** Kernel memory of one process (page tables, stack) and the pages of stack and libraries that it copies, about. */
const PAGES_PER_PROCESS = 64;

/** memory.max in bytes: so that the limit is reached half-way through a share, half-way through a child's copies. */
function limitOf(values: Params, pageSize: number): number {
  if (values.limit > 0) return values.limit;
  const writer = Math.min(values.children, 2) - 1;
  let extras = values.largest === 'parent' ? values.extra : 0;
  for (let index = 0; index < values.children; index++) {
    if (values.largest === 'bystander' || index <= writer) extras += extraOf(values, index);
  }
  const copies = (writer + (Math.floor(values.steps / 2) + 0.5) / values.steps) * values.size;
  const processes = (values.children + 1) * PAGES_PER_PROCESS * pageSize;
  return Math.ceil((values.size + extras + copies + processes) / pageSize) * pageSize;
}

/** Names of people for the names of processes: 'parent', 'child 2'. */
function roleOf(name: string): string {
  const [, , child] = name.split('.');
  return child === undefined ? 'the parent' : `child ${child}`;
}

/** One share that a child has written, or died of; share 0 is its own memory. */
interface Share {
  writer: string;
  share: number;
  faults: Figure;
  killed: string[];
  outcome: Outcome;
}

/** Writes, and sees who is not alive any more after it. */
async function write(context: Context, process: Process, region: Region, share: number): Promise<Share> {
  const { machine, params: values } = context;
  const before = machine.processes.filter(({ alive }) => alive);
  const pages = values.size / machine.facts.pageSizeBytes;
  const first = Math.floor(((share - 1) * pages) / values.steps);
  const end = Math.floor((share * pages) / values.steps);
  let faults: Figure = 0;
  try {
    ({ minorFaults: faults } = await process.write(region, share === 0 ? {} : { first, pages: end - first }));
  } catch (error) {
    if (!(error instanceof ProcessEndedError)) throw error;
  }
  const killed = before.filter(({ alive }) => !alive).map(({ name }) => name);
  return { writer: process.name, share, faults, killed, outcome: machine.trace.at(-1)?.outcome ?? {} };
}

/** Gives the process memory of its own. */
async function enlarge(context: Context, process: Process, bytes: number): Promise<Share[]> {
  return bytes === 0 ? [] : [await write(context, process, await process.map({ size: bytes }), 0)];
}

/** The parent in the cgroup with its data, and the children that it is granted. */
async function build(context: Context) {
  const { machine, params: values, progress } = context;
  await machine.limitCgroup({ memoryMaxBytes: limitOf(values, machine.facts.pageSizeBytes) });
  const parent = await machine.root.fork();
  await parent.joinCgroup();
  progress(`writing ${formatBytes(values.size)} in the parent`);
  const region = await parent.map({ size: values.size });
  await parent.write(region);
  const children: Process[] = [];
  for (let index = 0; index < values.children; index++) children.push(await parent.fork());
  if (values.largest === 'parent') await enlarge(context, parent, values.extra);
  if (values.largest === 'bystander') await enlarge(context, children.at(-1) ?? parent, values.extra);
  return { region, children };
}

async function runMemory(context: Context): Promise<Findings> {
  const { machine, params: values, progress } = context;
  const { region, children } = await build(context);
  const shares: Share[] = [];
  for (const [index, child] of children.entries()) {
    if (child.alive && values.largest === 'writer') {
      shares.push(...(await enlarge(context, child, extraOf(values, index))));
    }
    for (let share = 1; share <= values.steps && child.alive; share++) {
      progress(`${roleOf(child.name)} writes share ${String(share)} of ${String(values.steps)}`);
      shares.push(await write(context, child, region, share));
    }
  }
  await machine.observe('end');
  for (const { writer, share, faults, killed } of shares) {
    const known = typeof faults === 'number' ? { 'minor faults': faults } : {};
    context.sample({ writer: roleOf(writer), share, killed: killed.map(roleOf).join(' '), ...known });
  }
  return { figures: figuresOf(context, shares), tables: [tableOf(shares, values)], plots: [], notes: notesOf(values) };
}

function figuresOf({ machine, params: values }: Context, shares: readonly Share[]): NamedFigure[] {
  // Where the model cannot tell who is killed, it follows nobody: then it predicts none of these.
  const doubt = machine.trace.map(({ outcome }) => outcome.uncertain).find((why) => why !== undefined);
  const figure = (name: string, unit: string, value: Figure, headline: boolean): NamedFigure => {
    return { name, unit, value: doubt === undefined ? value : { unknown: doubt }, headline };
  };
  const at = shares.findIndex(({ killed }) => killed.length > 0);
  const kills = shares.reduce((total, { killed }) => total + killed.length, 0);
  const refused = machine.trace.filter(({ outcome }) => outcome.failure !== undefined).length;
  const figures = [
    figure('processes killed', 'processes', kills, true),
    figure('calls that were refused', 'calls', refused, true),
  ];
  const share = shares[at];
  const [victim] = share?.killed ?? [];
  if (!share || victim === undefined) return figures;
  const copied = sum(shares.slice(0, at).map((one) => (one.share === 0 ? 0 : one.faults)));
  const limit = limitOf(values, machine.facts.pageSizeBytes) / machine.facts.pageSizeBytes;
  return [
    ...figures,
    figure('first victim (0: the parent)', 'number', Number(victim.split('.')[2] ?? 0), true),
    figure('writer meanwhile (the child)', 'number', Number(share.writer.split('.')[2]), true),
    figure('share that it was writing', 'number', share.share, true),
    figure('pages copied before that share', 'pages', copied, true),
    figure('pages left before that share', 'pages', roomFor(limit, share.outcome), true),
  ];
}

/** The limit less what was charged when the share began. */
function roomFor(limit: number, { memory }: Outcome): Figure {
  const used = memory?.usagePages ?? { unknown: 'what the cgroup is charged is only known by a reading' };
  if (isUnknown(used)) return used;
  if (typeof used === 'number') return limit - used;
  const { min, max } = bounds(used);
  return { min: limit - max, max: limit - min, why: used.why };
}

function tableOf(shares: readonly Share[], values: Params) {
  const rows = shares.map(({ writer, share, faults, killed }) => {
    const died = killed.includes(writer);
    const shown = typeof faults === 'number' && !died ? formatCount(faults) : '-';
    return [
      roleOf(writer),
      share === 0 ? 'memory of its own' : `${String(share)} of ${String(values.steps)}`,
      shown,
      killed.length > 0 ? killed.map((name) => (name === writer ? 'itself' : roleOf(name))).join(', ') : '',
    ];
  });
  return { title: 'Share by share', columns: ['who writes', 'share', 'minor faults', 'killed'], rows };
}

function notesOf(values: Params): string[] {
  const who = { bystander: 'the last child', parent: 'the parent', writer: 'whoever writes' }[values.largest];
  return [
    `The largest is ${who}. All have the same oom_score_adj, and are alone in the cgroup: nobody else can be killed.`,
    'A copy makes nobody larger: the writer had mapped the page before, and its resident size stays as it was.',
  ];
}

export const oom = defineExperiment({
  name: 'oom',
  title: 'Who is killed when forked children write what they were promised?',
  claim: {
    text: 'each child was granted its memory by fork, so each can use it',
    source: 'https://docs.kernel.org/mm/overcommit-accounting.html',
  },
  params,

  needs(values, facts) {
    const changes = ['cgroup'] as const;
    if (values.controller === 'pids') return { memoryBytes: 0, changes };
    const unit = facts.pageSizeBytes;
    for (const name of ['size', 'extra', 'limit'] as const) requireWholePages(name, values[name], unit);
    const limit = limitOf(values, unit);
    const least = values.size + (values.largest === 'writer' ? 0 : values.extra) + 4 * MIB;
    if (limit < least && values.limit > 0) {
      throw new RangeError(`limit must leave room for the data itself: at least ${formatBytes(least)}`);
    }
    return { memoryBytes: limit, changes };
  },

  run: (context) => (context.params.controller === 'pids' ? runPids(context) : runMemory(context)),

  conclude(findings, agreed, values) {
    if (!agreed) return { outcome: 'undecided', inShort: 'Prediction and measurement differ; see the checks.' };
    if (values.controller === 'pids') return concludePids(findings);
    const value = (name: string) => findings.figures.find((figure) => figure.name.startsWith(name))?.value;
    const [kills, victim, writer] = [value('processes killed'), value('first victim'), value('writer meanwhile')];
    if (kills === 0) {
      return { outcome: 'holds only if', inShort: 'The limit was enough for all copies, so nobody was killed.' };
    }
    if (typeof kills !== 'number' || typeof victim !== 'number' || typeof writer !== 'number') {
      return { outcome: 'undecided', inShort: 'Who is killed cannot be told: two are too near in size.' };
    }
    const whom = victim === 0 ? 'the parent' : `child ${String(victim)}`;
    const writing = victim === writer ? 'while it was copying' : `while child ${String(writer)} was copying`;
    return {
      outcome: 'refuted',
      inShort:
        `Every fork was granted and no call failed. Then ${writing}, the kernel killed ${whom}: ` +
        'not because of what it did, but because it was the largest.',
    };
  },
});
