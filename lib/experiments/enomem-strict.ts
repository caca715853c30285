/**
 * enomem with mode=strict: the article's own failure. Children of a parent that holds `size` are forked until one is
 * refused, and beside it in modes 0 and 1; or (find=threshold) the largest parent that can fork once, to the page.
 */
import type { Machine, Process, Region } from '../machine/machine.js';
import { limitByRatioPages, strictMarginPages } from '../machine/model/admission.js';
import { LEAST_RESERVE_BYTES } from '../machine/overcommit.js';
import type { Figure } from '../schema/figure.js';
import type { HostFacts } from '../schema/facts.js';
import type { Findings, NamedFigure, Plot } from '../schema/result.js';
import type { Outcome } from '../schema/step.js';
import { formatBytes, formatCount } from '../schema/units.js';
import type { Conclusion, Needs, ParamsOf, RunContext } from './define.js';
import { findThreshold, hopelessStrictPages } from './fork-attempts.js';

const MOST_BYTES = 2 ** 46;

export const strictParams = {
  size: { type: 'size', default: 2 * 2 ** 30, min: 4096, max: MOST_BYTES, describe: 'strict: memory of the parent' },
  children: { type: 'integer', default: 8, min: 1, max: 64, describe: 'strict: children that are to be forked' },
  touch: {
    type: 'boolean',
    default: true,
    describe: 'strict: write the memory of the parent; false only maps it, which is charged just the same',
  },
  limit: {
    type: 'size',
    default: 0,
    min: 0,
    max: MOST_BYTES,
    describe: "strict: the CommitLimit to set, so that it runs at any scale; 0 keeps the system's",
  },
  ratio: {
    type: 'integer',
    default: 0,
    min: 0,
    max: 100_000,
    describe: "strict: the vm.overcommit_ratio to set, in percent; 0 keeps the system's",
  },
  find: {
    type: 'choice',
    default: 'child',
    choices: ['child', 'threshold'],
    describe: 'strict: which child is refused, or the largest memory that one fork still gets',
  },
} as const;

export type StrictParams = ParamsOf<typeof strictParams>;
type StrictContext = Pick<RunContext, 'machine' | 'progress' | 'sample'> & { params: StrictParams };

/** With less than this to spare beside the parent, every program on the machine would soon be refused memory. */
const SPARE_BYTES = 256 * 2 ** 20;

/** CommitLimit in bytes as it will be [mm/util.c: vm_commit_limit]. */
function limitBytes({ limit, ratio }: StrictParams, facts: HostFacts): number {
  if (limit > 0) return limit;
  return (ratio === 0 ? facts.commitLimitPages : limitByRatioPages(facts, ratio)) * facts.pageSizeBytes;
}

/** @throws RangeError for parameters that make no sense together. */
export function strictNeeds(params: StrictParams, facts: HostFacts): Needs {
  const { size, touch, limit, ratio, find } = params;
  const swapBytes = facts.swapTotalPages * facts.pageSizeBytes;
  if (limit > 0 && ratio > 0) throw new RangeError('give either limit or ratio');
  if (limit > 0 && limit <= swapBytes) {
    throw new RangeError(`limit must be more than the swap, which is part of it (${formatBytes(swapBytes)})`);
  }
  const needs: Needs = { memoryBytes: touch && find === 'child' ? size : 0, changes: ['overcommit'] };
  const [willBe, committed] = [limitBytes(params, facts), facts.committedPages * facts.pageSizeBytes];
  const held = find === 'child' ? size : 0;
  const least = committed + held + LEAST_RESERVE_BYTES + SPARE_BYTES;
  if (willBe >= least) return needs;
  const what = held > 0 ? `, beside a parent of ${formatBytes(held)},` : '';
  return {
    ...needs,
    lacking:
      `a CommitLimit of ${formatBytes(willBe)} would leave too little to the rest of the machine${what} where ` +
      `${formatBytes(committed)} are committed already: choose limit=${String(Math.ceil(least / 2 ** 20))}MiB or more` +
      (held > 0 ? ', or a smaller size' : ''),
  };
}

async function makeStrict(machine: Machine, { limit, ratio }: StrictParams): Promise<void> {
  await machine.setOvercommit({
    mode: 2,
    ...(limit > 0 ? { limitBytes: limit } : {}),
    ...(ratio > 0 ? { ratio } : {}),
  });
}

/** The facts as they are while the mode is strict. */
function strictFacts(facts: HostFacts, params: StrictParams): HostFacts {
  return {
    ...facts,
    commitLimitPages: Math.floor(limitBytes(params, facts) / facts.pageSizeBytes),
    adminReservePages: Math.max(Math.floor(LEAST_RESERVE_BYTES / facts.pageSizeBytes), facts.adminReservePages),
  };
}

