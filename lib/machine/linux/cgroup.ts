/** The processes of a machine that are in a cgroup with limits: what their steps start from, and who is killed in them. */
import type { ForkedProcess } from '../../api/forked-process.js';
import type { LimitedCgroup } from '../../api/limited-cgroup.js';
import { readStat, readStatm } from '../../proc/stat.js';
import { readStatus } from '../../proc/status.js';
import type { MemoryReading, Outcome, Step, StepOf } from '../../schema/step.js';

/** How things stood before a step of a process in the cgroup. */
export interface Watch {
  reading: MemoryReading;
  /** OOM kills until then. */
  kills: number;
  /** The process whose step it is, and its minor faults until then. */
  name: string;
  minorFaults: number;
  /** Those that were alive. */
  living: [name: string, process: ForkedProcess][];
}

export class LimitedTree {
  readonly #cgroup: LimitedCgroup;
  readonly #pageSize: number;
  readonly #members = new Map<string, ForkedProcess>();
  #memoryIsLimited = false;
  #kills = 0;

  constructor(cgroup: LimitedCgroup, pageSize: number) {
    this.#cgroup = cgroup;
    this.#pageSize = pageSize;
  }

  /** OOM kills in it so far. */
  get kills(): number {
    return this.#kills;
  }

  limit({ memoryMaxBytes, pidsMax }: StepOf<'cgroup'>): void {
    this.#cgroup.limit({ memoryMaxBytes, pidsMax });
    this.#memoryIsLimited = memoryMaxBytes !== undefined;
  }

  join(name: string, process: ForkedProcess): void {
    this.#cgroup.join(process.pid);
    this.#members.set(name, process);
  }

  /** A child is in the cgroup of its parent. */
  forked(parent: string, child: string, process: ForkedProcess): void {
    if (this.#members.has(parent)) this.#members.set(child, process);
  }

  /** Undefined for a step that cannot bring the OOM killer here. */
  watch(step: Step): Watch | undefined {
    if (!this.#memoryIsLimited || !('process' in step) || step.op === 'exit' || step.op === 'kill') return undefined;
    const process = this.#members.get(step.process);
    if (!process || process.status) return undefined;
    const living = [...this.#members].filter(([, member]) => !member.status);
    const minorFaults = readStat(process.pid).minflt;
    const processes = living.map(([name, { pid }]) => ({ process: name, ...this.#size(pid) }));
    const usagePages = this.#cgroup.usedBytes() / this.#pageSize;
    const kills = this.#cgroup.oomKills();
    const victimsFirst = preferOthers(living, step.process, true);
    return { reading: { usagePages, processes, victimsFirst }, kills, name: step.process, minorFaults, living };
  }

  /** The outcome of the step, with who was killed in it: each of them has ended when this resolves. */
  async settle(watch: Watch, outcome: Outcome): Promise<Outcome> {
    const kills = this.#cgroup.oomKills() - watch.kills;
    this.#kills += kills;
    const dead = await awaitKilled(watch.living, kills);
    preferOthers(watch.living, watch.name, false);
    const killed = dead.filter((name) => name !== watch.name);
    const settled: Outcome = { ...outcome, memory: watch.reading };
    if (killed.length > 0) settled.killed = killed;
    const faults = outcome.ended?.minorFaults;
    if (kills > 0 && faults !== undefined) settled.minorFaults = faults - watch.minorFaults;
    return settled;
  }

  /** What oom_badness() goes by [mm/oom_kill.c], swap left out, which the cgroup has not. */
  #size(pid: number): { residentPages: number; pageTablePages: number } {
    const tablesKb = readStatus(pid).fieldsKb['VmPTE'] ?? 0;
    return { residentPages: readStatm(pid).residentPages, pageTablePages: (tablesKb * 1024) / this.#pageSize };
  }
}

/**
 * One that is killed must give its memory back before the one that needs it asks again. They take turns on one CPU, and
 * when the end of the first is interrupted between being done in the eyes of the OOM killer and giving its pages back
 * [exit_mmap: MMF_OOM_SKIP is set before tlb_finish_mmu], a second one is killed for nothing. So the others, which are
 * all parked, go before it once they wake.
 * @returns Whether that could be had.
 */
function preferOthers(living: Watch['living'], name: string, preferred: boolean): boolean {
  const others = living.filter(([other, { status }]) => other !== name && !status);
  return others.map(([, process]) => process.prefer(preferred)).every((done) => done);
}

/** The names of those that were killed, once there are as many of them as the kernel has counted. */
async function awaitKilled(living: Watch['living'], kills: number): Promise<string[]> {
  const killed = (): Watch['living'] => living.filter(([, { status }]) => status?.signal === 'SIGKILL');
  // Idle sockets do not keep Node alive.
  const alive = setInterval(() => undefined, 2 ** 30);
  try {
    while (killed().length < kills) {
      await Promise.race(living.filter(([, { status }]) => !status).map(([, { ended }]) => ended));
    }
  } finally {
    clearInterval(alive);
  }
  return killed().map(([name]) => name);
}
