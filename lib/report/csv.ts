/** Results as CSV [RFC 4180]: tidy, one observation a row and one variable a column. */
import type { Check, ResultDocument } from '../schema/result.js';
import { bounds, isUnknown } from '../schema/figure.js';
import type { Figure } from '../schema/figure.js';
import { observationRows } from './observations.js';

type Cell = string | number | boolean | undefined;
type Row = Record<string, Cell>;

function cellText(cell: Cell): string {
  const text = cell === undefined ? '' : String(cell);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** @returns Lines that end in a newline, the first with the names of all columns that any row has. */
function csvText(rows: readonly Row[]): string {
  const columns = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  return [columns, ...rows.map((row) => columns.map((column) => row[column]))]
    .map((cells) => `${cells.map(cellText).join(',')}\n`)
    .join('');
}

/** What was sampled; of an experiment that keeps no samples, what was observed. */
function rowsOf(result: ResultDocument): Row[] {
  return result.samples.length > 0 ? result.samples : observationRows(result);
}

/** The samples of one result alone. */
export function samplesCsv(result: ResultDocument): string {
  return csvText(rowsOf(result));
}

/** The samples of several results in one table: the first columns say of which result a row is. */
export function renderCsv(results: readonly ResultDocument[]): string {
  return csvText(
    results.flatMap((result, index) => {
      const { experiment, environment, params, measurement } = result;
      const own = Object.fromEntries(Object.entries(params).map(([name, value]) => [`param ${name}`, value]));
      const identity: Row = {
        'result number': index + 1,
        experiment,
        kernel: environment.kernel,
        started: environment.startedAt,
        source: measurement ? 'measured' : 'predicted',
        ...own,
      };
      return rowsOf(result).map((row) => {
        // A sample's own name for something stays beside ours.
        const apart = Object.entries(row).map(([name, cell]) => [name in identity ? `sample ${name}` : name, cell]);
        return { ...identity, ...(Object.fromEntries(apart) as Row) };
      });
    }),
  );
}

function limits(name: string, figure: Figure): Row {
  if (isUnknown(figure)) return { [`${name} min`]: undefined, [`${name} max`]: undefined };
  const { min, max } = bounds(figure);
  return { [`${name} min`]: min, [`${name} max`]: max };
}

/** Every check, a row each. */
export function checksCsv(checks: readonly Check[]): string {
  return csvText(
    checks.map(({ name, unit, basis, expected, measured, pass }) => ({
      name,
      unit,
      basis,
      ...limits('expected', expected),
      ...limits('measured', measured),
      pass: pass ?? 'unknown',
    })),
  );
}