const NO_READING: Figure = { unknown: 'Committed_AS is read when the fork is made' };

/** How many pages were left, or (negative) lacking, by the last fork. */
function marginOf(outcome: Outcome | undefined, facts: HostFacts): Figure {
  return outcome?.commit ? strictMarginPages(facts, outcome.commit) : NO_READING;
}

function showMargin(margin: Figure): string | number {
  return typeof margin === 'number' ? formatCount(margin) : '-';
}

interface Started {
  /** How many children there are, surely and at most. */
  children: Process[];
  sure: number;
  /** The outcomes of the forks. */
  outcomes: Outcome[];
  /** When the last was forked, or refused. */
  memory: { availableBytes: Figure; committedBytes: number };
}

/** Forks until one is refused, and lets them live until all are there. */
async function startChildren(machine: Machine, most: number): Promise<Started> {
  const children: Process[] = [];
  const outcomes: Outcome[] = [];
  let sure: number | undefined;
  while (children.length < most) {
    const forked = await machine.root.tryFork();
    const outcome = machine.trace.at(-1)?.outcome ?? {};
    outcomes.push(outcome);
    if ('refused' in forked) break;
    if (outcome.uncertain !== undefined) sure ??= children.length;
    children.push(forked);
  }
  return { children, sure: sure ?? children.length, outcomes, memory: await machine.readMemory() };
}

async function end(children: readonly Process[]): Promise<void> {
  for (const child of children) await child.kill();
}

const UNCERTAIN = 'the kernel judges by a per-CPU counter that may lag by a batch on each CPU (MODEL.md rule 14)';

function countOf({ children, sure }: Started): Figure {
  return sure === children.length ? sure : { min: sure, max: children.length, why: UNCERTAIN };
}

function refusalsOf({ outcomes }: Started): string[] {
  return outcomes.flatMap(({ failure }) => (failure?.why === undefined ? [] : [`Why: ${failure.why}`]));
}

function childRows(started: Started, facts: HostFacts): (string | number)[][] {
  return started.outcomes.map((outcome, index) => {
    const { commit, failure, uncertain } = outcome;
    const asked = commit?.vmaPages.reduce((sum, pages) => sum + pages, 0);
    const result = failure ? `${failure.syscall}: ${failure.code}` : uncertain === undefined ? 'forks' : 'uncertain';
    return [
      index + 1,
      commit ? formatCount(commit.committedPages) : '-',
      asked === undefined ? '-' : formatCount(asked),
      showMargin(marginOf(outcome, facts)),
      result,
    ];
  });
}

function plotCommitted(started: Started, facts: HostFacts): Plot[] {
  const gib = (pages: number): number => (pages * facts.pageSizeBytes) / 2 ** 30;
  const asked = started.outcomes.map(({ commit }) => {
    return commit && gib(commit.committedPages + commit.vmaPages.reduce((sum, pages) => sum + pages, 0));
  });
  if (asked.some((value) => value === undefined)) return [];
  return [
    {
      title: 'Committed_AS as each child would make it, GiB',
      xLabel: 'child',
      yLabel: 'GiB',
      x: asked.map((_, index) => index + 1),
      series: [
        { name: 'CommitLimit', y: asked.map(() => gib(facts.commitLimitPages)) },
        { name: 'asked', y: asked.map((value) => value ?? 0) },
      ],
    },
  ];
}

/** The parent, with its memory: made before the mode is strict, so that this lasts as short as can be. */
async function makeParent({ machine, params, progress }: StrictContext): Promise<Region> {
  progress(`making a parent of ${formatBytes(params.size)}`);
  const region = await machine.root.map({ size: params.size });
  if (params.touch) await machine.root.write(region);
  return region;
}

