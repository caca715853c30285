/** The Machine's backend that is the real kernel: each step is a command to a forked process. */
import { FeatureUnavailableError, ProcessEndedError, SystemError } from '../../errors.js';
import { createMemfd, createTemporaryFile } from '../../api/file-object.js';
import type { FileObject } from '../../api/file-object.js';
import { fork } from '../../api/forked-process.js';
import type { AccessReport, ForkedProcess, ForkedRegion, Placement } from '../../api/forked-process.js';
import { spawnBare } from '../../api/fresh-process.js';
import type { EndingSignal } from '../../api/exit-status.js';
import type { LimitedCgroup } from '../../api/limited-cgroup.js';
import type { SystemChanges } from '../../api/system-changes.js';
import { seesFrames } from '../../proc/frames.js';
import type { FrameSet } from '../../proc/frames.js';
import { readCommit, readHostFacts } from '../../proc/host.js';
import { commitFigures, readMeminfo } from '../../proc/meminfo.js';
import { isChargedAtFork, readSmaps, vmaPages } from '../../proc/smaps.js';
import { requireExactHugePages } from '../../proc/huge-pages.js';
import { countPages } from '../../proc/pagemap.js';
import { readSystemSwapPages, requireExactSwap } from '../../proc/swap.js';
import { readHugetlbPool, requireExactHugetlb } from '../../proc/hugetlb.js';
import { readStatm } from '../../proc/stat.js';
import type { HostFacts } from '../../schema/facts.js';
import type { PageRun } from '../../schema/selection.js';
import type { CommitReading, Outcome, Step, StepOf } from '../../schema/step.js';
import type { Backend, SystemChange, SystemMemory } from '../machine.js';
import { LimitedTree } from './cgroup.js';
import { mergePages } from './merge.js';
import { observeProcess } from './observe.js';
import { explainRefusal } from './predict.js';

export type RootKind = 'forked' | 'bare';

interface Tracked {
  process: ForkedProcess;
  regions: Map<string, ForkedRegion>;
}

export class LinuxBackend implements Backend {
  readonly facts: HostFacts;
  readonly #processes = new Map<string, Tracked>();
  readonly #objects = new Map<string, FileObject>();
  readonly #changes: SystemChanges | undefined;
  readonly #tree: LimitedTree | undefined;
  /** The facts as they are now: the program may have set vm.overcommit_memory. */
  #factsNow: HostFacts;
  #majorFaults = 0;
  #hasHugePages = false;
  #hasMergeable = false;
  #hasSwap = false;
  #pagedOut = 0;
  readonly #seesFrames = seesFrames();

  private constructor(root: ForkedProcess, facts: HostFacts, changes?: SystemChanges, cgroup?: LimitedCgroup) {
    this.#processes.set('root', { process: root, regions: new Map() });
    this.facts = facts;
    this.#factsNow = facts;
    this.#changes = changes;
    this.#tree = cgroup ? new LimitedTree(cgroup, facts.pageSizeBytes) : undefined;
  }

  /**
   * Starts the root and takes the host's facts.
   * @param kind See OpenOptions.
   * @param changes What the program may change of the system; put back by close(). Its root stays on one CPU then, and
   * gives CAP_SYS_ADMIN up: so that the reserve for the administrator is left to Node, which must not run out of memory
   * while its processes bring the system to the limit.
   * @param cgroup One that may be made, and whose removal is among the changes.
   */
  static async open(kind: RootKind, changes?: SystemChanges, cgroup?: LimitedCgroup): Promise<LinuxBackend> {
    const root = kind === 'forked' ? fork() : await spawnBare();
    try {
      if (changes) await root.restrict();
      return new LinuxBackend(root, readHostFacts(root.pid), changes, cgroup);
    } catch (error) {
      await root.close();
      throw error;
    }
  }

  async execute(step: Step): Promise<Outcome> {
    const watch = this.#tree?.watch(step);
    const outcome = await this.#attempt(step);
    return watch && this.#tree ? this.#tree.settle(watch, outcome) : outcome;
  }

