/** /proc/PID/stat and statm [fs/proc/array.c: do_task_stat; proc_pid_stat(5)]. */
import { PROC_ROOT, ProcFormatError, readHostFile, readPidFile, type Pid } from './read.js';

export interface Stat {
  pid: number;
  /** May contain spaces, parentheses and newlines. */
  comm: string;
  /** One letter: R running, S sleeping, T stopped, Z zombie ... */
  state: string;
  ppid: number;
  pgrp: number;
  session: number;
  /** Minor faults of the process, all threads. */
  minflt: number;
  /** Minor faults of children that were waited for. */
  cminflt: number;
  majflt: number;
  cmajflt: number;
  threads: number;
  /** When it started, in clock ticks (sysconf(_SC_CLK_TCK), 100 a second) since boot: with the pid, its identity. */
  starttimeTicks: number;
  vsizeBytes: number;
  /** Approximate: the kernel does not fold its per-CPU counters for it. */
  rssPages: number;
  /** SCHED_ constant of sched(7): 0 OTHER, 1 FIFO, 2 RR, 3 BATCH, 5 IDLE, 6 DEADLINE; undefined before 2.5.19. */
  policy: number | undefined;
  /** Every field as it stands, numbered as in proc_pid_stat(5): fields[1] is the pid; [0] is empty. */
  fields: string[];
}

/**
 * Parses the one line of stat. The name ends at the *last* closing parenthesis, since it may contain some itself.
 * @throws ProcFormatError when it has another form.
 */
export function parseStat(text: string, file = 'stat'): Stat {
  const open = text.indexOf('(');
  const close = text.lastIndexOf(')');
  const expected = 'pid (comm) state ppid ... with at least 24 fields';
  if (open <= 0 || close < open) throw new ProcFormatError(file, 1, text, expected);
  const comm = text.slice(open + 1, close);
  const fields = [
    '',
    text.slice(0, open).trim(),
    comm,
    ...text
      .slice(close + 1)
      .trim()
      .split(' '),
  ];
  if (fields.length < 25) throw new ProcFormatError(file, 1, text, expected);
  const number = (index: number): number => {
    const value = Number(fields[index]);
    if (!Number.isFinite(value)) throw new ProcFormatError(file, 1, text, `a number as field ${String(index)}`);
    return value;
  };
  return {
    pid: number(1),
    comm,
    state: fields[3] ?? '',
    ppid: number(4),
    pgrp: number(5),
    session: number(6),
    minflt: number(10),
    cminflt: number(11),
    majflt: number(12),
    cmajflt: number(13),
    threads: number(20),
    starttimeTicks: number(22),
    vsizeBytes: number(23),
    rssPages: number(24),
    policy: fields[41] === undefined ? undefined : number(41),
    fields,
  };
}

/** Who a process is and whose child, by the beginning of its stat: most of those on a host are nobody's concern. */
export interface StatHead {
  pid: number;
  parent: number;
  state: string;
  /** The whole line. */
  text: string;
}

/** @throws ProcFormatError when it does not begin as stat does. */
export function parseStatHead(text: string, file = 'stat'): StatHead {
  const close = text.lastIndexOf(')');
  const [, state, parent] = /^ (\S) ([0-9]+) /.exec(text.slice(close + 1, close + 24)) ?? [];
  const pid = Number(text.slice(0, text.indexOf('(')));
  if (state === undefined || !(pid > 0)) throw new ProcFormatError(file, 1, text, 'pid (comm) state ppid');
  return { pid, parent: Number(parent), state, text };
}

/** @throws ProcFormatError unless /proc/uptime begins with seconds to two places. @returns Now, as `starttimeTicks` has it. */
export function readUptimeTicks(procRoot: string = PROC_ROOT): number {
  const text = readHostFile(`${procRoot}/uptime`);
  const [, seconds, hundredths] = /^([0-9]+)\.([0-9]{2}) /.exec(text) ?? [];
  if (seconds === undefined) throw new ProcFormatError(`${procRoot}/uptime`, 1, text, 'seconds to two places');
  return Number(seconds) * 100 + Number(hundredths);
}

/** @throws SystemError ESRCH: there is no such process. */
export function readStat(pid: Pid, procRoot: string = PROC_ROOT): Stat {
  return parseStat(readPidFile(pid, 'stat', procRoot), `${procRoot}/${String(pid)}/stat`);
}

/** statm, in pages. */
export interface Statm {
  /** total_vm: all VMAs, which mode 2 uses for its reserve. */
  sizePages: number;
  residentPages: number;
  /** Resident pages of files and shared memory. */
  sharedPages: number;
  textPages: number;
  dataPages: number;
}

/** @throws ProcFormatError unless there are seven numbers. */
export function parseStatm(text: string, file = 'statm'): Statm {
  const words = text.trim().split(' ');
  const numbers = words.map(Number);
  const [sizePages, residentPages, sharedPages, textPages, , dataPages] = numbers;
  if (
    words.length !== 7 ||
    words.includes('') ||
    numbers.some((value) => !Number.isSafeInteger(value)) ||
    sizePages === undefined ||
    residentPages === undefined ||
    sharedPages === undefined ||
    textPages === undefined ||
    dataPages === undefined
  ) {
    throw new ProcFormatError(file, 1, text, 'seven numbers');
  }
  return { sizePages, residentPages, sharedPages, textPages, dataPages };
}

/** @throws SystemError ESRCH: there is no such process. */
export function readStatm(pid: Pid, procRoot: string = PROC_ROOT): Statm {
  return parseStatm(readPidFile(pid, 'statm', procRoot), `${procRoot}/${String(pid)}/statm`);
}
