/** /proc/PID/status and /proc/PID/limits [fs/proc/array.c: proc_pid_status; fs/proc/base.c: proc_pid_limits]. */
import { PROC_ROOT, ProcFormatError, linesOf, readPidFile, type Pid } from './read.js';

/** Bits of the capability sets in status [include/uapi/linux/capability.h]. */
export const CAP_SYS_PTRACE = 19n;
export const CAP_SYS_ADMIN = 21n;
export const CAP_SYS_RESOURCE = 24n;

export interface Status {
  /** Comm, at most 15 bytes. */
  name: string;
  /** One letter: R running, S sleeping, T stopped, Z zombie ... */
  state: string;
  pid: number;
  ppid: number;
  /** Real, effective, saved and file-system user, as the reader's user namespace sees them. */
  uids: number[];
  threads: number;
  /** Effective capabilities; undefined where the kernel has none. */
  effectiveCapabilities: bigint | undefined;
  /** 0 none, 1 strict, 2 filter; undefined where the kernel has no seccomp. */
  seccomp: number | undefined;
  /** The pid in each PID namespace it is in, the outermost first; empty on kernels that do not tell. */
  namespacePids: number[];
  /** Every field whose unit is kB: VmRSS, VmPTE, HugetlbPages ... */
  fieldsKb: Record<string, number>;
  /** Every field as it stands, known to cowlab or not. */
  fields: Record<string, string>;
}

/**
 * Parses status; every field is kept.
 * @throws ProcFormatError for a line without a colon, or when a field that every process has is not there.
 */
export function parseStatus(text: string, file = 'status'): Status {
  const fields: Record<string, string> = {};
  const fieldsKb: Record<string, number> = {};
  linesOf(text).forEach((line, index) => {
    const colon = line.indexOf(':');
    if (colon <= 0) throw new ProcFormatError(file, index + 1, line, "'Name: value'");
    const key = line.slice(0, colon);
    const value = line.slice(colon + 1).trim();
    fields[key] = value;
    if (!value.endsWith(' kB')) return;
    const kb = Number(value.slice(0, -3));
    if (!Number.isSafeInteger(kb)) throw new ProcFormatError(file, index + 1, line, 'a number of kB');
    fieldsKb[key] = kb;
  });
  const numbers = (key: string): number[] => (fields[key] ?? '').split(/\s+/).filter(Boolean).map(Number);
  const one = (key: string): number => {
    const value = numbers(key)[0];
    if (value === undefined || !Number.isSafeInteger(value)) {
      throw new ProcFormatError(file, 1, fields[key] ?? '', `a line '${key}:' with a number`);
    }
    return value;
  };
  const capabilities = fields['CapEff'];
  return {
    name: fields['Name'] ?? '',
    state: (fields['State'] ?? '').slice(0, 1),
    pid: one('Pid'),
    ppid: one('PPid'),
    uids: numbers('Uid'),
    threads: one('Threads'),
    effectiveCapabilities: capabilities === undefined ? undefined : BigInt(`0x${capabilities}`),
    seccomp: numbers('Seccomp')[0],
    namespacePids: numbers('NSpid'),
    fieldsKb,
    fields,
  };
}

/** @throws SystemError ESRCH: there is no such process. */
export function readStatus(pid: Pid, procRoot: string = PROC_ROOT): Status {
  return parseStatus(readPidFile(pid, 'status', procRoot), `${procRoot}/${String(pid)}/status`);
}

/** Whether a capability is in the effective set; undefined when the kernel does not tell. It counts in its user namespace. */
export function hasCapability(status: Status, capability: bigint): boolean | undefined {
  if (status.effectiveCapabilities === undefined) return undefined;
  return ((status.effectiveCapabilities >> capability) & 1n) === 1n;
}

/** A limit of getrlimit(2); Infinity for 'unlimited'. */
export interface Limit {
  soft: number;
  hard: number;
  /** 'bytes', 'processes' ...; '' for priorities. */
  units: string;
}

/**
 * Parses /proc/PID/limits: a table of columns at fixed places, under names such as 'Max processes'.
 * @throws ProcFormatError for a line of another form.
 */
export function parseLimits(text: string, file = 'limits'): Record<string, Limit> {
  const [head = '', ...rows] = linesOf(text);
  const softAt = head.indexOf('Soft Limit');
  const hardAt = head.indexOf('Hard Limit');
  const unitsAt = head.indexOf('Units');
  if (softAt <= 0 || hardAt <= 0 || unitsAt <= 0) throw new ProcFormatError(file, 1, head, 'the heads of the table');
  const limits: Record<string, Limit> = {};
  const valueOf = (cell: string): number => (cell === 'unlimited' ? Infinity : cell === '' ? NaN : Number(cell));
  rows.forEach((row, index) => {
    const name = row.slice(0, softAt).trim();
    const soft = valueOf(row.slice(softAt, hardAt).trim());
    const hard = valueOf(row.slice(hardAt, unitsAt).trim());
    if (name === '' || Number.isNaN(soft) || Number.isNaN(hard)) {
      throw new ProcFormatError(file, index + 2, row, 'a name and two limits');
    }
    limits[name] = { soft, hard, units: row.slice(unitsAt).trim() };
  });
  return limits;
}

/** @throws SystemError ESRCH: there is no such process; EACCES: it belongs to another user. */
export function readLimits(pid: Pid, procRoot: string = PROC_ROOT): Record<string, Limit> {
  return parseLimits(readPidFile(pid, 'limits', procRoot), `${procRoot}/${String(pid)}/limits`);
}
