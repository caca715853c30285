/** How do private and shared pages grow as forked children write? */
import type { Figure } from '../schema/figure.js';
import type { Findings, NamedFigure } from '../schema/result.js';
import type { Observation } from '../schema/step.js';
import { formatBytes } from '../schema/units.js';
import type { Access, Process, Region } from '../machine/machine.js';
import { defineExperiment, requireWholePages } from './define.js';
import type { RunContext } from './define.js';
import { faultsOf, rawRows } from './raw-rows.js';
import { copiesInTheEnd, orderParams, share, shareLabel, writerParams, writersAmong } from './shares.js';
import { approximately, difference, formatFigure, formatKb, regionOf, sumOfTree } from './tree-figures.js';

const params = {
  size: { type: 'size', default: 256 * 2 ** 20, min: 4096, max: 2 ** 44, describe: 'written data of the parent' },
  children: { type: 'integer', default: 4, min: 1, max: 64, describe: 'how many are forked' },
  steps: { type: 'integer', default: 5, min: 1, max: 1000, describe: 'in how many shares the data is written' },
  ...orderParams,
  ...writerParams,
  reads: { type: 'boolean', default: false, describe: 'every child reads everything before each share' },
  sharing: {
    type: 'choice',
    default: 'private',
    choices: ['private', 'shared'],
    describe: 'MAP_PRIVATE or MAP_SHARED',
  },
} as const;

class Recorder {
  readonly figures: NamedFigure[] = [];
  readonly rows: (string | number)[][] = [];
  readonly pssMb: number[] = [];
  readonly rssMb: number[] = [];
  writeNs = 0;
  pagesWritten = 0;
  #before: Figure | undefined;

  constructor(readonly context: RunContext<typeof params>) {}

  record(label: string, observation: Observation, accesses: ReadonlyMap<string, Access>): void {
    const pss = sumOfTree(observation, 'Pss');
    const rss = sumOfTree(observation, 'Rss');
    const faults = faultsOf(accesses);
    this.#before ??= pss;
    const copied = difference(pss, this.#before);
    this.figures.push({ name: `${label}: sum of Pss`, unit: 'kB', value: pss, headline: false });
    this.figures.push({
      name: `${label}: growth of the sum of Pss`,
      unit: 'kB',
      value: copied,
      headline: label === '100%',
    });
    this.figures.push({ name: `${label}: minor faults`, unit: 'faults', value: faults, headline: false });
    this.pssMb.push(approximately(pss) / 1024);
    this.rssMb.push(approximately(rss) / 1024);
    const child = regionOf(observation.processes[1] ?? observation.processes[0]);
    const count = (state: string): string => formatFigure(child?.counts[state]);
    const row = [
      formatFigure(faults),
      formatKb(rss),
      formatKb(pss),
      formatKb(copied),
      count('exclusive'),
      count('shared'),
    ];
    this.rows.push([label, ...row]);
    for (const raw of rawRows(label, observation, accesses)) this.context.sample(raw);
  }
}

async function readEverything(processes: readonly Process[], region: Region): Promise<void> {
  for (const process of processes) await process.read(region);
}

async function program(context: RunContext<typeof params>): Promise<Findings> {
  const { machine, params: values, progress } = context;
  const { root } = machine;
  const recorder = new Recorder(context);

  progress(`writing ${formatBytes(values.size)} in the parent`);
  const region = await root.map({ size: values.size, sharing: values.sharing });
  const first = await root.write(region);
  recorder.record('written', await machine.observe('written'), new Map([[root.name, first]]));

  progress(`forking ${String(values.children)} children`);
  const children: Process[] = [];
  for (let child = 0; child < values.children; child++) children.push(await root.fork());
  recorder.record('forked', await machine.observe('forked'), new Map());

  const pages = values.size / machine.facts.pageSizeBytes;
  const writers = writersAmong(values, root, children);
  for (let step = 1; step <= values.steps; step++) {
    const label = shareLabel(step, values.steps);
    progress(`share ${String(step)} of ${String(values.steps)}`);
    if (values.reads) await readEverything(children, region);
    const accesses = new Map<string, Access>();
    for (const [index, writer] of writers.entries()) {
      const choice = share(values, pages, index, writers.length, step);
      const access = await writer.write(region, choice);
      accesses.set(writer.name, access);
      recorder.writeNs += access.elapsedNs ?? 0;
      recorder.pagesWritten += (choice.to ?? 0) - (choice.from ?? 0);
    }
    recorder.record(label, await machine.observe(`share ${String(step)}`), accesses);
  }
  return findings(context, recorder);
}

function findings({ machine }: RunContext<typeof params>, recorder: Recorder): Findings {
  const forkNs = machine.trace.flatMap(({ step, outcome }) => (step.op === 'fork' ? [outcome.elapsedNs ?? NaN] : []));
  const noTime: Figure = { unknown: 'no model predicts time' };
  const meanFork = forkNs.reduce((a, b) => a + b, 0) / forkNs.length / 1000;
  const perPage = recorder.writeNs / recorder.pagesWritten;
  const timed = (value: number): Figure => (Number.isFinite(value) && value > 0 ? Math.round(value) : noTime);
  return {
    figures: [
      ...recorder.figures,
      { name: 'fork call, mean', unit: 'us', value: timed(meanFork), headline: true },
      { name: 'write, mean', unit: 'ns per page', value: timed(perPage), headline: true },
    ],
    tables: [
      {
        title: 'Share by share',
        columns: ['share', 'faults', 'Rss', 'Pss', 'growth', 'exclusive*', 'shared*'],
        rows: recorder.rows,
      },
    ],
    plots: [
      {
        title: 'Memory of the process tree, MiB',
        xLabel: 'observation',
        yLabel: 'MiB',
        x: recorder.pssMb.map((_, index) => index),
        series: [
          { name: 'sum of Rss', y: recorder.rssMb },
          { name: 'sum of Pss', y: recorder.pssMb },
        ],
      },
    ],
    notes: [
      'Rss and Pss are sums over the tree. Growth is that of Pss: memory really taken. * Pages of the first child (before the fork: the parent).',
    ],
  };
}

export const cowGrowth = defineExperiment({
  name: 'cow-growth',
  title: 'How do private and shared pages grow as forked children write?',
  claim: {
    text: 'with copy-on-write, memory is copied page by page as it is written, and not before',
    source: 'https://stackoverflow.com/questions/10721915',
  },
  params,

  needs(values, facts) {
    requireWholePages('size', values.size, facts.pageSizeBytes);
    const copies = values.sharing === 'shared' ? 0 : copiesInTheEnd(values);
    return { memoryBytes: values.size * (1 + copies) };
  },

  run: program,

  conclude(result, agreed, values) {
    if (!agreed) return { outcome: 'undecided', inShort: 'Prediction and measurement differ; see the checks.' };
    const growth = (label: string) =>
      result.figures.find(({ name }) => name === `${label}: growth of the sum of Pss`)?.value;
    const [forked, last] = [growth('forked'), growth('100%')];
    if (values.sharing === 'shared') {
      return { outcome: 'holds', inShort: 'Shared memory is never copied: all write the same pages.' };
    }
    const grown = typeof last === 'number' ? formatBytes(last * 1024) : 'memory';
    const atFork = typeof forked === 'number' && Math.abs(forked) < 1024 ? 'nothing' : 'something';
    return {
      outcome: 'holds',
      inShort: `The fork itself copied ${atFork}; then ${grown} were copied, page by page, as they were written.`,
    };
  },
});
