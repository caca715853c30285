/** What programs hold of a Machine: its processes, regions and objects. Every call is checked and made a step. */
import { constants } from 'node:os';
import { ProcessEndedError, SystemError } from '../errors.js';
import {
  MAX_REGION_PAGES,
  or,
  requireInteger,
  requireMapFlags,
  requireObject,
  requireOneOf,
  requirePages,
  requireRange,
  requireSelection,
} from '../schema/arguments.js';
import type { PageChoice, PageRange } from '../schema/arguments.js';
import { sum } from '../schema/figure.js';
import { PageSet } from '../schema/page-set.js';
import { selectedRuns } from '../schema/selection.js';
import type { PageRun } from '../schema/selection.js';
import type { Advice, ExitStatus, Failure, Outcome, Protection, Step } from '../schema/step.js';
import { requireBasePages, requireHugetlbRegion } from './hugetlb.js';
import { isPageable } from './swap.js';
import type { Access, ForkRefusal, MapSpec, MemoryObject, Process, Region } from './machine.js';
import type { ProgramMachine } from './program.js';

const ADVICE = [
  'dontfork',
  'dofork',
  'wipeonfork',
  'keeponfork',
  'mergeable',
  'unmergeable',
  'dontneed',
  'pageout',
  'populate-read',
  'populate-write',
] as const satisfies Advice[];

/** Signals that a Machine's program may send: each ends the process. */
const SIGNALS = ['SIGKILL', 'SIGTERM', 'SIGSEGV', 'SIGBUS', 'SIGABRT', 'SIGINT', 'SIGHUP'] as const;

/** What a process has of a region. */
interface Holding {
  pages: number;
  /** The pages that are mapped: not those unmapped since, nor those a fork has left out. */
  mapped: PageSet;
  dontfork: PageSet;
}

export class ProgramRegion implements Region {
  constructor(
    readonly name: string,
    readonly hugetlb: boolean,
    /** Private anonymous memory of base pages, which the model knows in swap. */
    readonly isPageable: boolean,
  ) {}
}

export class ProgramObject implements MemoryObject {
  constructor(
    readonly machine: ProgramMachine,
    readonly name: string,
    readonly backing: 'memfd' | 'file',
    readonly pages: number,
  ) {}

  async write(range?: PageRange): Promise<void> {
    const { first, pages } = requireRange(range, this.pages);
    await this.machine.perform({ op: 'write-object', object: this.name, first, pages });
  }
}

export class ProgramProcess implements Process {
  ended: ExitStatus | undefined;
  #children = 0;

  constructor(
    readonly machine: ProgramMachine,
    readonly name: string,
    readonly holdings: Map<string, Holding>,
  ) {}

  get alive(): boolean {
    return this.ended === undefined;
  }

  get regions(): ReadonlyMap<Region, number> {
    if (this.ended) return new Map();
    const { machine, holdings } = this;
    return new Map([...holdings].map(([name, { pages }]) => [machine.regionNamed(name), pages]));
  }

  map(spec: MapSpec): Promise<Region> {
    return this.machine.inTurn(async () => {
      this.#requireLiving();
      const { onFork, ...full } = requireMapSpec(spec, this.machine);
      if (full.hugetlb) requireHugetlbRegion({ ...full, onFork }, this.machine.facts);
      if (full.hugePages || full.hugetlb) this.machine.cgroup.requireOutside(this.name);
      const name = this.machine.nextName('r');
      await this.machine.performNow({ op: 'map', process: this.name, region: name, ...full });
      const region = this.machine.addRegion(new ProgramRegion(name, full.hugetlb === true, isPageable(full)));
      const mapped = new PageSet([{ first: 0, pages: full.pages }]);
      this.holdings.set(name, { pages: full.pages, mapped, dontfork: new PageSet() });
      if (onFork !== 'copy') await this.#adviseNow(region, onFork, undefined);
      return region;
    });
  }

  write(region: Region, choice?: PageChoice): Promise<Access> {
    return this.#access('write', region, choice);
  }

