/**
 * The Machine that programs see: it checks every call, turns it into a step with all defaults filled in, lets a
 * backend execute it, and records what came of it. Steps run one at a time, in the order they were called: so
 * that a trace replays exactly.
 */
import { ProcessEndedError } from '../errors.js';
import type { HostFacts } from '../schema/facts.js';
import { MAX_REGION_PAGES, requireInteger } from '../schema/arguments.js';
import type { ExitStatus, Observation, Outcome, Step, Trace } from '../schema/step.js';
import { CgroupProgress, requireCgroup } from './cgroup.js';
import { requireOvercommit } from './overcommit.js';
import { ProgramObject, ProgramProcess, failureError } from './program-process.js';
import type { ProgramRegion } from './program-process.js';
import { SwapProgress } from './swap.js';
import type {
  Backend,
  CgroupSpec,
  Machine,
  MemoryObject,
  OvercommitSpec,
  Process,
  Region,
  SystemMemory,
} from './machine.js';

export class ProgramMachine implements Machine {
  readonly root: Process;
  /** @internal */
  readonly cgroup = new CgroupProgress();
  /** @internal */
  readonly swap = new SwapProgress();
  readonly #backend: Backend;
  readonly #processes: ProgramProcess[] = [];
  readonly #regions = new Map<string, ProgramRegion>();
  readonly #trace: Trace = [];
  readonly #counters = new Map<string, number>();
  #turn: Promise<unknown> = Promise.resolve();
  #closed = false;
  #hasMerged = false;

  constructor(backend: Backend) {
    this.#backend = backend;
    this.root = this.addProcess(new ProgramProcess(this, 'root', new Map()));
  }

  get facts(): HostFacts {
    return this.#backend.facts;
  }

  get processes(): readonly Process[] {
    return this.#processes;
  }

  get trace(): Trace {
    return this.#trace;
  }

  createMemfd(pages: number): Promise<MemoryObject> {
    return this.#createObject('memfd', pages);
  }

  createFile(pages: number): Promise<MemoryObject> {
    return this.#createObject('file', pages);
  }

  async setOvercommit(spec: OvercommitSpec): Promise<void> {
    await this.perform({ op: 'overcommit', ...requireOvercommit(spec, this.facts) });
  }

  setHugetlbPages(pages: number): Promise<number> {
    requireInteger('pages', pages, 0, MAX_REGION_PAGES);
    return this.inTurn(async () => {
      const regions = this.#processes.flatMap((process) => [...process.regions.keys()]);
      if (regions.some(({ name }) => this.regionNamed(name).hugetlb)) {
        throw new TypeError('set the pool while no process has a region of hugetlb');
      }
      const { hugetlbPool } = await this.performNow({ op: 'hugetlb', pages });
      return hugetlbPool?.totalPages ?? 0;
    });
  }

  mergePages(): Promise<void> {
    return this.inTurn(async () => {
      this.swap.requireNone('merges no pages');
      await this.performNow({ op: 'merge' });
      this.#hasMerged = true;
    });
  }

  addSwap(pages: number): Promise<void> {
    return this.inTurn(async () => {
      this.swap.requireMayAdd(pages, this.facts);
      this.cgroup.requireUnlimited('a machine whose cgroup has limits has no swap');
      if (this.#hasMerged) throw new TypeError('a machine that has merged pages has no swap');
      await this.performNow({ op: 'swap', pages });
      this.swap.add(pages);
    });
  }

  readMemory(): Promise<SystemMemory> {
    return this.inTurn(() => Promise.resolve(this.#backend.readMemory()));
  }

  limitCgroup(spec: CgroupSpec): Promise<void> {
    return this.inTurn(async () => {
      this.cgroup.requireUnlimited();
      // What is in swap is charged otherwise, which the model does not follow.
      this.swap.requireNone('has no cgroup');
      await this.performNow({ op: 'cgroup', ...requireCgroup(spec, this.facts) });
      this.cgroup.limit();
    });
  }

  async observe(label: string): Promise<Observation> {
    if (typeof label !== 'string') throw new TypeError('label must be a string');
    const { observation } = await this.perform({ op: 'observe', label });
    if (!observation) throw new Error('the backend made no observation');
    return observation;
  }

  async close(): Promise<void> {
    this.#closed = true;
    // Ends what is under way, however long it would take; a fork among it may still have made a process, hence twice.
    await this.#backend.close();
    await this.#turn.catch(() => undefined);
    await this.#backend.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** @internal Runs work after all that was asked for before it. */
  inTurn<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#turn.then(() => {
      if (this.#closed) throw new TypeError('the machine has been closed');
      return work();
    });
    this.#turn = done.catch(() => undefined);
    return done;
  }

  /** @internal Executes and records a step; a refusal by the kernel, or a death, is part of the outcome. */
  async attempt(step: Step): Promise<Outcome> {
    const outcome = await this.#backend.execute(step);
    this.#trace.push({ step, outcome });
    if (outcome.ended && 'process' in step) this.#markEnded(step.process, outcome.ended);
    for (const name of outcome.killed ?? []) this.#markEnded(name, { signal: 'SIGKILL' });
    return outcome;
  }

  /** @internal As attempt, but a refusal or a death is thrown. */
  async performNow(step: Step): Promise<Outcome> {
    const outcome = await this.attempt(step);
    if (outcome.failure) throw failureError(outcome.failure);
    if (outcome.ended && 'process' in step) throw new ProcessEndedError(step.process, outcome.ended);
    return outcome;
  }

  /** @internal */
  perform(step: Step): Promise<Outcome> {
    return this.inTurn(() => this.performNow(step));
  }

  /** @internal */
  nextName(kind: 'r' | 'o'): string {
    const next = (this.#counters.get(kind) ?? 0) + 1;
    this.#counters.set(kind, next);
    return `${kind}${String(next)}`;
  }

  /** @internal */
  addProcess(process: ProgramProcess): ProgramProcess {
    this.#processes.push(process);
    return process;
  }

  /** @internal */
  addRegion(region: ProgramRegion): Region {
    this.#regions.set(region.name, region);
    return region;
  }

  /** @internal */
  regionNamed(name: string): ProgramRegion {
    const region = this.#regions.get(name);
    if (!region) throw new Error(`there is no region ${name}`);
    return region;
  }

  /** @internal */
  nameOf(region: Region): string {
    if (this.#regions.get(region.name) !== region) throw new TypeError('region is not a region of this machine');
    return region.name;
  }

  #markEnded(name: string, status: ExitStatus): void {
    const process = this.#processes.find((one) => one.name === name);
    if (process) process.ended = status;
  }

  #createObject(backing: 'memfd' | 'file', pages: number): Promise<MemoryObject> {
    requireInteger('pages', pages, 1, MAX_REGION_PAGES);
    return this.inTurn(async () => {
      const name = this.nextName('o');
      await this.performNow({ op: 'create-object', object: name, backing, pages });
      return new ProgramObject(this, name, backing, pages);
    });
  }
}
