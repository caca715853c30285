/** What do fork, forkserver and spawn cost, and what does it cost to get the data to the workers? */
import { fork } from '../api/forked-process.js';
import type { ForkedProcess } from '../api/forked-process.js';
import { spawnFresh } from '../api/fresh-process.js';
import { createMemfd } from '../api/file-object.js';
import { mmap } from '../api/mapping.js';
import { check } from '../machine/compare.js';
import { ProcessEndedError, SystemError } from '../errors.js';
import { privateKb, readSmaps, readSmapsRollup } from '../proc/smaps.js';
import type { HostFacts } from '../schema/facts.js';
import { sum } from '../schema/figure.js';
import type { Figure } from '../schema/figure.js';
import type { Check, Findings, NamedFigure } from '../schema/result.js';
import type { Observation } from '../schema/step.js';
import { formatBytes } from '../schema/units.js';
import type { Process, Region } from '../machine/machine.js';
import { defineExperiment } from './define.js';
import type { MeasureContext, Measurement, ParamsOf, RunContext } from './define.js';
import { chargedPages, formatKb, sumOfTree } from './tree-figures.js';

const params = {
  size: { type: 'size', default: 128 * 2 ** 20, min: 4096, max: 2 ** 44, describe: 'data of the parent' },
  children: { type: 'integer', default: 4, min: 1, max: 64, describe: 'how many workers' },
} as const;
type Params = ParamsOf<typeof params>;

/** One start method with one way for the data to get to the workers. */
interface Way {
  method: 'fork' | 'forkserver';
  data: 'inherited' | 'sent' | 'shared';
}

const WAYS: readonly Way[] = [
  { method: 'fork', data: 'inherited' },
  { method: 'fork', data: 'sent' },
  { method: 'fork', data: 'shared' },
  { method: 'forkserver', data: 'sent' },
  { method: 'forkserver', data: 'shared' },
];

const NAMES = { inherited: 'inherited', sent: 'sent to each', shared: 'shared (memfd)' } as const;

interface Taken {
  startKb: Figure;
  workKb: Figure;
  chargedKb: number;
}

/** The sum over all processes and all of their regions. */
function memoryOf(observation: Observation): Figure {
  const regions = new Set(observation.processes.flatMap((process) => process.regions.map(({ region }) => region)));
  return sum([...regions].map((region) => sumOfTree(observation, 'Pss', region)));
}

function chargeOf(observation: Observation): number {
  const regions = new Set(observation.processes.flatMap((process) => process.regions.map(({ region }) => region)));
  return [...regions].reduce((total, region) => total + chargedPages(observation, region), 0);
}

/** A pool of workers, started and at work. `server` was forked before there was any data. */
async function tryWay(context: RunContext<typeof params>, server: Process, { method, data }: Way): Promise<Taken> {
  const { machine, params: values } = context;
  const { root } = machine;
  const label = `${method}, ${data}`;
  context.progress(`${label}: ${String(values.children)} workers`);
  const pages = values.size / machine.facts.pageSizeBytes;
  const object = data === 'shared' ? await machine.createMemfd(pages) : undefined;
  const common = object ? ({ pages, backing: object, sharing: 'shared' } as const) : { pages };
  const original = await root.map(common);
  await root.write(original);
  const starter = method === 'fork' ? root : server;
  const workers: Process[] = [];
  for (let worker = 0; worker < values.children; worker++) workers.push(await starter.fork());
  const started = await machine.observe(`${label}: started`);

  const received: [Process, Region][] = [];
  for (const worker of workers) {
    if (worker.regions.has(original) && data !== 'sent') {
      await worker.read(original);
      continue;
    }
    const own = await worker.map(common);
    received.push([worker, own]);
    // What is sent has to be put somewhere by the one who gets it: memory of its own, all of it written.
    if (data === 'sent') await worker.write(own);
    await worker.read(own);
  }
  const working = await machine.observe(`${label}: at work`);
  for (const worker of workers) await worker.exit();
  await root.unmap(original);
  const kb = machine.facts.pageSizeBytes / 1024;
  return { startKb: memoryOf(started), workKb: memoryOf(working), chargedKb: chargeOf(working) * kb };
}

