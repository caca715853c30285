/** `cowlab report`: saved results as one HTML page, as Markdown or as CSV. */
import type { ResultDocument } from '../schema/result.js';
import { STANDARD_OUTPUT, openExports, writeExports } from './exports.js';
import { UsageError } from './output.js';
import { loadResults } from './saved-results.js';

export interface ReportFlags {
  html?: string[];
  markdown?: string[];
  csv?: string[];
}

/** @throws UsageError when a file is no result, or cannot be written. */
export async function reportCommand(paths: readonly string[], flags: ReportFlags): Promise<void> {
  const nothingGiven = Object.keys(flags).length === 0;
  if (nothingGiven && process.stdout.isTTY) {
    throw new UsageError('a report in HTML is not for a terminal: give --html FILE, --markdown FILE or --csv FILE');
  }
  const results: ResultDocument[] = paths.flatMap(loadResults);
  const { html, markdown, csv } = nothingGiven ? { html: [STANDARD_OUTPUT] } : flags;
  await writeExports(results, openExports({ html, markdown, csv }));
}
