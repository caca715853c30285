/**
 * Opening files of /proc and /sys: the errors they give, and the lines nobody could parse.
 * Every reader of this directory takes the root of /proc (and of /sys) as its last parameters, so that a saved
 * tree, or the /proc of a container, can be read in the same way.
 */
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { getSystemErrorMap } from 'node:util';
import { SystemError, notLinux } from '../errors.js';

export const PROC_ROOT = '/proc';
export const SYS_ROOT = '/sys';

/** A process: its pid, or 'self' for this one. */
export type Pid = number | 'self';

/** A line of a kernel file has a form that cowlab does not know: never skipped in silence. */
export class ProcFormatError extends Error {
  override readonly name = 'ProcFormatError';
  readonly code = 'COWLAB_PROC_FORMAT';
  readonly file: string;
  /** Counted from 1. */
  readonly lineNumber: number;
  readonly line: string;

  constructor(file: string, lineNumber: number, line: string, expected: string) {
    super(`${file}:${String(lineNumber)}: cannot parse ${JSON.stringify(line)}: expected ${expected}`);
    this.file = file;
    this.lineNumber = lineNumber;
    this.line = line;
  }
}

/**
 * The path of a file of one process.
 * @throws TypeError or RangeError when `pid` is not 'self' or a positive integer.
 */
export function pidPath(pid: Pid, name: string, procRoot: string = PROC_ROOT): string {
  if (pid !== 'self') {
    if (typeof pid !== 'number') throw new TypeError(`pid must be a number or 'self', not ${typeof pid}`);
    if (!Number.isSafeInteger(pid) || pid <= 0)
      throw new RangeError(`pid must be a positive integer, not ${String(pid)}`);
  }
  return join(procRoot, String(pid), name);
}

/** The errno code ('ENOENT') of something that was thrown; undefined when it has none. */
export function errnoCode(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined;
}

/** The negative errno of a code, as in Node core; 0 for a code this platform has not got. */
function errnoOf(code: string): number {
  for (const [errno, [name]] of getSystemErrorMap()) if (name === code) return errno;
  return 0;
}

/** A file of a kernel that is not there at all, and not of a saved tree. */
function isForeign(path: string): boolean {
  return process.platform !== 'linux' && [PROC_ROOT, SYS_ROOT].some((root) => `${path}/`.startsWith(`${root}/`));
}

/** Turns an error of node:fs on a file of /proc/PID into a SystemError with a sentence that says what to do. */
export function pidError(error: unknown, pid: Pid, path: string): unknown {
  if (isForeign(path)) return notLinux();
  const code = errnoCode(error);
  if (code === undefined) return error;
  const syscall = error instanceof Error && 'syscall' in error ? String(error.syscall) : 'open';
  if (code === 'ENOENT' || code === 'ESRCH') {
    return new SystemError({
      code: 'ESRCH',
      errno: errnoOf('ESRCH'),
      syscall,
      message: `there is no process ${String(pid)}, or it has ended (${path})`,
    });
  }
  if (code === 'EACCES' || code === 'EPERM') {
    return new SystemError({
      code,
      errno: errnoOf(code),
      syscall,
      message: `${path} may be read by the same user (if the process is dumpable) or with CAP_SYS_PTRACE`,
    });
  }
  return new SystemError({ code, errno: errnoOf(code), syscall, message: path });
}

/**
 * Reads a text file of one process, such as 'smaps'.
 * @throws SystemError ESRCH when there is no such process; EACCES or EPERM when it may not be read.
 */
export function readPidFile(pid: Pid, name: string, procRoot: string = PROC_ROOT): string {
  const path = pidPath(pid, name, procRoot);
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw pidError(error, pid, path);
  }
}

/** Turns an error of node:fs on a file that the host as a whole has into a SystemError. */
export function hostError(error: unknown, path: string): unknown {
  if (isForeign(path)) return notLinux();
  const code = errnoCode(error);
  return code === undefined ? error : new SystemError({ code, errno: errnoOf(code), syscall: 'open', message: path });
}

/**
 * Reads a text file that the host as a whole has, such as /proc/meminfo.
 * @throws SystemError with the errno of open(2) or read(2).
 */
export function readHostFile(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw hostError(error, path);
  }
}

/** The pids that /proc lists, ascending. @throws SystemError as {@link readHostFile}. */
export function listPids(procRoot: string = PROC_ROOT): number[] {
  try {
    return readdirSync(procRoot)
      .map(Number)
      .filter((pid) => Number.isSafeInteger(pid) && pid > 0)
      .sort((a, b) => a - b);
  } catch (error) {
    throw hostError(error, procRoot);
  }
}

/** The content of a file, trimmed, or why it cannot be read: what is missing is said and never taken for zero. */
export type Reading = { text: string } | { code: string };

/** Reads a file that this kernel, or this user, may not have. */
export function tryRead(path: string): Reading {
  try {
    return { text: readFileSync(path, 'utf8').trim() };
  } catch (error) {
    const code = errnoCode(error);
    if (code === undefined) throw error;
    return { code };
  }
}

/** As {@link tryRead}, undefined when it cannot be read. */
export function readIfThere(path: string): string | undefined {
  const reading = tryRead(path);
  return 'text' in reading ? reading.text : undefined;
}

/**
 * The number in a file that holds nothing else; undefined when the file cannot be read.
 * 'max', which cgroup v2 writes for no limit, is Infinity.
 * @throws ProcFormatError when it holds anything else.
 */
export function readNumberIfThere(path: string): number | undefined {
  const text = readIfThere(path);
  if (text === undefined) return undefined;
  if (text === 'max') return Infinity;
  const value = Number(text);
  if (text === '' || !Number.isFinite(value)) throw new ProcFormatError(path, 1, text, 'one number');
  return value;
}

/** The lines of a text, without a last empty one. */
export function linesOf(text: string): string[] {
  const lines = text.split('\n');
  if (lines.at(-1) === '') lines.pop();
  return lines;
}
