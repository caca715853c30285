/** The reference model as a backend of Machine: it executes steps on nothing but its own state. */
import type { HostFacts } from '../../schema/facts.js';
import type { Outcome, Step, Trace } from '../../schema/step.js';
import type { Backend, SystemMemory } from '../machine.js';
import { access } from './access.js';
import { newCgroup, withinLimit } from './cgroup.js';
import { addSwap, committedPages, doubtAfterTouching, setOvercommit } from './commit.js';
import { fork } from './fork.js';
import { accessHugetlb, mapHugetlb, requireModelled, setHugetlb } from './hugetlb.js';
import { kernelRules } from './kernel-rules.js';
import { doubtingFaults } from './ksm.js';
import { mergePages } from './merge.js';
import { createObject, grow, map, unmap, writeObject } from './map.js';
import type { Mutation } from './mutation.js';
import { observe } from './observe.js';
import { endProcess, failed, type Mapping, type ModelProcess, type World } from './process.js';
import { advise, protect } from './protect.js';

export interface ModelOptions {
  /** A wrong rule, for the test of the test. */
  mutation?: Mutation;
  /**
   * A recording of the same program, of which only the readings of Committed_AS and of the memory of a cgroup are used:
   * what others on the machine have charged, and what the kernel needs for itself, no model can predict. They end where the program takes another way.
   */
  readings?: Trace;
}

/** Signals whose default action is to be ignored, to stop or to continue (signal(7)). */
const NOT_FATAL: ReadonlySet<string> = new Set([
  'SIGCHLD',
  'SIGCONT',
  'SIGSTOP',
  'SIGTSTP',
  'SIGTTIN',
  'SIGTTOU',
  'SIGURG',
  'SIGWINCH',
]);

type ProcessStep = Exclude<
  Step,
  { op: 'create-object' | 'write-object' | 'overcommit' | 'hugetlb' | 'merge' | 'swap' | 'cgroup' | 'observe' }
>;
type RegionStep = Extract<ProcessStep, { region: string }>;

export class ModelBackend implements Backend {
  private readonly world: World;
  private readonly readings: Trace;
  private executed = 0;

  /**
   * @param facts The host to play. They also say what the kernel's rules depend on: version, overcommit mode, limits.
   */
  constructor(
    readonly facts: HostFacts,
    options: ModelOptions = {},
  ) {
    this.readings = options.readings ?? [];
    this.world = {
      facts,
      rules: kernelRules(facts),
      mutation: options.mutation,
      processes: new Map([
        [
          'root',
          {
            name: 'root',
            mappings: new Map(),
            baseVmas: facts.rootAccountedVmas,
            basePages: facts.rootTotalPages,
          },
        ],
      ]),
      objects: new Map(),
      lineages: new Set(),
      chargedPages: 0,
      pool: facts.hugetlbPool,
    };
  }

  /** By how many pages the steps so far have changed Committed_AS. */
  get chargedPages(): number {
    return this.world.chargedPages;
  }

  execute(step: Step, recorded?: Outcome): Promise<Outcome> {
    return Promise.resolve(this.executeSync(step, recorded ?? this.nextReading(step)));
  }

  private nextReading(step: Step): Outcome | undefined {
    const next = this.readings[this.executed++];
    if (!next || JSON.stringify(next.step) !== JSON.stringify(step)) return undefined;
    const { commit, committedPages, memory, hugetlbPool } = next.outcome;
    return {
      ...(commit ? { commit } : {}),
      ...(committedPages === undefined ? {} : { committedPages }),
      ...(memory ? { memory } : {}),
      ...(hugetlbPool ? { hugetlbPool } : {}),
    };
  }

  readMemory(): SystemMemory {
    return {
      availableBytes: { unknown: 'what others on the machine use, no model knows' },
      committedBytes: committedPages(this.world) * this.facts.pageSizeBytes,
    };
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  /**
   * Executes one step that has been checked before.
   * @returns Its outcome; a step on a process or region that is not there fails with ESRCH, as it can in a replay after
   *   the model and the record have come apart.
   */
  executeSync(step: Step, recorded?: Outcome): Outcome {
    switch (step.op) {
      case 'create-object':
        return createObject(this.world, step);
      case 'write-object':
        return writeObject(this.world, step);
      case 'overcommit':
        return setOvercommit(this.world, step, recorded);
      case 'hugetlb':
        return setHugetlb(this.world, step, recorded);
      case 'merge':
        return mergePages(this.world);
      case 'swap':
        return addSwap(this.world, step);
      case 'cgroup':
        this.world.cgroup = newCgroup(step, this.facts.pageSizeBytes);
        return {};
      case 'observe':
        return { observation: observe(this.world, step.label) };
      default:
        return this.executeIn(step, recorded);
    }
  }

  private executeIn(step: ProcessStep, recorded: Outcome | undefined): Outcome {
    const process = this.world.processes.get(step.process);
    if (!process) return failed('ESRCH', step.op, `there is no process ${step.process}`);
    return withinLimit(this.world, process, step, recorded, () => this.act(step, process, recorded));
  }

  private act(step: ProcessStep, process: ModelProcess, recorded: Outcome | undefined): Outcome {
    switch (step.op) {
      case 'map':
        return step.hugetlb ? mapHugetlb(this.world, process, step) : map(this.world, process, step, recorded);
      case 'fork':
        return fork(this.world, process, step.child, recorded);
      case 'join':
        this.world.cgroup?.members.add(process.name);
        return {};
      case 'exit':
        endProcess(this.world, process);
        return { ended: { code: step.code } };
      case 'kill':
        if (NOT_FATAL.has(step.signal)) return {};
        endProcess(this.world, process);
        return { ended: { signal: step.signal } };
      default: {
        const mapping = process.mappings.get(step.region);
        if (!mapping) return failed('ESRCH', step.op, `${step.process} has no region ${step.region}`);
        return this.executeOn(step, process, mapping, recorded);
      }
    }
  }

  private executeOn(
    step: Exclude<RegionStep, { op: 'map' }>,
    process: ModelProcess,
    mapping: Mapping,
    recorded: Outcome | undefined,
  ): Outcome {
    const { world } = this;
    requireModelled(mapping, step);
    switch (step.op) {
      case 'write':
      case 'read':
        if (mapping.hugetlb) return accessHugetlb(world, process, mapping, step.op, step.selection);
        return this.watchingCharge(process, () =>
          doubtingFaults(mapping, () => access(world, process, mapping, step.op, step.selection)),
        );
      case 'protect':
        return protect(world, process, mapping, step, step.protection, recorded);
      case 'advise':
        return this.watchingCharge(process, () =>
          doubtingFaults(mapping, () => advise(world, mapping, step, step.advice)),
        );
      case 'grow':
        return grow(world, process, mapping, step, recorded);
      case 'unmap':
        return unmap(world, process, mapping, step);
    }
  }

  /** Says so when pages that are charged as they are touched come near the limit. */
  private watchingCharge(process: ModelProcess, act: () => Outcome): Outcome {
    const before = this.world.chargedPages;
    const outcome = act();
    return { ...outcome, ...doubtAfterTouching(this.world, process, before) };
  }
}
