/** Files that a command writes its results to: opened before anything is measured, written when all is done. */
import { closeSync, openSync, writeFileSync } from 'node:fs';
import type { ResultDocument } from '../schema/result.js';
import { UsageError } from './output.js';

export interface ExportFlags {
  exportJson?: string[];
  exportHtml?: string[];
  exportMarkdown?: string[];
  exportCsv?: string[];
}

export type Format = 'json' | 'html' | 'markdown' | 'csv';

/** @returns The text of a file; what only this format needs is loaded here. */
export async function render(format: Format, results: readonly ResultDocument[]): Promise<string> {
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
  file: number;
}

function openForWriting(path: string): number {
  try {
    return openSync(path, 'w');
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error));
  }
}

/** A bad path must not cost a run. @throws UsageError for a path that cannot be written. */
export function openExports(paths: Partial<Record<Format, readonly string[] | undefined>>): OpenExport[] {
  return (['json', 'html', 'markdown', 'csv'] as const).flatMap((format) =>
    (paths[format] ?? []).map((path) => ({ format, file: openForWriting(path) })),
  );
}

/** The files that the flags of a command name. @throws UsageError for a path that cannot be written. */
export function openExportFlags({ exportJson, exportHtml, exportMarkdown, exportCsv }: ExportFlags): OpenExport[] {
  return openExports({ json: exportJson, html: exportHtml, markdown: exportMarkdown, csv: exportCsv });
}

/** Writes and closes them. */
export async function writeExports(results: readonly ResultDocument[], files: readonly OpenExport[]): Promise<void> {
  for (const { format, file } of files) {
    writeFileSync(file, await render(format, results));
    closeSync(file);
  }
}
