/** A Machine on the kernel, watched: what disturbed it is known at the end. */
import { disturbances } from '../../proc/disturbance.js';
import { readVmstat } from '../../proc/vmstat.js';
import type { Machine } from '../machine.js';
import { ProgramMachine } from '../program.js';
import { LinuxBackend } from './backend.js';

export interface WatchedMachine extends Machine {
  /** What has disturbed exact figures since the machine was opened, a phrase each. */
  disturbances(): string[];
  /** The pid of a process of the machine, for readers outside it. */
  pidOf(process: { name: string }): number;
}

class LinuxMachine extends ProgramMachine implements WatchedMachine {
  readonly #before = readVmstat();
  readonly #linux: LinuxBackend;

  constructor(backend: LinuxBackend) {
    super(backend);
    this.#linux = backend;
  }

  disturbances(): string[] {
    return disturbances(this.#before, readVmstat());
  }

  pidOf(process: { name: string }): number {
    return this.#linux.pidOf(process.name);
  }
}

/**
 * A Machine on the real kernel: a bare native process forked once from Node, from which all others descend.
 * @throws FeatureUnavailableError on anything but Linux; SystemError if the fork of Node is refused.
 */
export async function openMachine(): Promise<WatchedMachine> {
  return new LinuxMachine(await LinuxBackend.open());
}
