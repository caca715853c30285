/**
 * Machine: the one interface experiments are written against. Two backends stand behind it, the real kernel
 * (linux/) and the reference model (model/); both only execute steps, everything else is in program.ts.
 */
import type { Figure } from '../schema/figure.js';
import type { HostFacts } from '../schema/facts.js';
import type { PageChoice, PageRange } from '../schema/arguments.js';
import type {
  Advice,
  ExitStatus,
  Failure,
  Observation,
  Outcome,
  Protection,
  Sharing,
  Step,
  Trace,
} from '../schema/step.js';

export type { PageChoice, PageRange } from '../schema/arguments.js';

/** Executes steps that have already been checked. */
export interface Backend {
  readonly facts: HostFacts;
  /**
   * @param recorded What came of this step where it was recorded; a backend that cannot tell the outcome
   *   (`uncertain`) follows it.
   */
  execute(step: Step, recorded?: Outcome): Promise<Outcome>;
  readMemory(): SystemMemory;
  close(): Promise<void>;
}

/** Memory of the whole system, in bytes. */
export interface SystemMemory {
  /** What could be had without swapping (MemAvailable). Unknown on the model: others on the machine decide. */
  availableBytes: Figure;
  /** Committed_AS. On the model what was committed at the start, and what its own processes have added. */
  committedBytes: number;
}

export interface MapSpec {
  /** Length in bytes, a positive multiple of the page size. Give this or `pages`. */
  size?: number;
  pages?: number;
  /** Default 'private'. */
  sharing?: Sharing;
  /** Default 'anonymous'. */
  backing?: 'anonymous' | MemoryObject;
  /** First page of the object to map. Default 0. */
  offset?: number;
  /** Default 'rw'. */
  protection?: Protection;
  /** MAP_POPULATE. Default false. */
  populate?: boolean;
  /** MAP_NORESERVE. Default false. */
  noreserve?: boolean;
  /**
   * Transparent huge pages (MADV_HUGEPAGE): every whole 2 MiB, counted from the region's start, that is touched first as a
   * whole. Only for private anonymous memory, and not in the cgroup of limitCgroup(). Default false: base pages.
   */
  hugePages?: boolean;
  /**
   * Huge pages of the pool of vm.nr_hugepages (MAP_HUGETLB), whole ones, for anonymous memory that is read, written, inherited
   * and unmapped as a whole; not in the cgroup of limitCgroup(). Without `noreserve` all are reserved. Default false.
   */
  hugetlb?: boolean;
  /** What a fork does with the region (MADV_DONTFORK, MADV_WIPEONFORK). Default 'copy'. */
  onFork?: 'copy' | 'dontfork' | 'wipeonfork';
}

/** A memfd or a file, which several regions and processes can map. */
export interface MemoryObject {
  readonly name: string;
  readonly backing: 'memfd' | 'file';
  readonly pages: number;
  /** write(2) by the harness, whole pages; the pages are in the page cache and dirty after it. */
  write(range?: PageRange): Promise<void>;
}

/** A region has the same name in every process that has it; its length is asked of the process. */
export interface Region {
  readonly name: string;
}

/** What one access cost, measured around the access itself. */
export interface Access {
  minorFaults: Figure;
  majorFaults: Figure;
  /** Minor and major together, which is exact also where it is not known which of them are major: in swap. */
  faults: Figure;
  /** Absent on the model, which predicts no time. */
  elapsedNs?: number;
}

/** A fork that the kernel refused: an expected result of an experiment, so a value and not an exception. */
export interface ForkRefusal {
  refused: Failure;
}