  read(region: Region, choice?: PageChoice): Promise<Access> {
    return this.#access('read', region, choice);
  }

  protect(region: Region, protection: Protection, range?: PageRange): Promise<void> {
    return this.machine.inTurn(async () => {
      const { name } = this.#holding(region);
      requireOneOf('protection', protection, ['none', 'r', 'rw']);
      requireBasePages(this.machine.regionNamed(name), 'protect');
      const run = this.#mappedRange(region, range);
      await this.machine.performNow({ op: 'protect', process: this.name, region: name, ...run, protection });
    });
  }

  advise(region: Region, advice: Advice, range?: PageRange): Promise<Access> {
    return this.machine.inTurn(() => this.#adviseNow(region, advice, range));
  }

  grow(region: Region, pages: number): Promise<void> {
    return this.machine.inTurn(async () => {
      const { name, holding } = this.#holding(region);
      requireInteger('pages', pages, holding.pages + 1, MAX_REGION_PAGES);
      requireBasePages(this.machine.regionNamed(name), 'grow');
      this.#requireMapped(name, holding, { first: 0, pages: holding.pages });
      await this.machine.performNow({ op: 'grow', process: this.name, region: name, pages });
      holding.mapped.add({ first: holding.pages, pages: pages - holding.pages });
      // MADV_DONTFORK is a flag of the VMA, and a region that grows is one VMA.
      if (holding.dontfork.size > 0) holding.dontfork.add({ first: holding.pages, pages: pages - holding.pages });
      holding.pages = pages;
    });
  }

  unmap(region: Region, range?: PageRange): Promise<void> {
    return this.machine.inTurn(async () => {
      const { name, holding } = this.#holding(region);
      const run = this.#mappedRange(region, range);
      if (run.pages < holding.pages) requireBasePages(this.machine.regionNamed(name), 'unmap of a part');
      await this.machine.performNow({ op: 'unmap', process: this.name, region: name, ...run });
      holding.mapped.remove(run);
      holding.dontfork.remove(run);
      if (holding.mapped.size === 0) this.holdings.delete(name);
    });
  }

  async fork(): Promise<Process> {
    const child = await this.tryFork();
    if (!('refused' in child)) return child;
    throw failureError(child.refused);
  }

  tryFork(): Promise<Process | ForkRefusal> {
    return this.machine.inTurn(async () => {
      this.#requireLiving();
      const child = `${this.name}.${String(this.#children + 1)}`;
      const outcome = await this.machine.attempt({ op: 'fork', process: this.name, child });
      if (outcome.failure) return { refused: outcome.failure };
      this.#children++;
      this.machine.cgroup.forked(this.name, child);
      return this.machine.addProcess(new ProgramProcess(this.machine, child, this.#inheritance()));
    });
  }

  joinCgroup(): Promise<void> {
    return this.machine.inTurn(async () => {
      this.#requireLiving();
      this.machine.cgroup.requireMayJoin(this);
      await this.machine.performNow({ op: 'join', process: this.name });
      this.machine.cgroup.join(this.name);
    });
  }

  exit(code = 0): Promise<ExitStatus> {
    requireInteger('code', code, 0, 255);
    return this.#end({ op: 'exit', process: this.name, code });
  }

  kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<ExitStatus> {
    return this.#end({ op: 'kill', process: this.name, signal: requireOneOf('signal', signal, SIGNALS) });
  }

  #requireLiving(): void {
    if (this.ended) throw new ProcessEndedError(this.name, this.ended);
  }

  #holding(region: Region): { name: string; holding: Holding } {
    this.#requireLiving();
    requireObject('region', region);
    const name = this.machine.nameOf(region);
    const holding = this.holdings.get(name);
    if (!holding) throw new TypeError(`region ${name} is not mapped in ${this.name}`);
    return { name, holding };
  }

  #requireMapped(name: string, holding: Holding, run: PageRun): void {
    if (holding.mapped.covers(run)) return;
    const end = run.first + run.pages - 1;
    throw new RangeError(
      `pages ${String(run.first)} to ${String(end)} of region ${name} are not all mapped in ${this.name}`,
    );
  }

