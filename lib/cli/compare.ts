/** `cowlab compare`: two saved results, difference by difference. */
import { compareResults, pairResults } from '../experiments/compare-results.js';
import type {
  FigureDifference,
  ResultComparison,
  Side,
  Value,
  ValueDifference,
} from '../experiments/compare-results.js';
import { formatFigure } from '../experiments/tree-figures.js';
import { COLUMNS, paint, printable, shorten, table, wrap } from '../report/paragraph.js';
import type { Column, CommandOutput, TextOptions } from '../report/paragraph.js';
import { OUTCOMES } from '../report/wording.js';
import { formatBytes, formatCount } from '../schema/units.js';
import { UsageError } from './output.js';
import { loadResults } from './saved-results.js';

/** Rows shown one by one; the rest is counted. */
const TOP = 20;

/** Of a name or value that is one of three in a line. */
const CELL_COLUMNS = 22;

function valueText(name: string, value: Value): string {
  if (value === null) return '-';
  if (typeof value === 'number') return name.endsWith('Bytes') ? formatBytes(value) : formatCount(value);
  return printable(String(value));
}

function valueTable(title: string, differences: readonly ValueDifference[]): string[] {
  if (differences.length === 0) return [];
  const columns: Column[] = [
    { name: 'name', title: title },
    { name: 'a', title: 'a' },
    { name: 'b', title: 'b' },
  ];
  const rows = differences.map(({ name, a, b }) => ({
    name: shorten(name, CELL_COLUMNS),
    a: shorten(valueText(name, a), CELL_COLUMNS),
    b: shorten(valueText(name, b), CELL_COLUMNS),
  }));
  return [table(columns, rows)];
}

function yesOrNo(foretold: boolean | null): string {
  if (foretold === null) return '-';
  return foretold ? 'yes' : 'NO';
}

function figureTable(differences: readonly FigureDifference[]): string {
  const rows = differences.slice(0, TOP).map(({ name, unit, a, b, difference, foretold }) => ({
    name,
    a: formatFigure(a ?? undefined),
    b: formatFigure(b ?? undefined),
    difference: difference === null ? '-' : formatCount(difference),
    unit,
    foretold: yesOrNo(foretold),
  }));
  const titles = { a: 'a', b: 'b', difference: 'b - a', unit: 'unit', foretold: 'model' };
  const others = Object.entries(titles).map(([name, title]): Column => {
    return { name, title, alignment: name === 'unit' || name === 'foretold' ? 'left' : 'right' };
  });
  const width = (name: keyof typeof titles): number =>
    Math.max(titles[name].length, ...rows.map((row) => row[name].length));
  // What the others leave of the line; three characters separate two cells, and one more begins the line.
  const taken = (Object.keys(titles) as (keyof typeof titles)[]).reduce((total, name) => total + width(name) + 3, 0);
  const maxLen = Math.max(12, COLUMNS - taken - 4);
  const more = differences.length - TOP;
  const text = table([{ name: 'name', title: 'figure', maxLen }, ...others], rows);
  return text + (more > 0 ? `\n${formatCount(more)} more differ; --json has them all.` : '');
}

function both(what: string, a: string, b: string): string {
  return a === b ? `${what} ${a} in both.` : `${what} ${a} in a, ${b} in b.`;
}

function sideText(letter: string, file: string, { kernel, startedAt }: Side): string {
  return wrap(
    `${shorten(file, 40)}: Linux ${kernel}, ${startedAt.slice(0, 16).replace('T', ' ')} UTC`,
    `${letter}: `,
    '   ',
  );
}

const MODEL_NOTE =
  'model: whether both were predicted as they were measured, so that its rules explain the difference.';

function differencesText(title: string, compared: number, differences: readonly FigureDifference[]): string {
  if (differences.length === 0) return `${title}: ${formatCount(compared)} figures, all the same.`;
  const head = `${title}: ${formatCount(compared)} figures in both, ${formatCount(differences.length)} differ`;
  return `${head}\n${figureTable(differences)}`;
}

/** As text of 80 columns. */
export function comparisonText(
  files: readonly [string, string],
  { experiment, a, b, params, conditions, figures, steps }: ResultComparison,
  options: TextOptions,
): string {
  const differences = [...figures.differences, ...('incomparable' in steps ? [] : steps.differences)];
  return [
    paint('bold', `${experiment}\n`, options) + `${sideText('a', files[0], a)}\n${sideText('b', files[1], b)}`,
    ...valueTable('parameter', params),
    ...valueTable('condition', conditions),
    ...(params.length + conditions.length === 0 ? ['Parameters and conditions are the same.'] : []),
    differencesText('What was measured', figures.compared, figures.differences),
    'incomparable' in steps
      ? wrap(`The steps cannot be compared: ${steps.incomparable}.`)
      : differencesText('Step by step', steps.compared, steps.differences),
    ...(differences.some(({ foretold }) => foretold !== null) ? [wrap(MODEL_NOTE)] : []),
    wrap(both('The claim', OUTCOMES[a.outcome], OUTCOMES[b.outcome])) +
      `\n${wrap(both('The verdict is', a.verdict, b.verdict))}`,
  ].join('\n\n');
}

/**
 * @returns Exit code 0 whatever differs: a difference is an answer and not a failure.
 * @throws UsageError when the files are no results, or have no experiment in common.
 */
export async function runCompare(fileA: string, fileB: string, options: TextOptions = {}): Promise<CommandOutput> {
  const { pairs, onlyA, onlyB } = pairResults(loadResults(fileA), loadResults(fileB));
  if (pairs.length === 0) {
    throw new UsageError(
      `${fileA} and ${fileB} have no experiment in common: ${onlyA.join(', ')} there, ${onlyB.join(', ')} here`,
    );
  }
  const comparisons = [];
  for (const [a, b] of pairs) comparisons.push(await compareResults(a, b));
  const texts = comparisons.map((comparison) => comparisonText([fileA, fileB], comparison, options));
  for (const [file, names] of [
    [fileA, onlyA],
    [fileB, onlyB],
  ] as const) {
    if (names.length > 0) texts.push(wrap(`Only in ${file}: ${names.join(', ')}.`));
  }
  return { text: texts.join('\n\n\n'), json: comparisons.length === 1 ? comparisons[0] : comparisons, exitCode: 0 };
}