  async #attempt(step: Step): Promise<Outcome> {
    try {
      return await this.#carryOut(step);
    } catch (error) {
      if (error instanceof SystemError) return { failure: { code: error.code, syscall: error.syscall } };
      if (error instanceof ProcessEndedError) return { ended: error.status };
      throw error;
    }
  }

  readMemory(): SystemMemory {
    const { memAvailableBytes, committedAsPages } = commitFigures(readMeminfo(), this.facts.pageSizeBytes);
    return { availableBytes: memAvailableBytes, committedBytes: committedAsPages * this.facts.pageSizeBytes };
  }

  /** The pid of a process of the machine, for readers outside it. */
  pidOf(process: string): number {
    return this.#tracked(process).process.pid;
  }

  /** Where a region of a process lies, for readers outside it. */
  placementOf(process: string, region: string): Placement {
    const target = this.#target({ process, region });
    return target.process.placement(target.region);
  }

  /** Processes that the OOM killer has ended in the cgroup of the machine, as the program meant it. */
  get oomKills(): number {
    return this.#tree?.kills ?? 0;
  }

  /** Of all processes, in the accesses so far; once there is swap, they are no sign of reclaimed files. */
  get majorFaults(): number {
    return this.#majorFaults;
  }

  /** Whether any region was mapped with huge pages. */
  get hasHugePages(): boolean {
    return this.#hasHugePages;
  }

  /** Whether any memory was given MADV_MERGEABLE that others than this machine might have merged. */
  get hasMergeable(): boolean {
    return this.#hasMergeable && !this.#changes?.allowsKsm;
  }

  /** How many pages this machine has sent to swap, at most. */
  get pagedOut(): number {
    return this.#pagedOut;
  }

  async close(): Promise<void> {
    for (const object of this.#objects.values()) object.close();
    // Children before their parents, so that each is waited for by its own.
    for (const { process } of [...this.#processes.values()].reverse()) await process.close();
    await this.#changes?.restore();
  }

  #measured({ minorFaults, majorFaults, elapsedNs }: Omit<AccessReport, 'sum'>): Outcome {
    if (!this.#hasSwap) this.#majorFaults += majorFaults;
    return { minorFaults, majorFaults, elapsedNs };
  }

  /** Of the living. */
  #pids(): number[] {
    return [...this.#processes.values()].flatMap(({ process }) => (process.status ? [] : [process.pid]));
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
        return this.#measured(access);
      }
      case 'protect': {
        const { process, region } = this.#target(step);
        await process.protect(region, step.protection, step);
        return {};
      }
      case 'advise': {
        const { process, region } = this.#target(step);
        this.#hasMergeable ||= step.advice === 'mergeable';
        if (step.advice === 'pageout' && this.#hasSwap) return this.#pageOut(process, region, step);
        return this.#measured(await process.advise(region, step.advice, step));
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
      case 'overcommit':
        return this.#setOvercommit(step);
      case 'hugetlb':
        return this.#setHugetlb(step);
      case 'merge': {
        const allowed = this.#changes?.allowsKsm ? this.#changes : undefined;
        return mergePages(requireAllowed(allowed, 'Merging pages', 'ksm'), this.#pids());
      }
      case 'swap':
        return this.#addSwap(step);
      case 'cgroup':
        requireAllowed(this.#tree, 'A cgroup', 'cgroup').limit(step);
        return {};
      case 'join':
        requireAllowed(this.#tree, 'A cgroup', 'cgroup').join(step.process, this.#tracked(step.process).process);
        return {};
      case 'observe':
        return { observation: { label: step.label, ...(await this.#observeAll()) } };
    }
  }

  #object(name: string): FileObject {
    const object = this.#objects.get(name);
    if (!object) throw new TypeError(`there is no object ${name}`);
    return object;
  }

  async #map(step: StepOf<'map'>): Promise<Outcome> {
    const { process, regions } = this.#tracked(step.process);
    const { pages, sharing, protection, populate, noreserve, offset, hugePages = false, hugetlb = false } = step;
    if (hugePages) requireExactHugePages();
    if (hugetlb) requireExactHugetlb();
    this.#hasHugePages ||= hugePages;
    const spec = { pages, sharing, protection, populate, noreserve, offset, hugePages, hugetlb };
    const object = step.backing === 'anonymous' ? {} : { object: this.#object(step.backing) };
    regions.set(step.region, await process.map({ ...spec, ...object }));
    return {};
  }

  #setOvercommit({ mode, kbytes, ratio, adminReserveKbytes }: StepOf<'overcommit'>): Outcome {
    const allowed = this.#changes?.allowsOvercommit ? this.#changes : undefined;
    requireAllowed(allowed, 'Setting vm.overcommit_memory', 'overcommit').setOvercommit({
      mode,
      kbytes,
      ratio,
      adminReserveKbytes,
    });
    const { commitLimitPages, committedPages, adminReservePages } = readCommit();
    this.#factsNow = { ...this.#factsNow, overcommitMode: mode, commitLimitPages, adminReservePages };
    return { commitLimitPages, committedPages };
  }

  #setHugetlb({ pages }: StepOf<'hugetlb'>): Outcome {
    const allowed = this.#changes?.allowsHugetlb ? this.#changes : undefined;
    requireAllowed(allowed, 'Setting vm.nr_hugepages', 'hugetlb').setHugetlbPages(pages);
    const { commitLimitPages } = readCommit();
    const hugetlbPool = readHugetlbPool();
    this.#factsNow = { ...this.#factsNow, commitLimitPages };
    return { commitLimitPages, ...(hugetlbPool ? { hugetlbPool } : {}) };
  }

  #addSwap({ pages }: StepOf<'swap'>): Outcome {
    const allowed = this.#changes?.allowsSwap ? this.#changes : undefined;
    const changes = requireAllowed(allowed, 'Adding swap', 'swap');
    requireExactSwap();
    changes.addSwap(pages);
    this.#hasSwap = true;
    const { commitLimitPages } = readCommit();
    this.#factsNow = { ...this.#factsNow, commitLimitPages, swapTotalPages: readSystemSwapPages() };
    return { commitLimitPages };
  }

  /**
   * A page that is still being written from the last time stays [shrink_folio_list: folio_test_writeback], and nothing says
   * when that has ended; so the advice is given until no page is left that may go.
   */
  async #pageOut(process: ForkedProcess, region: ForkedRegion, { first, pages }: PageRun): Promise<Outcome> {
    const { address } = process.placement(region);
    const range = { address: address + BigInt(first * this.facts.pageSizeBytes), pages };
    const mayGo = (): number => countPages(process.pid, range, { checkHuge: false }).exclusive;
    this.#pagedOut += mayGo();
    const deadline = performance.now() + WRITEBACK_PATIENCE_MS;
    for (;;) {
      const outcome = this.#measured(await process.advise(region, 'pageout', { first, pages }));
      if (mayGo() === 0 || performance.now() >= deadline) return outcome;
    }
  }

  async #fork(step: StepOf<'fork'>): Promise<Outcome> {
    const { process, regions } = this.#tracked(step.process);
    const counted = this.#factsNow.overcommitMode === 2;
    const { outcome, commit } = counted ? await this.#forkCounted(process) : { outcome: await forkOrRefusal(process) };
    const reading = commit ? { commit } : {};
    if (outcome instanceof SystemError) {
      if (outcome.code !== 'ENOMEM' && outcome.code !== 'EAGAIN') throw outcome;
      const facts = { ...this.#factsNow, committedPages: commit?.committedPages ?? readCommit().committedPages };
      return { failure: explainRefusal(process.pid, outcome.code, facts, commit), ...reading };
    }
    this.#processes.set(step.child, { process: outcome, regions: new Map(regions) });
    this.#tree?.forked(step.process, step.child, outcome);
    return { elapsedNs: outcome.forkNs, ...reading };
  }

  /** A fork under strict overcommit, with what it is judged by. */
  async #forkCounted(process: ForkedProcess) {
    const pageSize = this.facts.pageSizeBytes;
    const vmas = readSmaps(process.pid).filter(isChargedAtFork);
    const charged = vmas.map((vma) => vmaPages(vma, pageSize));
    const { sizePages } = readStatm(process.pid);
    // Before Linux 5.9 nothing adds the parts of the counter up (commit 56f3547bfa4d).
    const [major, minor] = this.facts.kernelVersion;
    const folded = this.#changes?.allowsOvercommit === true && (major > 5 || (major === 5 && minor >= 9));
    const { outcome, committedBeforeKb, committedAfterKb } = await process.forkCounted(folded);
    const toPages = (kb: number): number => Math.floor((kb * 1024) / pageSize);
    const committedPages = toPages(committedBeforeKb);
    const own = outcome instanceof SystemError ? 0 : charged.reduce((sum, pages) => sum + pages, 0);
    const slackPages = Math.abs(toPages(committedAfterKb) - committedPages - own);
    const commit: CommitReading = { committedPages, folded, slackPages, totalPages: sizePages, vmaPages: charged };
    return { outcome, commit };
  }

  async #observeAll() {
    const frames = this.#seesFrames ? new Map<string, FrameSet>() : undefined;
    const observed = [];
    for (const [name, { process, regions }] of this.#processes) {
      if (process.status) continue;
      const placements = new Map<string, Placement>();
      for (const [region, handle] of regions) {
        if (process.has(handle)) placements.set(region, process.placement(handle));
      }
      observed.push(observeProcess(name, process, placements, this.facts.pageSizeBytes, frames));
      // Reading is work on this thread: let others have their turn between processes.
      await new Promise(setImmediate);
    }
    if (!frames) return { processes: observed };
    return { processes: observed, frames: Object.fromEntries([...frames].map(([region, { size }]) => [region, size])) };
  }
}

/** For how long pages may be written to swap before they count as staying. */
const WRITEBACK_PATIENCE_MS = 5000;

function requireAllowed<T>(means: T | undefined, what: string, change: SystemChange): T {
  if (means !== undefined) return means;
  throw new FeatureUnavailableError(
    what,
    'this machine was opened without leave to change the system',
    `Open it with openMachine({ allow: ['${change}'] }), or run with --allow-system-changes.`,
  );
}

async function forkOrRefusal(process: ForkedProcess): Promise<ForkedProcess | SystemError> {
  try {
    return await process.fork();
  } catch (error) {
    if (error instanceof SystemError) return error;
    throw error;
  }
}