export interface Process {
  readonly name: string;
  readonly alive: boolean;
  /** How it ended; undefined while it lives. */
  readonly ended: ExitStatus | undefined;
  /** The regions that it has, with the length of each in pages. */
  readonly regions: ReadonlyMap<Region, number>;
  map(spec: MapSpec): Promise<Region>;
  /** Writes into each chosen page. Rejects with ProcessEndedError if the process dies of it. */
  write(region: Region, choice?: PageChoice): Promise<Access>;
  read(region: Region, choice?: PageChoice): Promise<Access>;
  protect(region: Region, protection: Protection, range?: PageRange): Promise<void>;
  advise(region: Region, advice: Advice, range?: PageRange): Promise<Access>;
  /** mremap to `pages` pages in all. */
  grow(region: Region, pages: number): Promise<void>;
  unmap(region: Region, range?: PageRange): Promise<void>;
  /** Rejects with a SystemError if the kernel refuses. */
  fork(): Promise<Process>;
  tryFork(): Promise<Process | ForkRefusal>;
  /**
   * Moves into the cgroup of machine.limitCgroup; so its children will be born there. It must not be the root, which
   * has to outlive the others, and have no regions yet, whose pages would stay charged where they are.
   */
  joinCgroup(): Promise<void>;
  exit(code?: number): Promise<ExitStatus>;
  kill(signal?: NodeJS.Signals): Promise<ExitStatus>;
}

/** vm.overcommit_memory and what it goes by; what is left out stays as it is. */
export interface OvercommitSpec {
  mode: 0 | 1 | 2;
  /** CommitLimit in bytes, to the KiB; more than the swap there is, which is always part of it. */
  limitBytes?: number;
  /** CommitLimit as a percentage of RAM (swap comes on top). Give this or `limitBytes`. */
  ratio?: number;
  /**
   * What strict overcommit holds back from processes without CAP_SYS_ADMIN, in bytes. In mode 2, which Node itself has
   * to live in, 64 MiB unless the system has more; otherwise it stays.
   */
  adminReserveBytes?: number;
}

/** Limits of a cgroup. Give one or both. */
export interface CgroupSpec {
  /** memory.max (v1: memory.limit_in_bytes, and as much with swap): a multiple of the page size. */
  memoryMaxBytes?: number;
  /** pids.max: how many tasks it may have. */
  pidsMax?: number;
}

/** What a Machine on the kernel may change of the system, which is put back when it is closed or dies. */
export type SystemChange = 'overcommit' | 'hugetlb' | 'ksm' | 'swap' | 'cgroup';

export interface Machine extends AsyncDisposable {
  readonly facts: HostFacts;
  readonly root: Process;
  /** Every process that was ever there, in order of birth. */
  readonly processes: readonly Process[];
  readonly trace: Trace;
  createMemfd(pages: number): Promise<MemoryObject>;
  createFile(pages: number): Promise<MemoryObject>;
  /**
   * Sets vm.overcommit_memory for the whole system.
   * @throws FeatureUnavailableError (rejects) unless the machine was opened with this change allowed.
   */
  setOvercommit(spec: OvercommitSpec): Promise<void>;
  /**
   * Sets vm.nr_hugepages, the pool of hugetlb pages, for the whole system, while no process has a region of them.
   * @returns How many the pool holds then: fewer where the kernel finds no more memory in one piece.
   * @throws FeatureUnavailableError (rejects) unless the machine was opened with this change allowed.
   */
  setHugetlbPages(pages: number): Promise<number>;
  /**
   * Has ksmd merge equal pages of mergeable memory (advice 'mergeable') of all processes, and stop when it finds no more:
   * pages of a Machine hold zeros, or what its writes leave. Any number may share one page (max_page_sharing is raised).
   * @throws FeatureUnavailableError (rejects) unless the machine was opened with this change allowed.
   */
  mergePages(): Promise<void>;
  /**
   * Adds swap to the whole system, once a machine: a file of so many pages, one of which is its header's. Then advice
   * 'pageout' sends pages of private anonymous memory there. Half of it stays free: so much may be paged out in all. A
   * machine with swap has no limited cgroup, and merges no pages: what is in swap of these has not been modelled.
   * @throws FeatureUnavailableError (rejects) unless the machine was opened with this change allowed, on kernels before
   * 6.18, and where there is swap already or zswap: what the kernel does then has not been tried.
   */
  addSwap(pages: number): Promise<void>;
  /** The memory of the whole system as it is now. */
  readMemory(): Promise<SystemMemory>;
  /**
   * Makes a cgroup with limits, once a machine; processes come into it by joinCgroup. One that the OOM killer ends there
   * is not alive after the step in which that happens.
   * @throws FeatureUnavailableError (rejects) unless the machine was opened with this change allowed.
   */
  limitCgroup(spec: CgroupSpec): Promise<void>;
  /** A barrier: every process is parked while all are observed. */
  observe(label: string): Promise<Observation>;
  close(): Promise<void>;
}