/** Whether each method can start a worker where the parent has one VMA beyond RAM plus swap; in mode 0 alone. */
async function tryBeyond({ machine, progress }: RunContext<typeof params>, server: Process) {
  if (machine.facts.overcommitMode !== 0) return [];
  progress('starting workers of a parent with one VMA beyond RAM plus swap');
  const { root } = machine;
  const pages = hopelessPages(machine.facts);
  const region = await root.map({ pages: Math.ceil(pages / 2) });
  await root.grow(region, pages);
  const results: ['fork' | 'forkserver', number][] = [];
  for (const [method, starter] of [
    ['fork', root],
    ['forkserver', server],
  ] as const) {
    const worker = await starter.tryFork();
    results.push([method, 'refused' in worker ? 0 : 1]);
    if (!('refused' in worker)) await worker.exit();
  }
  await root.unmap(region);
  return results;
}

function hopelessPages({ memTotalPages, swapTotalPages }: HostFacts): number {
  return memTotalPages + swapTotalPages + 1;
}

async function program(context: RunContext<typeof params>): Promise<Findings> {
  // Before there is any data: that is all that a forkserver is.
  const server = await context.machine.root.fork();
  const rows: (string | number)[][] = [];
  const figures: NamedFigure[] = [];
  for (const way of WAYS) {
    const { startKb, workKb, chargedKb } = await tryWay(context, server, way);
    const name = `${way.method}, data ${NAMES[way.data]}`;
    rows.push([way.method, NAMES[way.data], formatKb(startKb), formatKb(workKb), formatKb(chargedKb)]);
    figures.push(
      { name: `${name}: used at the start`, unit: 'kB', value: startKb, headline: false },
      { name: `${name}: used at work`, unit: 'kB', value: workKb, headline: false },
      { name: `${name}: commit charge`, unit: 'kB', value: chargedKb, headline: false },
    );
  }
  for (const [method, worked] of await tryBeyond(context, server)) {
    figures.push({ name: `${method} beyond RAM plus swap`, unit: 'workers', value: worked, headline: true });
  }
  return {
    figures,
    tables: [
      {
        title: `${formatBytes(context.params.size)} for ${String(context.params.children)} workers that read all of it`,
        columns: ['method', 'data', 'at the start', 'at work', 'commit charge'],
        rows,
      },
    ],
    plots: [],
    notes: ['Used is the sum of Pss of the data over parent and workers; the commit charge is that of the data.'],
  };
}

interface Started {
  method: 'fork' | 'forkserver' | 'spawn';
  workers: ForkedProcess[];
  /** Means over the workers. */
  callUs: number;
  readyMs: number;
  /** What each worker has for itself before it does anything. */
  ownKb: number;
}

/** The mean is over few, and one who waits for a pool waits for all of them. */
function mean(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0) / values.length;
}

async function startPool(
  method: Started['method'],
  count: number,
  start: () => Promise<ForkedProcess> | ForkedProcess,
  closeLater: MeasureContext['closeLater'],
): Promise<Started> {
  const workers: ForkedProcess[] = [];
  const ready: number[] = [];
  for (let worker = 0; worker < count; worker++) {
    const before = performance.now();
    const process = await start();
    closeLater(() => process.close());
    // Ready is who answers. The region stays, but nothing of it is touched.
    await process.map({ pages: 1, noreserve: true });
    ready.push(performance.now() - before);
    workers.push(process);
  }
  return {
    method,
    workers,
    callUs: mean(workers.map(({ forkNs }) => forkNs)) / 1000,
    readyMs: mean(ready),
    ownKb: mean(workers.map(({ pid }) => privateKb(readSmapsRollup(pid)))),
  };
}

