/** Results as GitHub-flavoured Markdown, short enough for a pull request or a lab hand-in. */
import type { Check, ResultDocument, Table } from '../schema/result.js';
import { formatCount } from '../schema/units.js';
import { compareAll } from './comparison.js';
import type { Comparison, Difference } from './comparison.js';
import {
  OUTCOMES,
  differenceText,
  environmentRows,
  figureText,
  headlineTable,
  tablesOf,
  verdictText,
} from './wording.js';

/** Rows shown of what there may be thousands of. */
const TOP = 20;

/**
 * Text of a result, which may come from anywhere, so that it stays text: neither markup, nor HTML, nor a link, nor a
 * mention of somebody.
 */
function plain(text: string): string {
  return text
    .replace(/\s+/g, ' ')
    .replace(/[\\`*_[\]#|~!]/g, '\\$&')
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replace(/@(?=\w)/g, '@&#8203;')
    .replace(/(?<=\b(?:https?|ftp)):(?=\/\/)/g, '&#58;');
}

/** A source that is a web address becomes a link; anything else stays text. */
function link(source: string): string {
  const isAddress = /^https?:\/\/[^\s<>()[\]\\|`]+$/.test(source);
  return isAddress ? `<${source}>` : plain(source);
}

function table(columns: readonly string[], rows: readonly (readonly (string | number)[])[], textColumns = 1): string {
  const line = (cells: readonly (string | number)[]): string =>
    `| ${cells.map((cell) => (typeof cell === 'number' ? formatCount(cell) : plain(cell))).join(' | ')} |`;
  const rule = `| ${columns.map((_, index) => (index < textColumns ? ':--' : '--:')).join(' | ')} |`;
  return [line(columns), rule, ...rows.map((row) => line(columns.map((_, index) => row[index] ?? '')))].join('\n');
}

function titled({ title, columns, rows }: Table): string {
  return `**${plain(title)}**\n\n${table(columns, rows)}`;
}

function checkRow({ name, unit, basis, expected, measured }: Check): string[] {
  return [name, figureText(expected), figureText(measured), differenceText(expected, measured), unit, basis];
}

function failedChecks({ checks }: ResultDocument): string | undefined {
  const failed = checks.filter(({ pass }) => pass === false);
  if (failed.length === 0) return undefined;
  const columns = ['check that failed', 'expected', 'measured', 'difference', 'unit', 'basis'];
  const more = failed.length - TOP;
  const rest = more > 0 ? `\n\nand ${formatCount(more)} more` : '';
  return table(columns, failed.slice(0, TOP).map(checkRow)) + rest;
}

function environmentOf(result: ResultDocument): string {
  const rows = table(['environment', ''], environmentRows(result), 2);
  return `<details><summary>Environment</summary>\n\n${rows}\n\n</details>`;
}

function resultMarkdown(result: ResultDocument, heading: string): string {
  const { experiment, title, claim, verdict } = result;
  const headline = headlineTable(result);
  const findings = result.measurement ?? result.prediction;
  const blocks = [
    `${heading} ${plain(experiment)}: ${plain(title)}`,
    `> ${plain(claim.text)}\n>\n> ${link(claim.source)}`,
    `The claim **${OUTCOMES[claim.outcome]}**. ${plain(claim.inShort)}`,
    `**${verdict.toUpperCase()}**: ${plain(verdictText(result))}`,
    headline && table(headline.columns, headline.rows),
    ...tablesOf(result).map(titled),
    findings?.notes.map((note) => `- ${plain(note)}`).join('\n'),
    failedChecks(result),
    environmentOf(result),
  ];
  return blocks.filter((block) => block !== undefined && block !== '').join('\n\n');
}

function differencesTable(what: string, numbers: readonly number[], differences: readonly Difference[]): string {
  const columns = [what, ...numbers.map((number) => `result ${String(number)}`), 'unit'];
  const rows = differences.slice(0, TOP).map(({ name, unit, values }) => [name, ...values, unit]);
  const more = differences.length - TOP;
  return table(columns, rows) + (more > 0 ? `\n\nand ${formatCount(more)} more` : '');
}

function comparisonMarkdown({ experiment, numbers, conditions, figures, sameFigures }: Comparison): string {
  const blocks = [
    `## ${plain(experiment)}: results ${numbers.join(', ')} compared`,
    conditions.length === 0
      ? 'Parameters and conditions are the same.'
      : differencesTable('parameter or condition', numbers, conditions),
    `Figures: ${formatCount(sameFigures)} the same, ${formatCount(figures.length)} different.`,
    ...(figures.length === 0 ? [] : [differencesTable('figure', numbers, figures)]),
  ];
  return blocks.join('\n\n');
}

function overview(results: readonly ResultDocument[]): string {
  const rows = results.map(({ experiment, environment, verdict, claim }, index) => {
    return [String(index + 1), experiment, `Linux ${environment.kernel}`, verdict, OUTCOMES[claim.outcome]];
  });
  return table(['result', 'experiment', 'kernel', 'verdict', 'the claim'], rows, 5);
}

/** @returns Text that ends in a newline. */
export function renderMarkdown(results: readonly ResultDocument[]): string {
  const blocks =
    results.length > 1
      ? [
          '# cowlab report',
          overview(results),
          ...compareAll(results).map(comparisonMarkdown),
          ...results.map((result, index) => resultMarkdown(result, `## ${String(index + 1)}.`)),
        ]
      : results.map((result) => resultMarkdown(result, '#'));
  return `${blocks.join('\n\n')}\n`;
}