async function findChild(context: StrictContext): Promise<Findings> {
  const { machine, params, progress, sample } = context;
  const facts = strictFacts(machine.facts, params);
  await makeParent(context);
  const modes: { mode: 0 | 1 | 2; started: Started }[] = [];
  for (const mode of [2, 0, 1] as const) {
    progress(`forking up to ${String(params.children)} children with vm.overcommit_memory=${String(mode)}`);
    if (mode === 2) await makeStrict(machine, params);
    else await machine.setOvercommit({ mode });
    const started = await startChildren(machine, params.children);
    await end(started.children);
    modes.push({ mode, started });
  }
  const figures: NamedFigure[] = [];
  const rows: (string | number)[][] = [];
  for (const { mode, started } of modes) {
    const { availableBytes, committedBytes } = started.memory;
    const name = `children that start in mode ${String(mode)}`;
    figures.push({ name, unit: `of ${String(params.children)}`, value: countOf(started), headline: true });
    const available = typeof availableBytes === 'number' ? formatBytes(availableBytes) : '-';
    rows.push([MODES[mode], started.children.length, formatBytes(committedBytes), available]);
    sample({ mode, children: started.children.length, committedBytes, ...numeric({ availableBytes }) });
  }
  const [strict] = modes;
  if (!strict) throw new Error('unreachable');
  const refused = strict.started.outcomes.find(({ failure }) => failure);
  const last = strict.started.outcomes.findLast(({ failure }) => !failure);
  figures.push(
    {
      name: 'margin of the last that starts',
      unit: 'pages',
      value: marginOf(last, facts),
      headline: last !== undefined,
    },
    {
      name: 'margin of the one refused',
      unit: 'pages',
      value: marginOf(refused, facts),
      headline: refused !== undefined,
    },
    {
      name: 'memory available as it is refused',
      unit: 'bytes',
      value: strict.started.memory.availableBytes,
      headline: false,
    },
  );
  return {
    figures,
    tables: [
      {
        title: `Strict, CommitLimit ${formatBytes(limitBytes(params, machine.facts))}, in pages`,
        columns: ['child', 'Committed_AS before', 'asked', 'margin', 'fork'],
        rows: childRows(strict.started, facts),
      },
      { title: 'The same in each mode', columns: ['mode', 'children', 'Committed_AS', 'available'], rows },
    ],
    plots: plotCommitted(strict.started, facts),
    notes: [
      ...refusalsOf(strict.started),
      `The reserve for root (vm.admin_reserve_kbytes) was ${formatBytes(LEAST_RESERVE_BYTES)} or more meanwhile, for the ` +
        'harness. Everything has been put back.',
    ],
  };
}

const MODES = ['0 (heuristic)', '1 (always)', '2 (never, strict)'] as const;

function numeric(values: Record<string, Figure>): Record<string, number> {
  const known = Object.entries(values).filter((entry): entry is [string, number] => typeof entry[1] === 'number');
  return Object.fromEntries(known);
}

async function findLargest({ machine, params, progress }: StrictContext): Promise<Findings> {
  const facts = strictFacts(machine.facts, params);
  progress('searching for the largest VMA that forks under strict overcommit');
  await makeStrict(machine, params);
  const tried: number[] = [];
  const threshold = await findThreshold(machine, hopelessStrictPages(facts), tried);
  await machine.setOvercommit({ mode: facts.overcommitMode });
  const forks = machine.trace.filter(({ step }) => step.op === 'fork').map(({ outcome }) => outcome);
  const last = forks.findLast(({ failure }) => !failure);
  const refused = forks.findLast(({ failure }) => failure);
  const notes = [
    refused?.failure?.why === undefined ? undefined : `Why: ${refused.failure.why}`,
    'Parent and child are charged the VMA each, beside what they have of Node. No page of it was touched.',
  ];
  return {
    figures: [
      { name: 'largest VMA that forks', unit: 'pages', value: threshold, headline: true },
      { name: 'its margin', unit: 'pages', value: marginOf(last, facts), headline: true },
      { name: 'margin of one page more', unit: 'pages', value: marginOf(refused, facts), headline: true },
    ],
    tables: [],
    plots: [],
    notes: notes.filter((note) => note !== undefined),
  };
}

export function runStrict(context: StrictContext): Promise<Findings> {
  return context.params.find === 'child' ? findChild(context) : findLargest(context);
}

export function concludeStrict({ figures }: Findings, params: StrictParams): Conclusion {
  const value = (name: string): Figure | undefined => figures.find((figure) => figure.name === name)?.value;
  if (params.find === 'threshold') {
    return {
      outcome: 'holds only if',
      inShort: 'Under strict overcommit fork fails once what has been promised would pass CommitLimit, to the page.',
    };
  }
  const started = value('children that start in mode 2');
  const available = value('memory available as it is refused');
  const size = formatBytes(params.size);
  if (started === params.children) {
    return {
      outcome: 'undecided',
      inShort: `All ${String(started)} children of a ${size} parent start: CommitLimit is not reached. Choose more.`,
    };
  }
  const which = typeof started === 'number' ? `child ${String(started + 1)}` : 'one';
  const free = typeof available === 'number' ? ` while ${formatBytes(available)} of memory are available` : '';
  return {
    outcome: 'holds only if',
    inShort:
      `Under strict overcommit ${which} of ${String(params.children)} of a ${size} parent gets ENOMEM${free}: what is ` +
      'promised counts, not what is used. In modes 0 and 1 all of them start.',
  };
}
