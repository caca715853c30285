/** Commit charge: what was promised to the processes, against what they took and against the limit. */
import type { ResultDocument } from '../../schema/result.js';
import type { Observation } from '../../schema/step.js';
import { observationsOf, observedOn, toNumber } from '../observations.js';
import type { Chart, Point, Series } from './chart.js';

const MIB = 2 ** 20;

/** Beyond this many times what is promised, a limit is named and not drawn: nothing else could be made out. */
const FAR = 8;

const total = (figures: readonly number[]): number => figures.reduce((sum, one) => sum + one, 0);

/** Pages of the VMAs that are charged, over all processes. */
function promisedPages({ processes }: Observation): number {
  const vmas = processes.flatMap(({ regions }) => regions.flatMap((region) => region.vmas));
  return total(vmas.filter(({ accounted }) => accounted).map(({ pages }) => pages));
}

function takenBytes({ processes }: Observation): number {
  return 1024 * total(processes.flatMap(({ regions }) => regions.map(({ smapsKb }) => toNumber(smapsKb['Pss']))));
}

/** A series of the forks that succeeded and one of those that were refused, where there are some. */
export function forkSeries(points: (refused: boolean) => Point[]): Series[] {
  const series: Series[] = [
    { name: 'fork that succeeded', measured: points(false), model: [] },
    { name: 'fork that was refused', measured: points(true), model: [], crossed: true },
  ];
  return series.filter(({ measured }) => measured.length > 0);
}

/** What each fork under strict overcommit would have brought Committed_AS to, and the limit that judged it. */
function strictChart({ trace, environment }: ResultDocument): Chart | undefined {
  const { pageSizeBytes } = environment;
  const mib = (pages: number): number => (pages * pageSizeBytes) / MIB;
  let limitPages = environment.commitLimitBytes / pageSizeBytes;
  let limit = mib(limitPages);
  const forks: { point: Point; refused: boolean }[] = [];
  for (const { step, outcome } of trace) {
    if (outcome.commitLimitPages !== undefined) limitPages = toNumber(outcome.commitLimitPages);
    if (step.op !== 'fork' || !outcome.commit) continue;
    const { committedPages, vmaPages } = outcome.commit;
    limit = mib(limitPages);
    const label = `fork ${String(forks.length + 1)} of ${step.process}`;
    const point = { x: forks.length + 1, y: mib(committedPages + total(vmaPages)), label };
    forks.push({ point, refused: outcome.failure !== undefined });
  }
  if (forks.length === 0) return undefined;
  const points = (refused: boolean): Point[] =>
    forks.filter((one) => one.refused === refused).map(({ point }) => point);
  return {
    title: 'Commit charge at each fork, against the limit',
    note: 'Committed_AS of the whole machine with what the fork asks for. Reserves are held back below the limit.',
    xLabel: 'fork',
    yLabel: 'MiB',
    series: forkSeries(points),
    limit: { name: 'CommitLimit', y: limit },
    wholeX: true,
    scattered: true,
  };
}

function promisedChart(result: ResultDocument): Chart | undefined {
  const observations = observationsOf(result);
  if (observations.length < 2) return undefined;
  const { pageSizeBytes, commitLimitBytes, overcommit } = result.environment;
  const line = (bytesOf: (observation: Observation) => number): Point[] =>
    observations.map((observation, index) => ({
      x: index + 1,
      y: bytesOf(observation) / MIB,
      label: observation.label,
    }));
  const promised = line((observation) => promisedPages(observation) * pageSizeBytes);
  const taken = line(takenBytes);
  const on = (points: Point[]): Pick<Series, 'measured' | 'model'> =>
    observedOn(result) === 'kernel' ? { measured: points, model: [] } : { measured: [], model: points };
  const limit = commitLimitBytes / MIB;
  const near = limit <= FAR * Math.max(...promised.map(({ y }) => y));
  const enforced = overcommit.startsWith('2') ? '' : ', which this overcommit mode does not enforce';
  const where = near ? 'drawn' : 'far above';
  return {
    title: 'Commit charge of the tree, against the limit',
    note: `CommitLimit is ${Math.round(limit).toLocaleString('en-US')} MiB (${where})${enforced}.`,
    xLabel: 'observation',
    yLabel: 'MiB',
    series: [
      { name: 'promised (charged to the tree)', ...on(promised) },
      { name: 'taken (sum of Pss)', ...on(taken) },
    ],
    ...(near ? { limit: { name: 'CommitLimit', y: limit } } : {}),
    wholeX: true,
  };
}

export function commitCharts(result: ResultDocument): Chart[] {
  return [strictChart(result), promisedChart(result)].flatMap((chart) => chart ?? []);
}
