/** Text for a terminal 80 columns wide: paragraphs, headings, tables. */
import { styleText } from 'node:util';
import { Table } from 'console-table-printer';

export const COLUMNS = 80;

/** How a command answers: the text for people, the JSON for programs, and the exit code (0, 1, 2 or 3). */
export interface CommandOutput {
  text: string;
  json: unknown;
  exitCode: number;
}

export interface TextOptions {
  /** Colour only when the caller says so, who knows the terminal and NO_COLOR. Default false. */
  color?: boolean;
}

export type Style = Extract<Parameters<typeof styleText>[0], string>;

/** Colours a text, or leaves it. */
export function paint(style: Style, text: string, { color = false }: TextOptions): string {
  return color ? styleText(style, text, { validateStream: false }) : text;
}

/**
 * Breaks a paragraph at spaces. A word longer than the line stands alone and is not broken: it is a path or a URL.
 * @param first Put before the first line; @param rest put before the others.
 */
export function wrap(text: string, first = '', rest = first, columns = COLUMNS): string {
  const lines: string[] = [];
  let line = first;
  let empty = true;
  for (const word of text.split(/\s+/).filter(Boolean)) {
    if (!empty && line.length + 1 + word.length > columns) {
      lines.push(line);
      line = rest;
      empty = true;
    }
    line += empty ? word : ` ${word}`;
    empty = false;
  }
  if (!empty) lines.push(line);
  return lines.join('\n');
}

export interface Column {
  name: string;
  title: string;
  alignment?: 'left' | 'right';
  /** Longer cells are broken at spaces. */
  maxLen?: number;
}

/** A table with lines, without colour codes, so that it is the same in a pipe. */
export function table(columns: readonly Column[], rows: readonly Record<string, string | number>[]): string {
  const printed = new Table({
    columns: columns.map(({ alignment = 'left', ...column }) => ({ ...column, alignment })),
    shouldDisableColors: true,
  });
  printed.addRows(rows.map((row) => ({ ...row })));
  return printed.render();
}

/** A name from elsewhere without the control characters that a terminal would obey. */
export function printable(text: string): string {
  return text.replace(/\p{Cc}/gu, '?');
}

/** Keeps the end of a long text, where a path says most. */
export function shorten(text: string, columns: number): string {
  return text.length <= columns ? text : `…${text.slice(text.length - columns + 1)}`;
}
