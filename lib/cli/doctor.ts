/** `cowlab doctor`: what this host offers, and what would help. */
import { findLeftBehind, restoreLeftBehind } from '../api/system-changes.js';
import { isUsable, type Finding, type FindingStatus } from '../proc/doctor.js';
import { EXIT } from './output.js';
import { COLUMNS, paint, wrap, type CommandOutput, type Style, type TextOptions } from '../report/paragraph.js';

const STYLES: Record<FindingStatus, Style> = { ok: 'green', limited: 'yellow', missing: 'red', unknown: 'magenta' };

/** Width of the columns of status and name. */
const INDENT = 25;

/** The findings as text of 80 columns; each names what it is needed for unless all is well. */
export function doctorReport(findings: readonly Finding[], options: TextOptions = {}): string {
  const lines: string[] = [];
  const indent = ' '.repeat(INDENT);
  for (const { name, status, found, neededFor, remedy } of findings) {
    const head = `${status.padEnd(9)}${name.padEnd(INDENT - 9)}`;
    // Wrapped without colour codes, which have no width, and coloured afterwards.
    const text = wrap(found, head, indent, COLUMNS);
    lines.push(paint(STYLES[status], text.slice(0, 9), options) + text.slice(9));
    if (status === 'ok') continue;
    lines.push(wrap(`needed for: ${neededFor}`, indent, `${indent}  `));
    if (remedy !== undefined) lines.push(wrap(`what helps: ${remedy}`, indent, `${indent}  `));
  }
  const count = (status: FindingStatus): number => findings.filter((finding) => finding.status === status).length;
  const counts = (['ok', 'limited', 'missing', 'unknown'] as const)
    .filter((status) => count(status) > 0)
    .map((status) => `${count(status)} ${status}`);
  const verdict = isUsable(findings) ? 'cowlab works on this host' : 'cowlab cannot work on this host';
  lines.push('', `${verdict}: ${counts.join(', ')}.`);
  return lines.join('\n');
}

/** Whether an earlier run has left settings of the system changed. */
export function leftBehindFinding(): Finding {
  const name = 'left-behind';
  const neededFor = 'experiments that change settings of the system (--allow-system-changes)';
  try {
    const left = findLeftBehind();
    if (left.state === 'nothing') return { name, status: 'ok', neededFor, found: 'no run has left a setting changed' };
    if (left.state === 'in use') return { name, status: 'limited', neededFor, found: left.holder };
    const { pid, purpose, startedAt } = left.journal;
    return {
      name,
      status: 'limited',
      neededFor,
      found: `process ${String(pid)} (${purpose}), of ${startedAt}, was killed with its restorer: settings are still changed`,
      remedy: '`cowlab doctor --restore` puts them back',
    };
  } catch (error) {
    return { name, status: 'unknown', neededFor, found: error instanceof Error ? error.message : String(error) };
  }
}

/** `cowlab doctor --restore`. @returns Exit code 1 when something could not be put back. */
export function runRestore(): CommandOutput {
  const restored = restoreLeftBehind();
  if (!restored) return { text: 'Nothing to put back.', json: { restored: [] }, exitCode: EXIT.ok };
  const lines = restored.map(({ step, result, detail }) => {
    const what = step.action === 'write' ? `${step.path} = ${step.value}` : `${step.path} removed`;
    return wrap(`${what} (${detail})`, `${result.padEnd(11)} `, ' '.repeat(12));
  });
  const failed = restored.some(({ result }) => result === 'failed');
  if (failed) lines.push('', 'Not everything could be put back: the journal stays. Try again as root.');
  return { text: lines.join('\n'), json: { restored }, exitCode: failed ? EXIT.failed : EXIT.ok };
}

/** @returns Exit code 3 when nothing can work here, else 0: a limit is no failure. */
export function runDoctor(findings: readonly Finding[], options: TextOptions = {}): CommandOutput {
  const usable = isUsable(findings);
  return { text: doctorReport(findings, options), json: { usable, findings }, exitCode: usable ? 0 : 3 };
}
