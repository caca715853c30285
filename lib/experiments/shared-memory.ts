/** Threads, shared memory or messages: what does each cost, what is lost without a lock, and what does a lock cost? */
import { availableParallelism } from 'node:os';
import { check } from '../machine/compare.js';
import type { Figure } from '../schema/figure.js';
import type { Check, Findings, NamedFigure } from '../schema/result.js';
import { formatBytes, formatCount } from '../schema/units.js';
import type { Process } from '../machine/machine.js';
import { defineExperiment } from './define.js';
import type { MeasureContext, Measurement, RunContext } from './define.js';
import {
  addByPipe,
  addByRings,
  addInProcesses,
  callFromNode,
  callInThreads,
  dieInLock,
  readInProcesses,
} from './sharing-ways.js';
import type { CloseLater, Run } from './sharing-ways.js';
import { formatFigure, formatKb, regionOf, sumOfTree } from './tree-figures.js';

const params = {
  size: { type: 'size', default: 16 * 2 ** 20, min: 4096, max: 2 ** 44, describe: 'the array that workers write' },
  children: { type: 'integer', default: 4, min: 2, max: 64, describe: 'how many workers, at most; also 1 and 2' },
  times: { type: 'integer', default: 1_000_000, min: 1000, max: 2 ** 31, describe: 'additions of each worker' },
} as const;

/** What no model is asked: calls into a JavaScript engine and pipes are slower, so there are fewer. */
const FEWER = 10;

/** Each worker writes its own part of one array: shared, or private and so copied. */
async function writeParts(context: RunContext<typeof params>, sharing: 'shared' | 'private') {
  const { machine, params: values, progress } = context;
  const { root } = machine;
  progress(`workers write their parts of ${formatBytes(values.size)}, ${sharing}`);
  const region = await root.map({ size: values.size, sharing });
  await root.write(region);
  const workers: Process[] = [];
  for (let i = 0; i < values.children; i++) workers.push(await root.fork());
  const before = await machine.observe(`${sharing}: forked`);
  const pages = values.size / machine.facts.pageSizeBytes;
  for (const [index, worker] of workers.entries()) {
    const first = Math.floor((index * pages) / workers.length);
    const end = Math.floor(((index + 1) * pages) / workers.length);
    if (end > first) await worker.write(region, { first, pages: end - first });
  }
  const after = await machine.observe(`${sharing}: written`);
  for (const worker of workers) await worker.exit();
  await root.unmap(region);
  const seen = regionOf(after.processes[1], region.name);
  const [pssBefore, pss] = [sumOfTree(before, 'Pss', region.name), sumOfTree(after, 'Pss', region.name)];
  return { exclusive: seen?.counts['exclusive'] ?? 0, shared: seen?.counts['shared'] ?? 0, pssBefore, pss };
}

async function program(context: RunContext<typeof params>): Promise<Findings> {
  const figures: NamedFigure[] = [];
  const rows: (string | number)[][] = [];
  for (const sharing of ['private', 'shared'] as const) {
    const { exclusive, shared, pssBefore, pss } = await writeParts(context, sharing);
    figures.push(
      {
        name: `${sharing} array: exclusive pages of the first worker`,
        unit: 'pages',
        value: exclusive,
        headline: false,
      },
      { name: `${sharing} array: sum of Pss, written`, unit: 'kB', value: pss, headline: true },
    );
    rows.push([
      `MAP_${sharing.toUpperCase()}`,
      formatFigure(exclusive),
      formatFigure(shared),
      formatKb(pssBefore),
      formatKb(pss),
    ]);
  }
  return {
    figures,
    tables: [
      {
        title: `${String(context.params.children)} workers write a part of ${formatBytes(context.params.size)} each`,
        columns: ['array', 'exclusive*', 'shared*', 'forked', 'written'],
        rows,
      },
    ],
    plots: [],
    notes: ['* Pages of the first worker. Forked and written: the sum of Pss.'],
  };
}

