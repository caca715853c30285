/** A Machine on the kernel, watched: what disturbed it is known at the end. */
import { LimitedCgroup, planCgroup, requireSomePlace } from '../../api/limited-cgroup.js';
import { SystemChanges } from '../../api/system-changes.js';
import { disturbances } from '../../proc/disturbance.js';
import { readActivity } from '../../proc/vmstat.js';
import type { Machine, SystemChange } from '../machine.js';
import { ProgramMachine } from '../program.js';
import { LinuxBackend } from './backend.js';

export interface WatchedMachine extends Machine {
  /** What has disturbed exact figures since the machine was opened, a phrase each. */
  disturbances(): string[];
  /** The pid of a process of the machine, for readers outside it. */
  pidOf(process: { name: string }): number;
}

class LinuxMachine extends ProgramMachine implements WatchedMachine {
  readonly #before = readActivity();
  readonly #linux: LinuxBackend;

  constructor(backend: LinuxBackend) {
    super(backend);
    this.#linux = backend;
  }

  disturbances(): string[] {
    const { oomKills, majorFaults, hasHugePages, hasMergeable } = this.#linux;
    const own = { meant: { oom_kill: oomKills }, majorFaults, hasHugePages, hasMergeable };
    return disturbances(this.#before, readActivity(), own);
  }

  pidOf(process: { name: string }): number {
    return this.#linux.pidOf(process.name);
  }
}

export interface OpenOptions {
  /**
   * What the program may change of the system, for which one must be root (or, for 'cgroup', have a cgroup delegated).
   * Default: nothing.
   */
  allow?: readonly SystemChange[];
  /** What for, for people who find their system changed. Default 'a program'. */
  purpose?: string;
}

/** @internal The backend behind a Machine; whoever opens it closes it. */
export async function openBackend({ allow = [], purpose = 'a program' }: OpenOptions = {}): Promise<LinuxBackend> {
  if (allow.length === 0) return LinuxBackend.open();
  // The restorer is there before anything else is forked or mapped.
  const plan = allow.includes('cgroup') ? planCgroup() : undefined;
  if (plan) requireSomePlace(plan);
  const changes = SystemChanges.begin({
    overcommit: allow.includes('overcommit'),
    hugetlb: allow.includes('hugetlb'),
    ...(plan ? { cgroup: plan } : {}),
    purpose,
  });
  try {
    return await LinuxBackend.open(changes, plan ? new LimitedCgroup(plan) : undefined);
  } catch (error) {
    await changes.restore();
    throw error;
  }
}

/**
 * A Machine on the real kernel: a bare native process forked once from Node, from which all others descend.
 * @throws FeatureUnavailableError on anything but Linux, and when what is to be allowed may not be changed here, or is
 * being changed by another run; SystemError if the fork of Node is refused.
 */
export async function openMachine(options?: OpenOptions): Promise<WatchedMachine> {
  return new LinuxMachine(await openBackend(options));
}
