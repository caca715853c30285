/** Why does child_process.spawn fail with ENOMEM, or take so long, in a big Node? And what does posix_spawn do there? */
import { spawn as forkAndExec, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { median } from 'simple-statistics';
import { mmap } from '../api/mapping.js';
import type { Mapping } from '../api/mapping.js';
import { spawn } from '../api/spawn.js';
import { check } from '../machine/compare.js';
import { predictFork } from '../machine/linux/predict.js';
import { readHostFacts } from '../proc/host.js';
import type { HostFacts } from '../schema/facts.js';
import type { Check, Findings, NamedFigure } from '../schema/result.js';
import { formatBytes } from '../schema/units.js';
import { defineExperiment } from './define.js';
import type { MeasureContext, Measurement, RunContext } from './define.js';

const params = {
  size: { type: 'size', default: 512 * 2 ** 20, min: 4 * 4096, max: 2 ** 44, describe: 'written memory of Node, most' },
  rounds: { type: 'integer', default: 9, min: 1, max: 1000, describe: 'calls of each kind at each size' },
} as const;

/** A program that does nothing, so that the call is what takes the time. */
const PROGRAM = 'true';

/** Pages of the smallest single VMA with which the heuristic rule lets no fork succeed. */
function hopelessPages({ memTotalPages, swapTotalPages }: HostFacts): number {
  return memTotalPages + swapTotalPages + 1;
}

const NOT_HEURISTIC = 'vm.overcommit_memory is not 0, so that one big VMA decides nothing';

/** What the model can judge: a process with such a VMA, which it gets in two steps, since each is judged alone. */
async function program({ machine, progress }: RunContext<typeof params>): Promise<Findings> {
  const { facts, root } = machine;
  const figures: NamedFigure[] = [];
  if (facts.overcommitMode === 0) {
    progress('forking a process with one VMA beyond RAM plus swap');
    const pages = hopelessPages(facts);
    const region = await root.map({ pages: Math.ceil(pages / 2) });
    await root.grow(region, pages);
    const attempted = await root.tryFork();
    await root.unmap(region);
    figures.push({
      name: 'forks beyond RAM plus swap',
      unit: 'forks',
      value: 'refused' in attempted ? 0 : 1,
      headline: true,
    });
  }
  const child = await root.fork();
  await child.exit();
  return { figures, tables: [], plots: [], notes: [] };
}

/** Microseconds that a call keeps Node from doing anything else. */
async function timeOf(start: () => Promise<unknown>): Promise<number> {
  const before = performance.now();
  const ended = start();
  const elapsed = performance.now() - before;
  await ended;
  return elapsed * 1000;
}

const WAYS = {
  'child_process.spawn': () => once(forkAndExec(PROGRAM, [], { stdio: 'ignore' }), 'exit'),
  'spawn of cowlab': () => spawn(PROGRAM, [], { stdio: ['ignore', 'ignore', 'ignore'] }).ended,
} as const;

async function compareTimes({ params: values, progress, sample, closeLater }: MeasureContext<typeof params>) {
  const rows: (string | number)[][] = [];
  const ratios: number[] = [];
  for (const share of [0, 1 / 4, 1 / 2, 1]) {
    const pages = Math.floor((values.size * share) / 4096);
    progress(`starting programs with ${formatBytes(pages * 4096)} more in Node`);
    const memory = pages > 0 ? mmap({ pages }) : undefined;
    const unmap = closeLater(() => memory?.unmap());
    memory?.write();
    const times = { 'child_process.spawn': [] as number[], 'spawn of cowlab': [] as number[] };
    // In turns, so that what disturbs one disturbs the other.
    for (let round = 0; round < values.rounds; round++) {
      for (const [name, start] of Object.entries(WAYS)) times[name as keyof typeof times].push(await timeOf(start));
    }
    await unmap();
    const [forked, spawned] = [median(times['child_process.spawn']), median(times['spawn of cowlab'])];
    const written = formatBytes(pages * 4096);
    rows.push([written, Math.round(forked), Math.round(spawned), (forked / spawned).toFixed(1)]);
    sample({ written, 'child_process.spawn (us)': forked, 'spawn of cowlab (us)': spawned });
    ratios.push(forked / spawned);
  }
  return { rows, ratio: ratios.at(-1) ?? NaN };
}

/** Node itself with one VMA beyond RAM plus swap, none of which is touched. */
async function startBeyond(closeLater: MeasureContext['closeLater']): Promise<Check[]> {
  const facts = readHostFacts(process.pid);
  if (facts.overcommitMode !== 0) return [];
  const pages = hopelessPages(facts);
  const memory: Mapping = mmap({ pages: Math.ceil(pages / 2) });
  const unmap = closeLater(() => {
    memory.unmap();
  });
  memory.grow(pages);
  const predicted = predictFork(process.pid, facts);
  const { error } = spawnSync(PROGRAM, { stdio: 'ignore' });
  const refused = (error as NodeJS.ErrnoException | undefined)?.code === 'ENOMEM';
  const { code } = await spawn(PROGRAM, [], { stdio: ['ignore', 'ignore', 'ignore'] }).ended;
  await unmap();
  const again = spawnSync(PROGRAM, { stdio: 'ignore' });
  const times = 'times';
  return [
    check(
      'child_process.spawn beyond RAM plus swap says ENOMEM, as cowlab predict says of this Node',
      times,
      'comparison',
      predicted.outcome === 'fails' && predicted.errno === 'ENOMEM' ? 1 : 0,
      refused ? 1 : 0,
    ),
    check('spawn of cowlab works there, and the program ends with code 0', times, 'anchor', 1, code === 0 ? 1 : 0),
    check('without that VMA child_process.spawn works again', times, 'anchor', 1, again.status === 0 ? 1 : 0),
  ];
}

async function measure(context: MeasureContext<typeof params>): Promise<Measurement> {
  const { rows, ratio } = await compareTimes(context);
  context.progress('starting programs with one VMA beyond RAM plus swap');
  const checks = await startBeyond(context.closeLater);
  return {
    figures: [
      { name: 'child_process.spawn takes', unit: 'times as long', value: Math.round(ratio * 10) / 10, headline: true },
    ],
    tables: [
      {
        title: `Starting a program from Node: the call, median of ${String(context.params.rounds)}, us`,
        columns: ['written by Node', 'child_process.spawn', 'spawn of cowlab', 'ratio'],
        rows,
      },
      ...(checks.length === 0
        ? []
        : [
            {
              title: 'With one VMA beyond RAM plus swap in Node (not a page of it touched)',
              columns: ['what', 'came true'],
              rows: checks.map(({ name, measured }) => [name.replace(/, as .*/, ''), measured === 1 ? 'yes' : 'no']),
            },
          ]),
    ],
    plots: [],
    notes: [
      ...(checks.length === 0 ? [`${NOT_HEURISTIC}.`] : []),
      'While the call lasts Node does nothing else. Times are measured and not judged; ratios travel between machines ' +
        'better than they do.',
    ],
    checks,
  };
}

export const nodeSpawn = defineExperiment({
  name: 'node-spawn',
  title: 'Why does child_process.spawn fail in a big Node, and take so long?',
  claim: {
    text: 'child_process.spawn fails with ENOMEM where posix_spawn does not, because it forks all of Node',
    source: 'https://github.com/nodejs/node/issues/25382',
  },
  params,

  needs(values, facts) {
    if (values.size % facts.pageSizeBytes !== 0) {
      throw new RangeError(`size must be a multiple of the page size, ${String(facts.pageSizeBytes)}`);
    }
    return { memoryBytes: values.size };
  },

  run: program,
  measure,

  conclude(result, agreed, { size }, facts) {
    if (!agreed) return { outcome: 'undecided', inShort: 'Prediction and measurement differ; see the checks.' };
    const ratio = result.figures.find(({ unit }) => unit === 'times as long')?.value;
    const longer =
      typeof ratio === 'number'
        ? ` With ${formatBytes(size)} written the first takes ${String(ratio)} times as long as posix_spawn.`
        : '';
    if (facts.overcommitMode !== 0) {
      return { outcome: 'undecided', inShort: `${NOT_HEURISTIC}: try it with \`cowlab vm run node-spawn\`.${longer}` };
    }
    return {
      outcome: 'holds',
      inShort:
        'child_process.spawn forks Node, is judged as a fork is, and copies page tables; posix_spawn shares the memory ' +
        `until the program is there, so it is charged nothing.${longer}`,
    };
  },
});