/** One way to add or to read, with one worker, two, and all. */
interface Way {
  name: string;
  times: number;
  /** 'exact': nothing may be lost. */
  total: 'exact' | 'lossy';
  run: (workers: number, times: number, closeLater: CloseLater) => Promise<Run>;
}

function waysOf(times: number): Way[] {
  const few = Math.ceil(times / FEWER);
  return [
    { name: 'processes: no lock', times, total: 'lossy', run: (w, t, c) => addInProcesses(w, 'none', t, c) },
    { name: 'processes: atomic', times, total: 'exact', run: (w, t, c) => addInProcesses(w, 'atomic', t, c) },
    { name: 'processes: lock', times, total: 'exact', run: (w, t, c) => addInProcesses(w, 'lock', t, c) },
    { name: 'messages: ring', times, total: 'exact', run: addByRings },
    { name: 'messages: pipe', times: few, total: 'exact', run: addByPipe },
    { name: 'threads, TypeScript: no lock', times, total: 'lossy', run: (w, t, c) => callInThreads(w, 'plain', t, c) },
    { name: 'threads, TypeScript: Atomics', times, total: 'exact', run: (w, t, c) => callInThreads(w, 'atomic', t, c) },
    { name: 'threads, TypeScript: lock', times, total: 'exact', run: (w, t, c) => callInThreads(w, 'lock', t, c) },
    { name: 'threads: postMessage', times: few, total: 'exact', run: (w, t, c) => callInThreads(w, 'message', t, c) },
  ];
}

function readingWaysOf(times: number): Way[] {
  return [
    { name: 'processes: no lock', times, total: 'exact', run: (w, t, c) => readInProcesses(w, false, t, c) },
    { name: 'processes: lock', times, total: 'exact', run: (w, t, c) => readInProcesses(w, true, t, c) },
    { name: 'threads, TypeScript: no lock', times, total: 'exact', run: (w, t, c) => callInThreads(w, 'read', t, c) },
  ];
}

const LOST = 'a load and a store are two steps, and whoever stores last undoes what others did between them';

/** With increments that are not atomic, two are the least that is left, by whoever is last of all. */
function expectedTotal(kind: Way['total'], workers: number, times: number): Figure {
  const all = workers * times;
  return kind === 'exact' || workers === 1 ? all : { min: 2, max: all, why: LOST };
}

interface Timed {
  rows: (string | number)[][];
  checks: Check[];
  figures: NamedFigure[];
}

async function timeWays(context: MeasureContext<typeof params>, what: string, ways: readonly Way[]): Promise<Timed> {
  const { params: values, progress, sample, closeLater } = context;
  const counts = [...new Set([1, 2, values.children])];
  const timed: Timed = { rows: [], checks: [], figures: [] };
  for (const way of ways) {
    const row: (string | number)[] = [way.name];
    let [lost, ns] = [0, 0];
    for (const workers of counts) {
      progress(`${what}, ${way.name}: ${String(workers)} workers`);
      const { nsPerOperation, total } = await way.run(workers, way.times, closeLater);
      const expected = expectedTotal(way.total, workers, way.times);
      const basis = typeof expected === 'number' ? 'anchor' : 'bound';
      timed.checks.push(
        check(`${what}, ${way.name}, ${String(workers)} workers: total`, 'operations', basis, expected, total),
      );
      sample({ what, way: way.name, workers, 'ns per operation': nsPerOperation, total });
      row.push(nsPerOperation < 100 ? nsPerOperation.toFixed(1) : formatCount(Math.round(nsPerOperation)));
      ns = Math.round(nsPerOperation);
      lost = (100 * (workers * way.times - total)) / (workers * way.times);
    }
    row.push(way.total === 'exact' ? 'none' : `${lost.toFixed(0)}%`);
    timed.figures.push({ name: `${what}, ${way.name}`, unit: 'ns', value: ns, headline: false });
    timed.figures.push({ name: `${what}, ${way.name}: lost`, unit: '%', value: Math.round(lost), headline: false });
    timed.rows.push(row);
  }
  return timed;
}

