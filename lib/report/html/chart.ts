/** A chart as inline SVG: the model as lines, what was measured as points, told apart by shape and not by colour alone. */
import * as Plot from '@observablehq/plot';
import { parseHTML } from 'linkedom';
import { html, trusted } from './markup.js';
import type { Markup } from './markup.js';
import { table } from './table.js';

export interface Point {
  x: number;
  /** NaN where it is not known: then it is not drawn. */
  y: number;
  /** What x stands for. */
  label?: string;
}

export interface Series {
  name: string;
  measured: readonly Point[];
  model: readonly Point[];
  /** Drawn as crosses: forks that were refused, for example. */
  crossed?: boolean;
}

export interface Chart {
  title: string;
  /** What it shows and how it was come by. */
  note?: string;
  xLabel: string;
  yLabel: string;
  series: readonly Series[];
  /** A line across, such as a limit. */
  limit?: { name: string; y: number };
  /** x counts things. */
  wholeX?: boolean;
  /** Points stand for things of their own and are not joined where there is no model. */
  scattered?: boolean;
}

const WIDTH = 440;
const HEIGHT = 290;
const SYMBOLS = ['circle', 'square', 'triangle', 'diamond', 'star', 'wye'] as const;
const DASHES = ['none', '7 3', '2 3', '9 3 2 3', '12 4', '4 2'] as const;
/** Colours are variables of the page's style, which knows light and dark. */
const colorOf = (index: number): string => `var(--series-${String((index % SYMBOLS.length) + 1)})`;

/** What of Plot is used: its own types want those of a browser. */
type Draw = (options: object) => { setAttribute(name: string, value: string): void; outerHTML: string };
const draw = Plot.plot as unknown as Draw;
const parse = parseHTML as unknown as (text: string) => { document: unknown };
const { document } = parse('<!doctype html><html><body></body></html>');

const isDrawn = ({ y }: Point): boolean => Number.isFinite(y);

function figure(value: number): string {
  return value.toLocaleString('en-US', { maximumFractionDigits: Math.abs(value) < 10 ? 3 : 1 });
}

function titleOf(kind: string, { name }: Series, { x, y, label }: Point): string {
  return `${name}, ${kind}: ${figure(y)} at ${label ?? figure(x)}`;
}

function marksOf(series: Series, index: number, scattered: boolean): unknown[] {
  const stroke = colorOf(index);
  const measured = series.measured.filter(isDrawn);
  const model = series.model.filter(isDrawn);
  const symbol = series.crossed ? 'times' : SYMBOLS[index % SYMBOLS.length];
  const joined = model.length > 0 ? model : scattered ? [] : measured;
  return [
    Plot.lineY(joined, {
      x: 'x',
      y: 'y',
      stroke,
      strokeWidth: model.length > 0 ? 2 : 1,
      strokeDasharray: DASHES[index % DASHES.length] ?? 'none',
    }),
    ...(measured.length > 0
      ? [
          Plot.dot(measured, {
            x: 'x',
            y: 'y',
            symbol,
            stroke,
            strokeWidth: 1.75,
            r: measured.length > 60 ? 2 : 4.5,
            fill: 'none',
            pointerEvents: 'all',
            title: (point: Point) => titleOf('measured', series, point),
          }),
        ]
      : []),
  ];
}

/** A piece of line and a point, as they are drawn in the chart. */
function swatch(series: Series, index: number, scattered: boolean): Markup {
  const across = [0, 1].map((x): Point => ({ x, y: 0 }));
  const inModel = series.model.some(isDrawn);
  const lined: Series = {
    ...series,
    model: inModel ? across : [],
    measured: series.measured.some(isDrawn) ? [{ x: 0.5, y: 0 }] : [],
  };
  const marks = marksOf(lined, index, scattered);
  const dashes = DASHES[index % DASHES.length] ?? 'none';
  const joining =
    inModel || scattered
      ? []
      : [Plot.lineY(across, { x: 'x', y: 'y', stroke: colorOf(index), strokeDasharray: dashes })];
  const svg = draw({
    document,
    width: 34,
    height: 14,
    margin: 5,
    axis: null,
    x: { domain: [0, 1] },
    y: { domain: [-1, 1] },
    marks: [...joining, ...marks],
  });
  svg.setAttribute('aria-hidden', 'true');
  return trusted(svg.outerHTML);
}

