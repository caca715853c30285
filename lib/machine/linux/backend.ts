/** The Machine's backend that is the real kernel: each step is a command to a forked process. */
import { ProcessEndedError, SystemError } from '../../errors.js';
import { createMemfd, createTemporaryFile } from '../../api/file-object.js';
import type { FileObject } from '../../api/file-object.js';
import { fork } from '../../api/forked-process.js';
import type { ForkedProcess, ForkedRegion, Placement } from '../../api/forked-process.js';
import type { EndingSignal } from '../../api/exit-status.js';
import { readCommittedPages, readHostFacts } from '../../proc/host.js';
import type { HostFacts } from '../../schema/facts.js';
import type { Outcome, Step, StepOf } from '../../schema/step.js';
import type { Backend } from '../machine.js';
import { observeProcess } from './observe.js';
import { explainRefusal } from './predict.js';

interface Tracked {
  process: ForkedProcess;
  regions: Map<string, ForkedRegion>;
}

export class LinuxBackend implements Backend {
  readonly facts: HostFacts;
  readonly #processes = new Map<string, Tracked>();
  readonly #objects = new Map<string, FileObject>();

  private constructor(root: ForkedProcess, facts: HostFacts) {
    this.#processes.set('root', { process: root, regions: new Map() });
    this.facts = facts;
  }

  /** Forks the bare root and takes the host's facts. */
  static async open(): Promise<LinuxBackend> {
    const root = fork();
    try {
      return new LinuxBackend(root, readHostFacts(root.pid));
    } catch (error) {
      await root.close();
      throw error;
    }
  }

  async execute(step: Step): Promise<Outcome> {
    try {
      return await this.#carryOut(step);
    } catch (error) {
      if (error instanceof SystemError) return { failure: { code: error.code, syscall: error.syscall } };
      if (error instanceof ProcessEndedError) return { ended: error.status };
      throw error;
    }
  }

  /** The pid of a process of the machine, for readers outside it. */
  pidOf(process: string): number {
    return this.#tracked(process).process.pid;
  }

  async close(): Promise<void> {
    for (const object of this.#objects.values()) object.close();
    // Children before their parents, so that each is waited for by its own.
    for (const { process } of [...this.#processes.values()].reverse()) await process.close();
  }

  #tracked(name: string): Tracked {
    const tracked = this.#processes.get(name);
    if (!tracked) throw new TypeError(`there is no process ${name}`);
    return tracked;
  }

  #target(step: { process: string; region: string }): { process: ForkedProcess; region: ForkedRegion } {
    const { process, regions } = this.#tracked(step.process);
    const region = regions.get(step.region);
    if (!region) throw new TypeError(`region ${step.region} is not mapped in ${step.process}`);
    return { process, region };
  }

  async #carryOut(step: Step): Promise<Outcome> {
    switch (step.op) {
      case 'create-object':
        this.#objects.set(
          step.object,
          step.backing === 'memfd' ? createMemfd(step.pages) : await createTemporaryFile(step.pages),
        );
        return {};
      case 'write-object':
        await this.#object(step.object).write({ first: step.first, pages: step.pages });
        return {};
      case 'map':
        return this.#map(step);
      case 'write':
      case 'read': {
        const { process, region } = this.#target(step);
        const access = await process[step.op](region, step.selection);
        return measured(access);
      }
      case 'protect': {
        const { process, region } = this.#target(step);
        await process.protect(region, step.protection, step);
        return {};
      }
      case 'advise': {
        const { process, region } = this.#target(step);
        return measured(await process.advise(region, step.advice, step));
      }
      case 'grow': {
        const { process, region } = this.#target(step);
        await process.grow(region, step.pages);
        return {};
      }
      case 'unmap': {
        const { process, region } = this.#target(step);
        await process.unmap(region, step);
        return {};
      }
      case 'fork':
        return this.#fork(step);
      case 'exit':
        return { ended: await this.#tracked(step.process).process.exit(step.code) };
      case 'kill':
        return { ended: await this.#tracked(step.process).process.kill(step.signal as EndingSignal) };
      case 'observe':
        return { observation: { label: step.label, processes: await this.#observeAll() } };
    }
  }

  #object(name: string): FileObject {
    const object = this.#objects.get(name);
    if (!object) throw new TypeError(`there is no object ${name}`);
    return object;
  }

  async #map(step: StepOf<'map'>): Promise<Outcome> {
    const { process, regions } = this.#tracked(step.process);
    const { pages, sharing, protection, populate, noreserve, offset } = step;
    const spec = { pages, sharing, protection, populate, noreserve, offset };
    const object = step.backing === 'anonymous' ? {} : { object: this.#object(step.backing) };
    regions.set(step.region, await process.map({ ...spec, ...object }));
    return {};
  }

  async #fork(step: StepOf<'fork'>): Promise<Outcome> {
    const { process, regions } = this.#tracked(step.process);
    let child: ForkedProcess;
    try {
      child = await process.fork();
    } catch (error) {
      const code = error instanceof SystemError ? error.code : undefined;
      if (code !== 'ENOMEM' && code !== 'EAGAIN') throw error;
      return { failure: explainRefusal(process.pid, code, { ...this.facts, committedPages: readCommittedPages() }) };
    }
    this.#processes.set(step.child, { process: child, regions: new Map(regions) });
    return { elapsedNs: child.forkNs };
  }

  async #observeAll() {
    const observed = [];
    for (const [name, { process, regions }] of this.#processes) {
      if (process.status) continue;
      const placements = new Map<string, Placement>();
      for (const [region, handle] of regions) {
        if (process.has(handle)) placements.set(region, process.placement(handle));
      }
      observed.push(observeProcess(name, process, placements, this.facts.pageSizeBytes));
      // Reading is work on this thread: let others have their turn between processes.
      await new Promise(setImmediate);
    }
    return observed;
  }
}

function measured(access: { minorFaults: number; majorFaults: number; elapsedNs: number }): Outcome {
  const { minorFaults, majorFaults, elapsedNs } = access;
  return { minorFaults, majorFaults, elapsedNs };
}
