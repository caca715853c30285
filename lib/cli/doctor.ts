/** `cowlab doctor`: what this host offers, and what would help. */
import { isUsable, type Finding, type FindingStatus } from '../proc/doctor.js';
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

/** @returns Exit code 3 when nothing can work here, else 0: a limit is no failure. */
export function runDoctor(findings: readonly Finding[], options: TextOptions = {}): CommandOutput {
  const usable = isUsable(findings);
  return { text: doctorReport(findings, options), json: { usable, findings }, exitCode: usable ? 0 : 3 };
}
