/** The processes that descend from one, which may be anybody's: they come and go while one looks. */
import { readdirSync } from 'node:fs';
import { SystemError } from '../errors.js';
import { PROC_ROOT } from './read.js';
import { readSmapsRollup } from './smaps.js';
import { readStat } from './stat.js';
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

/** Descendants of one process or several, and themselves, parents first. Pure. */
export function descendantsOf(roots: number | ReadonlySet<number>, processes: readonly TreeProcess[]): TreeProcess[] {
  const children = new Map<number, TreeProcess[]>();
  for (const process of processes) {
    const siblings = children.get(process.parent);
    if (siblings) siblings.push(process);
    else children.set(process.parent, [process]);
  }
  const found = processes.filter(({ pid }) => (typeof roots === 'number' ? pid === roots : roots.has(pid)));
  // The list grows while it is gone through.
  for (const process of found)
    found.push(...(children.get(process.pid) ?? []).filter((child) => !found.includes(child)));
  return found;
}

/** All processes but zombies, which have nothing any more. */
export function readProcesses(procRoot: string = PROC_ROOT): TreeProcess[] {
  const pids = readdirSync(procRoot).filter((name) => /^[1-9][0-9]*$/.test(name));
  const stats = pids.flatMap((pid): Stat[] => {
    const stat = ifThere(() => readStat(Number(pid), procRoot));
    return stat ? [stat] : [];
  });
  const living = stats.filter(({ state }) => !['Z', 'X'].includes(state));
  return living.map(({ pid, ppid, starttimeTicks, comm }) => ({ pid, parent: ppid, startTicks: starttimeTicks, comm }));
}

/** A process and all that descend from it, parents first; empty when it has ended. */
export function readProcessTree(root: number, procRoot: string = PROC_ROOT): TreeProcess[] {
  return descendantsOf(root, readProcesses(procRoot));
}

/** Memory of one process, in kB, as smaps_rollup has it. */
export interface ProcessMemory extends TreeProcess {
  rssKb: number;
  pssKb: number;
  /** Private_Clean and Private_Dirty: what would be free if it ended now (USS). */
  ussKb: number;
}

export interface TreeMemory {
  processes: ProcessMemory[];
  /** Sums. Only that of Pss counts each page once. */
  rssKb: number;
  pssKb: number;
  ussKb: number;
}

/**
 * What a tree uses. Processes that end meanwhile are left out.
 * @throws SystemError EACCES for a process of another user.
 */
export function readTreeMemory(root: number, procRoot: string = PROC_ROOT): TreeMemory {
  const processes = readProcessTree(root, procRoot).flatMap((process): ProcessMemory[] => {
    const rollup = ifThere(() => readSmapsRollup(process.pid, procRoot));
    if (!rollup) return [];
    const { fieldsKb } = rollup;
    const ussKb = (fieldsKb['Private_Clean'] ?? 0) + (fieldsKb['Private_Dirty'] ?? 0);
    return [{ ...process, rssKb: fieldsKb['Rss'] ?? 0, pssKb: fieldsKb['Pss'] ?? 0, ussKb }];
  });
  const total = (key: 'rssKb' | 'pssKb' | 'ussKb'): number => processes.reduce((sum, process) => sum + process[key], 0);
  return { processes, rssKb: total('rssKb'), pssKb: total('pssKb'), ussKb: total('ussKb') };
}
