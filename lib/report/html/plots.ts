/** The plots of a result: those that the experiment made, and what its trace shows of every experiment. */
import type { Findings, Plot, ResultDocument } from '../../schema/result.js';
import { Expectations, observationsOf, occurrences, processesOf, toNumber } from '../observations.js';
import { chartFigure } from './chart.js';
import type { Chart, Point, Series } from './chart.js';
import { commitCharts, forkSeries } from './commit-plots.js';
import { html } from './markup.js';
import type { Markup } from './markup.js';

/** Processes that have a line of their own; the tree is the sum of all. */
const LINES = 5;

const MIB_IN_KB = 1024;

function pointsOf({ x }: Plot, y: readonly number[]): Point[] {
  return x.map((position, index) => ({ x: position, y: y[index] ?? NaN }));
}

/** The plot of the same title that the model made. */
function twinOf(plot: Plot, findings: Findings | undefined): Plot | undefined {
  return findings?.plots.find(({ title }) => title === plot.title);
}

function findingsCharts({ measurement, prediction }: ResultDocument): Chart[] {
  return ((measurement ?? prediction)?.plots ?? []).map((plot) => {
    const [measured, model] = [twinOf(plot, measurement), twinOf(plot, prediction)];
    const series = plot.series.map(({ name }): Series => {
      const line = (from: Plot | undefined): Point[] => {
        const y = from?.series.find((one) => one.name === name)?.y;
        return from && y ? pointsOf(from, y) : [];
      };
      return { name, measured: line(measured), model: line(model) };
    });
    return { title: plot.title, xLabel: plot.xLabel, yLabel: plot.yLabel, series };
  });
}

interface Growth {
  measured: Point[];
  model: Point[];
}

/** The Pss of each process at each observation, in MiB, and what the model said of it. */
function growthByProcess(result: ResultDocument): Map<string, Growth> {
  const observations = observationsOf(result);
  const expectations = new Expectations(result);
  const before = occurrences(observations);
  const growth = new Map<string, Growth>();
  for (const [index, { label, processes }] of observations.entries()) {
    for (const { process, regions } of processes) {
      const own = growth.get(process) ?? { measured: [], model: [] };
      growth.set(process, own);
      const at = (y: number): Point => ({ x: index + 1, y: y / MIB_IN_KB, label });
      const total = (kb: number[]): number => kb.reduce((sum, one) => sum + one, 0);
      const seen = at(total(regions.map(({ smapsKb }) => toNumber(smapsKb['Pss']))));
      const predicted = regions.map(({ region }) =>
        toNumber(expectations.of(label, process, region, 'Pss', before[index])?.expected),
      );
      // Without a measurement the trace is the model's own.
      if (result.measurement) own.measured.push(seen);
      own.model.push(result.measurement ? at(total(predicted)) : seen);
    }
  }
  return growth;
}

function sumOf(parts: readonly (readonly Point[])[]): Point[] {
  const sums = new Map<number, Point>();
  for (const point of parts.flat()) {
    const sum = sums.get(point.x);
    sums.set(point.x, { ...point, y: point.y + (sum?.y ?? 0) });
  }
  return [...sums.values()].sort((a, b) => a.x - b.x);
}

function growthChart(result: ResultDocument): Chart | undefined {
  const observations = observationsOf(result);
  if (observations.length < 2) return undefined;
  const growth = growthByProcess(result);
  const all = [...growth.values()];
  const tree: Series = {
    name: 'the tree (sum of Pss)',
    measured: sumOf(all.map(({ measured }) => measured)),
    model: sumOf(all.map(({ model }) => model)),
  };
  const processes = processesOf(observations);
  const shown = processes.slice(0, LINES);
  const left = processes.length - shown.length;
  const lines = shown.map((name): Series => ({ name, ...(growth.get(name) ?? { measured: [], model: [] }) }));
  return {
    title: 'Memory of each process and of the tree',
    note: `Pss, which divides what is shared among those who share it.${
      left > 0 ? ` ${String(left)} more processes are in the tree only.` : ''
    }`,
    xLabel: 'observation',
    yLabel: 'Pss, MiB',
    series: [tree, ...lines],
    wholeX: true,
  };
}

function forkTimeChart({ trace }: ResultDocument): Chart | undefined {
  const forks = trace.filter(({ step }) => step.op === 'fork');
  const points = (refused: boolean): Point[] =>
    forks.flatMap(({ step, outcome }, index) => {
      if (step.op !== 'fork' || (outcome.failure !== undefined) !== refused) return [];
      const label = `fork ${String(index + 1)} (${step.process} to ${step.child})`;
      return [{ x: index + 1, y: (outcome.elapsedNs ?? NaN) / 1000, label }];
    });
  if (forks.length < 2) return undefined;
  return {
    title: 'Time of each fork call',
    xLabel: 'fork',
    yLabel: 'microseconds',
    series: forkSeries(points),
    wholeX: true,
    scattered: true,
  };
}

export function plotsSection(result: ResultDocument): Markup | undefined {
  const charts = [...findingsCharts(result), growthChart(result), forkTimeChart(result), ...commitCharts(result)];
  const figures = charts.flatMap((chart) => (chart && chartFigure(chart)) ?? []);
  if (figures.length === 0) return undefined;
  return html`<section>
    <h3>Plots</h3>
    <div class="charts">${figures}</div>
  </section> `;
}
