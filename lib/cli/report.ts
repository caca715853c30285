/** `cowlab report`: saved results as one HTML page, as Markdown or as CSV. */
import type { ResultDocument } from '../schema/result.js';
import { openExports, render, writeExports } from './exports.js';
import { UsageError, print } from './output.js';
import { loadResults } from './saved-results.js';

export interface ReportFlags {
  html?: string[];
  markdown?: string[];
  csv?: string[];
}

/** @throws UsageError when a file is no result, or cannot be written. */
export async function reportCommand(paths: readonly string[], flags: ReportFlags): Promise<void> {
  const toStandardOutput = Object.keys(flags).length === 0;
  if (toStandardOutput && process.stdout.isTTY) {
    throw new UsageError('a report in HTML is not for a terminal: give --html FILE, --markdown FILE or --csv FILE');
  }
  const results: ResultDocument[] = paths.flatMap(loadResults);
  const { html, markdown, csv } = flags;
  const files = openExports({ html, markdown, csv });
  await writeExports(results, files);
  if (toStandardOutput) print(await render('html', results));
}
