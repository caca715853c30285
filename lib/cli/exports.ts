/** Files that a command writes its results to: opened before anything is measured, written when all is done. */
import { closeSync, openSync, writeFileSync } from 'node:fs';
import type { ResultDocument } from '../schema/result.js';
import { UsageError, print } from './output.js';

export interface ExportFlags {
  exportJson?: string[];
  exportHtml?: string[];
  exportMarkdown?: string[];
  exportCsv?: string[];
  /** The same as `-` among `exportJson`. */
  json?: boolean;
}

type Format = 'json' | 'html' | 'markdown' | 'csv';

/** @returns The text of a file; what only this format needs is loaded here. */
async function render(format: Format, results: readonly ResultDocument[]): Promise<string> {
  switch (format) {
    case 'json':
      return `${JSON.stringify(results.length === 1 ? results[0] : results, undefined, 2)}\n`;
    case 'html':
      return (await import('../report/html/document.js')).renderHtml(results);
    case 'markdown':
      return (await import('../report/markdown.js')).renderMarkdown(results);
    case 'csv':
      return (await import('../report/csv.js')).renderCsv(results);
  }
}

export interface OpenExport {
  format: Format;
  /** A descriptor, or the standard output, which is nobody's to close. */
  file: number | 'standard output';
}

/** The name by which standard output is meant. */
export const STANDARD_OUTPUT = '-';

/** What to do about a file that open(2) refuses. */
function remedyFor(code: string | undefined): string {
  if (code === 'EISDIR') return 'name a file in it';
  if (code === 'ENOENT') return 'make its directory first, or name another';
  return 'name a file that you may write';
}

function openForWriting(path: string): OpenExport['file'] {
  if (path === STANDARD_OUTPUT) return 'standard output';
  try {
    return openSync(path, 'w');
  } catch (error) {
    const { message, code } = error as NodeJS.ErrnoException;
    throw new UsageError(`${message}: ${remedyFor(code)}`);
  }
}

/**
 * A bad path must not cost a run.
 * @throws UsageError for a path that cannot be written, and for a second that is standard output.
 */
export function openExports(paths: Partial<Record<Format, readonly string[] | undefined>>): OpenExport[] {
  const wanted = (['json', 'html', 'markdown', 'csv'] as const).flatMap((format) =>
    (paths[format] ?? []).map((path) => ({ format, path })),
  );
  const printed = wanted.filter(({ path }) => path === STANDARD_OUTPUT);
  if (printed.length > 1) {
    throw new UsageError('standard output takes one thing, --json or one file named -: name files for the others');
  }
  return wanted.map(({ format, path }) => ({ format, file: openForWriting(path) }));
}

/** What the flags of a command name. @throws UsageError as openExports(). */
export function openExportFlags({
  json,
  exportJson = [],
  exportHtml,
  exportMarkdown,
  exportCsv,
}: ExportFlags): OpenExport[] {
  const documents = json ? [...exportJson, STANDARD_OUTPUT] : exportJson;
  return openExports({ json: documents, html: exportHtml, markdown: exportMarkdown, csv: exportCsv });
}

/** Writes and closes them. @returns Whether standard output was one of them. */
export async function writeExports(results: readonly ResultDocument[], files: readonly OpenExport[]): Promise<boolean> {
  for (const { format, file } of files) {
    if (file === 'standard output') continue;
    writeFileSync(file, await render(format, results));
    closeSync(file);
  }
  // The last, since its reader may have seen enough, which ends the command.
  const printed = files.find(({ file }) => file === 'standard output');
  if (printed) print(await render(printed.format, results));
  return printed !== undefined;
}
