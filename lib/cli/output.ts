/** Where the command line writes, and the exit codes it may end with. */
import { FeatureUnavailableError, SystemError } from '../errors.js';
import { COLUMNS, wrap } from '../report/paragraph.js';

export const EXIT = { ok: 0, failed: 1, usage: 2, unavailable: 3, interrupted: 130 } as const;

/** Colour only in a terminal, and never when NO_COLOR is set (no-color.org). */
export function wantsColor(stream: NodeJS.WriteStream = process.stdout): boolean {
  return stream.isTTY && !process.env['NO_COLOR'];
}

export function print(text: string): void {
  process.stdout.write(text.endsWith('\n') ? text : `${text}\n`);
}

export function printJson(value: unknown): void {
  const text = JSON.stringify(value, (_key, part: unknown) => (typeof part === 'bigint' ? String(part) : part), 2);
  process.stdout.write(`${text}\n`);
}

let whenOutputGone = (): void => {
  process.exit(EXIT.ok);
};

/** What to do when nobody reads standard output any more. Without it the command ends at once. */
export function onOutputGone(act: () => void): void {
  whenOutputGone = act;
}

/** A reader that has seen enough (`cowlab list | head -1`) is no error. */
export function watchOutput(): void {
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error;
    whenOutputGone();
  });
}

/** A note for people, beside the output. Lines that are too long for a terminal are broken, others are left as they are. */
export function note(text: string): void {
  const lines = `cowlab: ${text}`.split('\n').map((line) => (line.length > COLUMNS ? wrap(line, '', '  ') : line));
  process.stderr.write(`${lines.join('\n')}\n`);
}

/** Bad input of the user's, which is no failure of ours. */
export class UsageError extends Error {}

/** @throws UsageError that names what was wrong. */
export function requirePid(name: string, text: string): number {
  const pid = Number(text);
  if (!Number.isInteger(pid) || pid < 1 || pid > 2 ** 31 - 1) {
    throw new UsageError(`${name} must be the number of a process, not ${text}`);
  }
  return pid;
}

/** A whole number as an option has it. @throws UsageError that names what was wrong. */
export function requireNumber(name: string, text: string, min: number, max: number): number {
  const number = Number(text);
  if (text === '' || !Number.isInteger(number) || number < min || number > max) {
    throw new UsageError(`${name} must be a whole number from ${min} to ${max}, not ${text || 'nothing'}`);
  }
  return number;
}

/** The exit code an error means. */
export function exitCodeOf(error: unknown): number {
  if (error instanceof FeatureUnavailableError) return EXIT.unavailable;
  if (error instanceof SystemError) return error.code === 'ESRCH' ? EXIT.usage : EXIT.unavailable;
  const misuse = error instanceof UsageError || error instanceof RangeError || error instanceof TypeError;
  return misuse ? EXIT.usage : EXIT.failed;
}