  #mappedRange(region: Region, range: PageRange | undefined): PageRun {
    const { name, holding } = this.#holding(region);
    const run = requireRange(range, holding.pages);
    this.#requireMapped(name, holding, run);
    return run;
  }

  #access(op: 'write' | 'read', region: Region, choice: PageChoice | undefined): Promise<Access> {
    return this.machine.inTurn(async () => {
      const { name, holding } = this.#holding(region);
      const selection = requireSelection(choice, holding.pages);
      const whole = holding.mapped.covers({ first: selection.first, pages: selection.pages });
      if (!whole) for (const run of selectedRuns(selection)) this.#requireMapped(name, holding, run);
      return accessOf(await this.machine.performNow({ op, process: this.name, region: name, selection }));
    });
  }

  async #adviseNow(region: Region, advice: Advice, range: PageRange | undefined): Promise<Access> {
    const { name, holding } = this.#holding(region);
    requireOneOf('advice', advice, ADVICE);
    requireBasePages(this.machine.regionNamed(name), 'advise');
    const run = this.#mappedRange(region, range);
    if (advice === 'pageout') {
      const { swap, facts } = this.machine;
      swap.requireMayPageOut(this.machine.regionNamed(name), run.pages, facts);
    }
    const outcome = await this.machine.performNow({ op: 'advise', process: this.name, region: name, ...run, advice });
    if (advice === 'dontfork') holding.dontfork.add(run);
    if (advice === 'dofork') holding.dontfork.remove(run);
    return accessOf(outcome);
  }

  #inheritance(): Map<string, Holding> {
    const inherited = new Map<string, Holding>();
    for (const [name, { pages, mapped, dontfork }] of this.holdings) {
      const kept = mapped.copy();
      for (const run of dontfork.runs) kept.remove(run);
      if (kept.size > 0) inherited.set(name, { pages, mapped: kept, dontfork: new PageSet() });
    }
    return inherited;
  }

  #end(step: Step): Promise<ExitStatus> {
    return this.machine.inTurn(async () => {
      this.#requireLiving();
      await this.machine.attempt(step);
      return this.ended ?? {};
    });
  }
}

function accessOf(outcome: Outcome): Access {
  const { minorFaults = 0, majorFaults = 0, elapsedNs } = outcome;
  const { faults = sum([minorFaults, majorFaults]) } = outcome;
  return { minorFaults, majorFaults, faults, ...(elapsedNs === undefined ? {} : { elapsedNs }) };
}

/** A refusal of the kernel's, as it is thrown. */
export function failureError(failure: Failure): SystemError {
  const known = constants.errno as Record<string, number>;
  const { code, syscall, why } = failure;
  return new SystemError({ code, errno: -(known[code] ?? 0), syscall, message: why }, failure);
}

function requireMapSpec(spec: MapSpec, machine: ProgramMachine) {
  requireObject('spec', spec);
  const pages = requirePages('size', spec.size, spec.pages, machine.facts.pageSizeBytes);
  const { backing = 'anonymous' } = spec;
  if (backing !== 'anonymous' && (!(backing instanceof ProgramObject) || backing.machine !== machine)) {
    throw new TypeError("backing must be 'anonymous' or an object of this machine");
  }
  const { hugePages, hugetlb, ...flags } = requireMapFlags(spec, backing !== 'anonymous');
  return {
    pages,
    ...flags,
    // So that a trace of base pages is as it was before there were others.
    ...(hugePages ? { hugePages } : {}),
    ...(hugetlb ? { hugetlb } : {}),
    backing: backing === 'anonymous' ? backing : backing.name,
    onFork: requireOneOf('onFork', or(spec.onFork, 'copy'), ['copy', 'dontfork', 'wipeonfork']),
  };
}
