/** A result as text for a terminal of 80 columns; plain characters only, unless colour is asked for. */
import asciichart from 'asciichart';
import type { Plot, ResultDocument, Table, Verdict } from '../schema/result.js';
import { formatBytes } from '../schema/units.js';
import { COLUMNS, paint, table, wrap } from './paragraph.js';
import type { Style, TextOptions } from './paragraph.js';
import { OUTCOMES, figureText, headlineTable, tablesOf, verdictText } from './wording.js';

const VERDICT_STYLE: Record<Verdict, Style> = { pass: 'green', fail: 'red', inconclusive: 'yellow', skip: 'yellow' };

function tableText({ title, columns, rows }: Table): string {
  const printed = table(
    columns.map((name, index) => ({ name, title: name, alignment: index === 0 ? 'left' : 'right' })),
    rows.map((row) => Object.fromEntries(columns.map((column, index) => [column, row[index] ?? '']))),
  );
  return `${title}\n${printed}`;
}

/** Lines are stretched to this many characters: a chart of seven points would be seven characters wide. */
const PLOT_COLUMNS = 44;
const PLOT_HEIGHT = 8;

/** Names of lines stand here, beside the last point of each. */
const LABEL_COLUMN = PLOT_COLUMNS + 11;

/** 'a = b', broken after an equals sign where it does not fit. */
function joinNames([first = '', ...others]: readonly string[]): string[] {
  const parts = [first];
  for (const name of others) {
    const joined = `${parts.at(-1) ?? ''} =`;
    const fits = joined.length + 1 + name.length + ' ='.length <= COLUMNS - LABEL_COLUMN;
    parts.splice(-1, 1, ...(fits ? [`${joined} ${name}`] : [joined, name]));
  }
  return parts;
}

/** What stands beside each row; the names of lines that end together may take several. */
function placeLabels(names: ReadonlyMap<number, readonly string[]>): (string | undefined)[] {
  const labels: (string | undefined)[] = [];
  for (const [row, together] of [...names].sort(([a], [b]) => a - b)) {
    const first = Math.max(row, labels.length);
    for (const [index, part] of joinNames(together).entries()) labels[first + index] = part;
  }
  return labels;
}

function stretch(values: readonly number[]): number[] {
  if (values.length < 2) return [...values, ...values];
  return Array.from({ length: PLOT_COLUMNS }, (_, column) => {
    const place = (column / (PLOT_COLUMNS - 1)) * (values.length - 1);
    const left = Math.min(Math.floor(place), values.length - 2);
    const [a = 0, b = 0] = values.slice(left, left + 2);
    return a + (b - a) * (place - left);
  });
}

/** A plot of lines, each named at its end; nothing if there is none. */
export function plotText({ title, series }: Plot): string | undefined {
  const finite = series.filter(({ y }) => y.length > 0 && y.every(Number.isFinite));
  if (finite.length === 0) return undefined;
  const all = finite.flatMap(({ y }) => y);
  const [min, max] = [Math.min(0, ...all), Math.max(...all, 1)];
  const lines = asciichart
    .plot(
      finite.map(({ y }) => stretch(y)),
      { height: PLOT_HEIGHT, min, max, format: (value) => value.toFixed(max < 16 ? 1 : 0).padStart(8) },
    )
    .split('\n');
  // Each line carries its name at its end, so that no colour is needed to tell them apart.
  const names = new Map<number, string[]>();
  for (const { name, y } of finite) {
    const row = Math.round(((max - (y.at(-1) ?? 0)) / (max - min)) * PLOT_HEIGHT);
    names.set(row, [...(names.get(row) ?? []), name]);
  }
  const labels = placeLabels(names);
  const rows = Math.max(lines.length, labels.length);
  const named = Array.from({ length: rows }, (_, row) => {
    const line = lines[row] ?? '';
    const label = labels[row];
    return label === undefined ? line.trimEnd() : `${line.padEnd(LABEL_COLUMN)}${label}`;
  });
  return [title, ...named].join('\n');
}

function failedChecks(result: ResultDocument): string | undefined {
  const failed = result.checks.filter(({ pass }) => pass === false);
  if (failed.length === 0) return undefined;
  const lines = failed.slice(0, 10).map(({ name, unit, expected, measured }) => {
    const text = `${name}: expected ${figureText(expected)} ${unit}, measured ${figureText(measured)}`;
    return wrap(text, '  - ', '    ');
  });
  const more = failed.length - lines.length;
  if (more > 0) lines.push(`  and ${String(more)} more (--json has them all)`);
  return ['Checks that failed', ...lines].join('\n');
}

/** @returns Text that ends in a newline. */
export function renderText(result: ResultDocument, options: TextOptions = {}): string {
  const findings = result.measurement ?? result.prediction;
  const { claim, environment, verdict } = result;
  const host = `Linux ${environment.kernel} ${environment.arch}, overcommit ${environment.overcommit}`;
  const machine = environment.virtualMachine;
  const guest = machine ? `, a virtual machine (${machine.accelerator}) of ${formatBytes(machine.memoryBytes)}` : '';
  const headline = headlineTable(result);
  const blocks = [
    paint('bold', wrap(result.title, `${result.experiment}: `, '  '), options),
    [wrap(claim.text, 'Claim: ', '       '), `       ${claim.source}`, wrap(host + guest, 'Host:  ', '       ')].join(
      '\n',
    ),
    headline && tableText(headline),
    ...tablesOf(result).map(tableText),
    ...(findings?.plots.map(plotText) ?? []),
    findings?.notes.map((note) => wrap(note, '', '  ')).join('\n'),
    failedChecks(result),
    wrap(claim.inShort, `The claim ${OUTCOMES[claim.outcome]}. `, '  '),
    paint(VERDICT_STYLE[verdict], wrap(verdictText(result), `${verdict.toUpperCase()}: `, '  '), options),
  ];
  return `${blocks.filter((block) => block !== undefined && block !== '').join('\n\n')}\n`;
}
