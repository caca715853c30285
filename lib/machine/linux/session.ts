/** A Machine on the kernel, watched: what disturbed it is known at the end. */
import { LimitedCgroup, planCgroup, requireSomePlace } from '../../api/limited-cgroup.js';
import { SystemChanges } from '../../api/system-changes.js';
import { disturbances } from '../../proc/disturbance.js';
import { readActivity } from '../../proc/vmstat.js';
import type { Placement } from '../../api/forked-process.js';
import type { Outcome, Step, Trace } from '../../schema/step.js';
import type { Machine, SystemChange } from '../machine.js';
import { ProgramMachine } from '../program.js';
import { LinuxBackend } from './backend.js';
import type { RootKind } from './backend.js';

export interface WatchedMachine extends Machine {
  /** What has disturbed exact figures since the machine was opened, a phrase each. */
  disturbances(): string[];
  /** The pid of a process of the machine, for readers outside it. */
  pidOf(process: { name: string }): number;
  /** Where a region lies in a process, for readers outside it. */
  placementOf(process: { name: string }, region: { name: string }): Placement;
  /** Carries out a recorded step as it stands; that it is refused, or a process dies of it, is part of the outcome. */
  execute(step: Step): Promise<Outcome>;
  /** The trace since this was last called. It is forgotten: a machine that is kept for days must not grow by it. */
  takeTrace(): Trace;
}

class LinuxMachine extends ProgramMachine implements WatchedMachine {
  readonly #before = readActivity();
  readonly #linux: LinuxBackend;

  constructor(backend: LinuxBackend) {
    super(backend);
    this.#linux = backend;
  }

  disturbances(): string[] {
    const { oomKills, majorFaults, hasHugePages, hasMergeable, pagedOut } = this.#linux;
    // What comes back was sent out before; and neighbours may be read ahead.
    const pswpin = pagedOut > 0 ? Infinity : 0;
    const meant = { oom_kill: oomKills, pswpout: pagedOut, pswpin };
    return disturbances(this.#before, readActivity(), { meant, majorFaults, hasHugePages, hasMergeable });
  }

  pidOf(process: { name: string }): number {
    return this.#linux.pidOf(process.name);
  }

  placementOf(process: { name: string }, region: { name: string }): Placement {
    return this.#linux.placementOf(process.name, region.name);
  }

  execute(step: Step): Promise<Outcome> {
    return this.inTurn(() => this.attempt(step));
  }

  takeTrace(): Trace {
    return this.trace.splice(0);
  }
}

export interface OpenOptions {
  /**
   * What the program may change of the system, for which one must be root (or, for 'cgroup', have a cgroup delegated).
   * Default: nothing.
   */
  allow?: readonly SystemChange[];
  /**
   * 'forked': a fork of Node, whose memory it has as well, beside the regions of the program. 'bare': a small program of
   * its own, which has next to nothing beside them, and nothing in common with Node. Default 'forked'.
   */
  root?: RootKind;
  /** What for, for people who find their system changed. Default 'a program'. */
  purpose?: string;
}

/** @internal The backend behind a Machine; whoever opens it closes it. */
export async function openBackend(options: OpenOptions = {}): Promise<LinuxBackend> {
  const { allow = [], root = 'forked', purpose = 'a program' } = options;
  if (allow.length === 0) return LinuxBackend.open(root);
  // The restorer is there before anything else is forked or mapped.
  const plan = allow.includes('cgroup') ? planCgroup() : undefined;
  if (plan) requireSomePlace(plan);
  const changes = SystemChanges.begin({
    overcommit: allow.includes('overcommit'),
    hugetlb: allow.includes('hugetlb'),
    ksm: allow.includes('ksm'),
    swap: allow.includes('swap'),
    ...(plan ? { cgroup: plan } : {}),
    purpose,
  });
  try {
    return await LinuxBackend.open(root, changes, plan ? new LimitedCgroup(plan) : undefined);
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