function legend({ series, scattered = false }: Chart): Markup {
  const entries = series.map((one, index) => html`<li>${swatch(one, index, scattered)} ${one.name}</li>`);
  return html`<ul class="legend">
    ${entries}
  </ul>`;
}

/** The same in figures: a row for each x, and a column for each line. */
function figures({ title, xLabel, series, limit }: Chart): Markup | undefined {
  const points = series.flatMap(({ measured, model }) => [...measured, ...model]).filter(isDrawn);
  const labels = new Map(points.map(({ x, label }) => [x, label ?? figure(x)]));
  const columns = series.flatMap(({ name, measured, model }) =>
    [
      { name: `${name}, measured`, points: measured },
      { name: `${name}, model`, points: model },
    ].filter((column) => column.points.some(isDrawn)),
  );
  const rows = [...labels]
    .sort(([a], [b]) => a - b)
    .map(([x, label]) => [
      label,
      ...columns.map((column) => {
        const found = column.points.find((point) => point.x === x && isDrawn(point));
        return found ? figure(found.y) : '-';
      }),
    ]);
  const content = table({
    caption: limit ? `${title} (${limit.name}: ${figure(limit.y)})` : title,
    columns: [xLabel, ...columns.map(({ name }) => name)],
    rows,
  });
  return (
    content &&
    html`<details class="more">
      <summary>The figures of this plot</summary>
      ${content}
    </details>`
  );
}

function drawing(chart: Chart): Markup {
  const { title, xLabel, yLabel, series, limit, wholeX = false, scattered = false } = chart;
  const limits = limit
    ? [
        Plot.ruleY([limit.y], { stroke: 'currentColor', strokeWidth: 1.5, strokeDasharray: '10 4' }),
        Plot.text([limit], { y: 'y', text: 'name', frameAnchor: 'top-right', textAnchor: 'end', dy: -7 }),
      ]
    : [];
  const svg = draw({
    document,
    className: 'plot',
    width: WIDTH,
    height: HEIGHT,
    marginLeft: 54,
    marginRight: 14,
    marginTop: 28,
    marginBottom: 40,
    style: { fontSize: '12px' },
    x: { label: xLabel, ...(wholeX ? { interval: 1, tickFormat: 'd', ticks: 8 } : { ticks: 6 }), inset: 8 },
    y: { label: yLabel, grid: true, zero: true, nice: true, ticks: 6 },
    marks: [
      Plot.ruleY([0], { strokeOpacity: 0.5 }),
      ...limits,
      ...series.flatMap((one, index) => marksOf(one, index, scattered)),
    ],
  });
  // The names that Plot gives to groups are no names of roles.
  svg.setAttribute('aria-hidden', 'true');
  const label = `${title}. ${xLabel} across, ${yLabel} upwards.`;
  return html`<div role="img" aria-label="${label}">${trusted(svg.outerHTML)}</div>`;
}

function howToRead({ series, scattered }: Chart): string {
  const [predicted, measured] = [
    series.some(({ model }) => model.some(isDrawn)),
    series.some(({ measured: points }) => points.some(isDrawn)),
  ];
  if (predicted && measured) return 'Lines: the model. Points: measured.';
  if (predicted) return 'The model; nothing was measured.';
  return scattered ? 'Points: measured; no model says anything of them.' : 'Measured; thin lines only join the points.';
}

/** @returns Nothing for a chart without a point. */
export function chartFigure(chart: Chart): Markup | undefined {
  const points = chart.series.flatMap(({ measured, model }) => [...measured, ...model]);
  if (!points.some(isDrawn)) return undefined;
  return html`<figure class="chart">
    <figcaption><strong>${chart.title}</strong> <span class="hint">${howToRead(chart)} ${chart.note}</span></figcaption>
    ${drawing(chart)} ${legend(chart)} ${figures(chart)}
  </figure> `;
}
