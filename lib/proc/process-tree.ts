/** The processes that descend from one, which may be anybody's: they come and go while one looks. */
import { FeatureUnavailableError, SystemError } from '../errors.js';
import { native } from '../native.js';
import { PROC_ROOT, listPids } from './read.js';
import { privateKb, readSmapsRollup } from './smaps.js';
import type { SmapsRollup } from './smaps.js';
import { parseStat, readStat } from './stat.js';
import type { Stat } from './stat.js';

export interface TreeProcess {
  pid: number;
  parent: number;
  /** Ticks after boot. With the pid it names a process for ever: pids are used again. */
  startTicks: number;
  comm: string;
}

/** A process that ended while it was looked at is none. */
export function ifThere<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    // ESRCH also for a zombie, which has no memory.
    if (error instanceof SystemError && ['ESRCH', 'ENOENT'].includes(error.code)) return undefined;
    throw error;
  }
}

/** What came of looking at a process that may end, or be another user's. */
export function tryProcess<T>(read: () => T): T | 'gone' | 'unreadable' {
  try {
    return read();
  } catch (error) {
    if (!(error instanceof SystemError)) throw error;
    if (['ESRCH', 'ENOENT'].includes(error.code)) return 'gone';
    if (['EACCES', 'EPERM'].includes(error.code)) return 'unreadable';
    throw error;
  }
}

/** The error of who wants to look at the memory of a process that has none. @param what Begins the sentence. */
export function noMemoryError(what: string): FeatureUnavailableError {
  return new FeatureUnavailableError(
    what,
    'it has no memory of its own',
    'It is a kernel thread or a zombie; give the pid of a live process.',
  );
}

/** Descendants of one process or several, and themselves, parents first. Pure. */
export function descendantsOf<T extends Pick<TreeProcess, 'pid' | 'parent'>>(
  roots: number | ReadonlySet<number>,
  processes: readonly T[],
): T[] {
  const children = new Map<number, T[]>();
  for (const process of processes) {
    const siblings = children.get(process.parent);
    if (siblings) siblings.push(process);
    else children.set(process.parent, [process]);
  }
  const found = new Set(processes.filter(({ pid }) => (typeof roots === 'number' ? pid === roots : roots.has(pid))));
  // The set grows while it is gone through.
  for (const process of found) for (const child of children.get(process.pid) ?? []) found.add(child);
  return [...found];
}

/** Whether a process has ended, and waits to be waited for: it has nothing any more. */
export function isZombie({ state }: Pick<Stat, 'state'>): boolean {
  return ['Z', 'X'].includes(state);
}

export function treeProcess({ pid, ppid, starttimeTicks, comm }: Stat): TreeProcess {
  return { pid, parent: ppid, startTicks: starttimeTicks, comm };
}

/** A copy of /proc may be looked at where there is no addon, which is faster. */
function readForeignStats(procRoot: string): Stat[] {
  return listPids(procRoot).flatMap((pid) => {
    const stat = tryProcess(() => readStat(pid, procRoot));
    return typeof stat === 'string' ? [] : stat;
  });
}

function readOwnStats(): Stat[] {
  return native()
    .readStats(PROC_ROOT, new Int32Array())
    .map((text) => parseStat(text));
}

/** All processes but zombies, and those that are hidden from this user [proc(5): hidepid]. */
export function readProcesses(procRoot: string = PROC_ROOT): TreeProcess[] {
  const stats = procRoot === PROC_ROOT ? readOwnStats() : readForeignStats(procRoot);
  return stats.filter((stat) => !isZombie(stat)).map(treeProcess);
}

/** A process and all that descend from it, parents first; empty when it has ended. */
export function readProcessTree(root: number, procRoot: string = PROC_ROOT): TreeProcess[] {
  return descendantsOf(root, readProcesses(procRoot));
}

interface MemoryFigures {
  rssKb: number;
  pssKb: number;
  /** Private_Clean and Private_Dirty: what would be free if it ended now (USS). */
  ussKb: number;
}

/** Memory of one process, in kB, as smaps_rollup has it. */
export interface ProcessMemory extends TreeProcess, MemoryFigures {}

/** The figures are sums. Only that of Pss counts each page once. */
export interface TreeMemory extends MemoryFigures {
  processes: ProcessMemory[];
}

export function memoryFigures(rollup: SmapsRollup): MemoryFigures {
  return { rssKb: rollup.fieldsKb['Rss'] ?? 0, pssKb: rollup.fieldsKb['Pss'] ?? 0, ussKb: privateKb(rollup) };
}

export function sumMemory(all: readonly MemoryFigures[]): MemoryFigures {
  const total = (key: keyof MemoryFigures): number => all.reduce((sum, one) => sum + one[key], 0);
  return { rssKb: total('rssKb'), pssKb: total('pssKb'), ussKb: total('ussKb') };
}

/**
 * What a tree uses. Processes that end meanwhile are left out.
 * @throws SystemError EACCES for a process of another user.
 */
export function readTreeMemory(root: number, procRoot: string = PROC_ROOT): TreeMemory {
  const processes = readProcessTree(root, procRoot).flatMap((process): ProcessMemory[] => {
    const rollup = ifThere(() => readSmapsRollup(process.pid, procRoot));
    return rollup ? [{ ...process, ...memoryFigures(rollup) }] : [];
  });
  return { processes, ...sumMemory(processes) };
}