/** The proportional share of a page that `mappers` map, summed over a VMA as smaps does it: PSS_SHIFT is 12. */
function pssKb(pages: number, mappers: number, pageSizeBytes: number): number {
  return Math.floor((pages * Math.floor((pageSizeBytes * 4096) / mappers)) / 2 ** 22);
}

function regionPssKb(process: ForkedProcess, address: bigint): number {
  const found = readSmaps(process.pid).find(({ start }) => start === address);
  return found?.fieldsKb['Pss'] ?? NaN;
}

/** The data sent to fresh interpreters, and shared with them: each figure is what can be computed by hand. */
async function giveToFresh(
  context: MeasureContext<typeof params>,
  parent: ForkedProcess,
  workers: readonly ForkedProcess[],
): Promise<Check[]> {
  const { pageSizeBytes } = context.machine.facts;
  const pages = context.params.size / pageSizeBytes;
  let sentKb = 0;
  for (const worker of workers) {
    const region = await worker.map({ pages });
    await worker.write(region);
    sentKb += regionPssKb(worker, worker.placement(region).address);
    await worker.unmap(region);
  }
  const object = createMemfd(pages);
  const close = context.closeLater(() => {
    object.close();
  });
  const mappers: [ForkedProcess, bigint][] = [];
  for (const process of [parent, ...workers]) {
    const region = await process.map({ pages, object, sharing: 'shared' });
    if (process === parent) await process.write(region);
    else await process.read(region);
    mappers.push([process, process.placement(region).address]);
  }
  const sharedKb = mappers.reduce((total, [process, address]) => total + regionPssKb(process, address), 0);
  await close();
  const count = mappers.length;
  const all = workers.length * pssKb(pages, 1, pageSizeBytes);
  return [
    check('spawn, data sent to each: used by the workers', 'kB', 'anchor', all, sentKb),
    check('spawn, data shared (memfd): used', 'kB', 'anchor', count * pssKb(pages, count, pageSizeBytes), sharedKb),
  ];
}

/** Whether a fork of Node is refused for want of memory. */
function isRefused(closeLater: MeasureContext['closeLater']): boolean {
  try {
    const forked = fork();
    closeLater(() => forked.close());
    return false;
  } catch (error) {
    if (error instanceof SystemError && error.code === 'ENOMEM') return true;
    throw error;
  }
}

/** Whether a fresh interpreter can be started, and does what it is told. */
async function freshAnswers(closeLater: MeasureContext['closeLater']): Promise<boolean> {
  try {
    const fresh = spawnFresh();
    const close = closeLater(() => fresh.close());
    await fresh.map({ pages: 1 });
    await close();
    return true;
  } catch (error) {
    if (error instanceof SystemError || error instanceof ProcessEndedError) return false;
    throw error;
  }
}

/** Node itself as a parent with one VMA beyond RAM plus swap, not a page of which is touched. */
async function spawnBeyond({ machine, closeLater }: MeasureContext<typeof params>): Promise<Check[]> {
  if (machine.facts.overcommitMode !== 0) return [];
  const pages = hopelessPages(machine.facts);
  const memory = mmap({ pages: Math.ceil(pages / 2) });
  const unmap = closeLater(() => {
    memory.unmap();
  });
  memory.grow(pages);
  const refused = isRefused(closeLater);
  const answered = await freshAnswers(closeLater);
  await unmap();
  return [
    check('fork of Node beyond RAM plus swap is refused', 'times', 'anchor', 1, refused ? 1 : 0),
    check('spawn beyond RAM plus swap: a worker answered', 'times', 'anchor', 1, answered ? 1 : 0),
  ];
}