async function measure(context: MeasureContext<typeof params>): Promise<Measurement> {
  const { params: values, progress, closeLater } = context;
  const { times, children } = values;
  const adding = await timeWays(context, 'adding', waysOf(times));
  const reading = await timeWays(context, 'reading', readingWaysOf(times));
  progress('killing a worker inside the lock');
  const death = await dieInLock(children, Math.ceil(times / FEWER), closeLater);
  const calls = Math.ceil(times / FEWER);
  const single = (['none', 'atomic', 'lock'] as const).map(
    (guard) => [guard, callFromNode(guard, calls, closeLater)] as const,
  );
  const checks = [
    ...adding.checks,
    ...reading.checks,
    check('a worker is killed inside the lock: the next owner is told', 'times', 'anchor', 1, death.told),
    check('and the others go on: total', 'operations', 'anchor', children * calls, death.total),
    ...single.map(([guard, { total }]) =>
      check(`calls from Node, ${guard}: total`, 'operations', 'anchor', calls, total),
    ),
  ];
  const counts = [...new Set([1, 2, children])].map(
    (count) => `${String(count)} ${count === 1 ? 'worker' : 'workers'}`,
  );
  return {
    figures: [
      ...adding.figures,
      { name: 'told that the last owner died', unit: 'times', value: death.told, headline: true },
    ],
    tables: [
      {
        title: 'Adding to one number: ns for each addition of a worker',
        columns: ['how', ...counts, 'lost'],
        rows: adding.rows,
      },
      {
        title: 'Reading one array: ns for each read of a worker',
        columns: ['how', ...counts, 'lost'],
        rows: reading.rows,
      },
      {
        title: 'Adding by calls from Node into native code, alone',
        columns: ['guard', 'ns'],
        rows: single.map(([guard, { nsPerOperation }]) => [guard, Math.round(nsPerOperation)]),
      },
    ],
    plots: [],
    notes: [
      `${String(availableParallelism())} CPUs here: more workers than that take turns. Processes run native loops; threads ` +
        'call TypeScript for each operation. Times are measured and not judged; totals are.',
    ],
    checks,
  };
}

export const sharedMemory = defineExperiment({
  name: 'shared-memory',
  title: 'Threads, shared memory or messages? With a lock or without?',
  claim: {
    text:
      'share by threads or by shared memory (Value, Array); lock=False when only reading, else all access is ' +
      'serialized; actors that pass messages are usually better',
    source: 'https://stackoverflow.com/questions/14124588',
  },
  params,

  needs(values, facts) {
    if (values.size % facts.pageSizeBytes !== 0) {
      throw new RangeError(`size must be a multiple of the page size, ${String(facts.pageSizeBytes)}`);
    }
    // The parts of the private array are copied, together once.
    return { memoryBytes: 2 * values.size + 64 * 2 ** 20 };
  },

  run: program,
  measure,

  conclude(result, agreed, { children }) {
    if (!agreed) return { outcome: 'undecided', inShort: 'Prediction and measurement differ; see the checks.' };
    const value = (name: string): string => {
      const figure = result.figures.find((one) => one.name === name)?.value;
      return typeof figure === 'number' ? formatCount(figure) : '-';
    };
    const measured = result.figures.some(({ unit }) => unit === 'ns');
    const ns = (way: string): string => `${value(`adding, ${way}`)} ns`;
    const prices = measured
      ? ` With ${String(children)} workers an addition takes ${ns('processes: atomic')} as an atomic operation, ` +
        `${ns('processes: lock')} under a lock, ${ns('messages: ring')} as a message in a ring, ` +
        `${ns('messages: pipe')} in a pipe; without any of these ${value('adding, processes: no lock: lost')}% are lost.`
      : '';
    return {
      outcome: 'holds only if',
      inShort:
        'Reading needs no lock, and a lock makes readers wait for each other; adding needs a lock or an atomic ' +
        `operation; messages are better only where they are worth their price.${prices}`,
    };
  },
});