async function measure(context: MeasureContext<typeof params>): Promise<Measurement> {
  const { params: values, progress, closeLater } = context;
  const server = fork();
  closeLater(() => server.close());
  const parent = fork();
  closeLater(() => parent.close());
  progress(`writing ${formatBytes(values.size)} in a parent, and starting workers by each method`);
  const data = await parent.map({ length: values.size });
  await parent.write(data);
  const pools: Started[] = [];
  for (const [method, start] of [
    ['fork', () => parent.fork()],
    ['forkserver', () => server.fork()],
    ['spawn', spawnFresh],
  ] as const) {
    const pool = await startPool(method, values.children, start, closeLater);
    pools.push(pool);
    if (method !== 'spawn') for (const worker of pool.workers) await worker.exit();
  }
  await parent.unmap(data);
  progress('giving the data to fresh interpreters');
  const fresh = pools.find(({ method }) => method === 'spawn')?.workers ?? [];
  const checks = await giveToFresh(context, parent, fresh);
  for (const worker of fresh) await worker.exit();
  checks.push(...(await spawnBeyond(context)));
  return {
    figures: pools.flatMap(({ method, callUs, readyMs }): NamedFigure[] => [
      { name: `${method}: the call`, unit: 'us', value: Math.round(callUs), headline: false },
      { name: `${method}: until it answers`, unit: 'us', value: Math.round(readyMs * 1000), headline: true },
    ]),
    tables: [
      {
        title: `Starting a worker of a parent with ${formatBytes(values.size)}, mean of ${String(values.children)}`,
        columns: ['method', 'the call', 'until it answers', 'memory of its own'],
        rows: pools.map(({ method, callUs, readyMs, ownKb: own }) => [
          method,
          `${(callUs / 1000).toFixed(2)} ms`,
          `${readyMs.toFixed(2)} ms`,
          formatKb(own),
        ]),
      },
      {
        title: 'Fresh interpreters (spawn), counted by hand and measured',
        columns: ['what', 'expected', 'measured'],
        rows: checks.map(({ name, unit, expected, measured }) => {
          const show = (figure: Figure): string => (unit === 'kB' ? formatKb(figure) : figure === 1 ? 'yes' : 'no');
          return [name, show(expected), show(measured)];
        }),
      },
    ],
    plots: [],
    notes: [
      'spawn starts a fresh Node by posix_spawn. Data that is sent is what ' +
        'Pool.map(partial(func, data), ...) does: a copy for each worker, with any method, fork too.',
    ],
    checks,
  };
}

function requireWholePages({ size }: Params, pageSizeBytes: number): void {
  if (size % pageSizeBytes === 0) return;
  throw new RangeError(`size must be a multiple of the page size, ${String(pageSizeBytes)}, not ${String(size)}`);
}

export const startMethods = defineExperiment({
  name: 'start-methods',
  title: 'fork, forkserver or spawn: what does each cost, and when does it fail?',
  claim: {
    text: 'forkserver or spawn avoid the memory of fork, and start a bit slower',
    source: 'https://stackoverflow.com/questions/42584525',
  },
  params,

  needs(values, facts) {
    requireWholePages(values, facts.pageSizeBytes);
    // Fresh interpreters take some 40 MiB each.
    return { memoryBytes: values.size * (1 + values.children) + values.children * 40 * 2 ** 20 };
  },

  run: program,
  measure,

  conclude(result, agreed, { size, children }) {
    if (!agreed) return { outcome: 'undecided', inShort: 'Prediction and measurement differ; see the checks.' };
    const ready = (method: string): number => {
      const value = result.figures.find(({ name }) => name === `${method}: until it answers`)?.value;
      return typeof value === 'number' ? value : NaN;
    };
    const slower = ready('spawn') / ready('fork');
    const bit = Number.isFinite(slower) ? `spawn starts ${slower.toFixed(0)} times slower here; ` : '';
    return {
      outcome: 'holds only if',
      inShort:
        `Both start where fork is refused, but data sent to the workers is copied for each: ${String(children)} x ` +
        `${formatBytes(size)}, where fork inherits it and a shared mapping has it once. ${bit}` +
        'so fork for data that is there, spawn or forkserver with shared memory otherwise.',
    };
  },
});
