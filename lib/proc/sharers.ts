/** Whom a process shares its memory with: which other processes map the same pages. */
import { SystemError } from '../errors.js';
import { native } from '../native.js';
import { bounds, sum } from '../schema/figure.js';
import type { Figure } from '../schema/figure.js';
import { PAGE_STATES, readPageStates, readPagemap } from './pagemap.js';
import { noMemoryError, readProcesses, tryProcess } from './process-tree.js';
import { readPidFile } from './read.js';
import { parseSmaps, readSmaps, sumKb } from './smaps.js';
import type { SmapsVma } from './smaps.js';
import { readStat } from './stat.js';

export type Relation = 'parent' | 'child' | 'sibling' | 'ancestor' | 'descendant' | 'other';

export interface Sharer {
  pid: number;
  comm: string;
  /** What it is to the process that is looked at. */
  relation: Relation;
  /** Pages of the one that is looked at which this one maps too: exact by page frames, at most so many without. */
  pages: Figure;
}

export interface SharedMapping {
  vma: SmapsVma;
  /** Private_Clean, Private_Dirty, Private_Hugetlb: mapped by this process alone. */
  ownKb: number;
  /** Shared_Clean, Shared_Dirty, Shared_Hugetlb: mapped more than once. */
  sharedKb: number;
  sharedWith: Sharer[];
  /**
   * Shared pages that were found in no other process: in one that may not be read, or moved to other addresses there.
   * Only by page frames, and not of mappings beyond 2^24 pages, which are not looked through.
   */
  elsewherePages: Figure;
}

export interface MemorySharing {
  pid: number;
  comm: string;
  pageSizeBytes: number;
  /** In address order. */
  mappings: SharedMapping[];
  /** Over all mappings, those with most pages first. */
  sharers: Sharer[];
  /** Processes that may not be read by this user, whose part is not known. */
  unreadable: number;
  /** Whether page frames could be read (CAP_SYS_ADMIN), so that all is exact. */
  byFrames: boolean;
}

/** Pages of a mapping that are looked through one by one; sparse ones of terabytes would take minutes. */
const MAX_PAGES = 2 ** 24;
const TOO_LARGE = 'it is larger than 64 GiB of pages of 4 KiB, too large to be looked through page by page';

const WHY_UNKNOWN = 'page frames, which tell whether two pages are one, are shown with CAP_SYS_ADMIN only';

/** Where a VMA lies in what two processes may have in common: in its file, or at its addresses if it has none. */
interface Extent {
  vma: SmapsVma;
  /** In pages. */
  first: number;
  end: number;
}

function extentOf(vma: SmapsVma, unit: number): Extent {
  const first = Number(vma.inode === 0n ? vma.start : vma.offset) / unit;
  return { vma, first, end: first + Number(vma.end - vma.start) / unit };
}

function objectOf({ inode, device }: SmapsVma): string {
  return inode === 0n ? 'anonymous' : `${device} ${String(inode)}`;
}

function mayBeShared(vma: SmapsVma): boolean {
  return sumKb(vma, SHARED_FIELDS) > 0;
}

function isTooLarge({ first, end }: Extent): boolean {
  return end - first > MAX_PAGES;
}

/** One mapping of the process that is looked at. */
class Candidate {
  readonly extent: Extent;
  readonly found = new Map<number, Figure>();
  readonly #pid: number;
  /** Which pages others may map too. */
  readonly #mayBeShared: Uint8Array;
  /** The process that a page was found in last, or 0: some map a page of ours twice. */
  readonly #foundIn: Int32Array;

  constructor(pid: number, extent: Extent) {
    const { vma, first, end } = extent;
    this.extent = extent;
    this.#pid = pid;
    const states = readPageStates(pid, { address: vma.start, pages: end - first });
    const [shared, unknown] = [PAGE_STATES.indexOf('shared'), PAGE_STATES.indexOf('unknown')];
    this.#mayBeShared = states.map((state) => (state === shared || state === unknown ? 1 : 0));
    this.#foundIn = new Int32Array(states.length);
  }

  /** Looks for our pages in a VMA of another process. */
  compare(pid: number, other: Extent, byFrames: boolean, unit: number): void {
    const first = Math.max(this.extent.first, other.first);
    const pages = Math.min(this.extent.end, other.end) - first;
    if (pages <= 0) return;
    const [ours, theirs] = [this.extent, other].map(({ vma, first: from }) => ({
      address: vma.start + BigInt((first - from) * unit),
      pages,
    })) as [Range, Range];
    const offset = first - this.extent.first;
    const same = byFrames ? this.#sameFrames(pid, ours, theirs, offset) : this.#bothShared(pid, theirs, offset);
    if (same === 0) return;
    const figure: Figure = byFrames ? same : { min: 0, max: same, why: WHY_UNKNOWN };
    this.found.set(pid, sum([this.found.get(pid) ?? 0, figure]));
  }

  /** Pages that are one and the same frame [Documentation/admin-guide/mm/pagemap.rst: bits 0-54, 63 present]. */
  #sameFrames(pid: number, ours: Range, theirs: Range, offset: number): number {
    const a = new Uint32Array(readPagemap(this.#pid, ours).buffer);
    const b = new Uint32Array(readPagemap(pid, theirs).buffer);
    let same = 0;
    for (let page = 0; page < ours.pages; page++) {
      if (!this.#isToFind(pid, offset + page)) continue;
      const [high, otherHigh] = [a[2 * page + 1] ?? 0, b[2 * page + 1] ?? 0];
      const present = (high & otherHigh) >>> 31 === 1;
      if (!present || a[2 * page] !== b[2 * page] || ((high ^ otherHigh) & 0x7fffff) !== 0) continue;
      this.#foundIn[offset + page] = pid;
      same++;
    }
    return same;
  }

  /** Pages that both share with somebody. */
  #bothShared(pid: number, theirs: Range, offset: number): number {
    const states = readPageStates(pid, theirs);
    const [shared, unknown] = [PAGE_STATES.indexOf('shared'), PAGE_STATES.indexOf('unknown')];
    let both = 0;
    for (const [page, state] of states.entries()) {
      if ((state !== shared && state !== unknown) || !this.#isToFind(pid, offset + page)) continue;
      this.#foundIn[offset + page] = pid;
      both++;
    }
    return both;
  }

  #isToFind(pid: number, page: number): boolean {
    return this.#mayBeShared[page] === 1 && this.#foundIn[page] !== pid;
  }

  /** Shared pages that nobody has been found for. */
  get unseen(): number {
    return this.#mayBeShared.reduce((total, may, page) => total + (may === 1 && this.#foundIn[page] === 0 ? 1 : 0), 0);
  }
}

interface Range {
  address: bigint;
  pages: number;
}

/** The mappings that others may share, to be found by what they map. */
class Candidates {
  readonly all = new Map<SmapsVma, Candidate>();
  readonly #byObject = new Map<string, Candidate[]>();

  constructor(
    pid: number,
    vmas: readonly SmapsVma[],
    readonly unit: number,
  ) {
    for (const vma of vmas) {
      const extent = extentOf(vma, unit);
      if (!mayBeShared(vma) || isTooLarge(extent)) continue;
      const candidate = new Candidate(pid, extent);
      this.all.set(vma, candidate);
      const object = objectOf(vma);
      const list = this.#byObject.get(object);
      if (list) list.push(candidate);
      else this.#byObject.set(object, [candidate]);
    }
    for (const list of this.#byObject.values()) list.sort((a, b) => a.extent.first - b.extent.first);
  }

  /** Compares with all that another process maps. */
  compare(pid: number, vmas: readonly SmapsVma[], byFrames: boolean): void {
    for (const vma of vmas) {
      const list = this.#byObject.get(objectOf(vma));
      if (!list) continue;
      const other = extentOf(vma, this.unit);
      // Of a file there may be several mappings of one place: those that begin before ours may still reach into it.
      for (const candidate of objectOf(vma) === 'anonymous' ? overlapping(list, other) : list) {
        candidate.compare(pid, other, byFrames, this.unit);
      }
    }
  }
}

/** Those of an ordered list without overlaps that reach into an extent. */
function* overlapping(list: readonly Candidate[], { first, end }: Extent): Generator<Candidate> {
  let [low, high] = [0, list.length];
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((list[middle]?.extent.end ?? 0) <= first) low = middle + 1;
    else high = middle;
  }
  for (let index = low; index < list.length; index++) {
    const candidate = list[index];
    if (!candidate || candidate.extent.first >= end) return;
    yield candidate;
  }
}

const SHARED_FIELDS = ['Shared_Clean', 'Shared_Dirty', 'Shared_Hugetlb'];
const PRIVATE_FIELDS = ['Private_Clean', 'Private_Dirty', 'Private_Hugetlb'];

/** What `other` is to `pid`. Pure. @param parents The parent of each process. */
export function relationOf(pid: number, other: number, parents: ReadonlyMap<number, number>): Relation {
  const descends = (from: number, to: number): boolean => {
    const seen = new Set<number>();
    // Of processes that came and went while they were read, some may have become their own ancestors.
    for (let at = parents.get(from); at !== undefined && !seen.has(at); at = parents.get(at)) {
      if (at === to) return true;
      seen.add(at);
    }
    return false;
  };
  if (parents.get(pid) === other) return 'parent';
  if (parents.get(other) === pid) return 'child';
  if (descends(pid, other)) return 'ancestor';
  if (descends(other, pid)) return 'descendant';
  return parents.get(other) === parents.get(pid) ? 'sibling' : 'other';
}

/**
 * Which memory of a process is its own and which is shared, and with whom. No process is stopped: what they map or write
 * meanwhile is seen in between. Anonymous memory is looked for at the same addresses, where a fork leaves it, and files
 * and shared memory at the same place of the file.
 * @param options `frames: false` does as who may not read page frames.
 * @throws SystemError ESRCH: there is no such process; EACCES: it may not be read by this user.
 * @throws FeatureUnavailableError when it has no memory (a kernel thread, a zombie).
 */
export function readSharing(pid: number, options: { frames?: boolean } = {}): MemorySharing {
  const byFrames = (options.frames ?? true) && native().probe().pageFrameNumbers === 0;
  const unit = native().pageSizeBytes;
  const { comm, starttimeTicks } = readStat(pid);
  const vmas = readSmaps(pid);
  if (vmas.length === 0) throw noMemoryError(`The memory of ${String(pid)} (${comm})`);
  const candidates = new Candidates(pid, vmas, unit);
  const processes = new Map(readProcesses().map((process) => [process.pid, process]));
  let unreadable = 0;
  for (const other of processes.keys()) {
    if (other === pid) continue;
    const outcome = tryProcess(() => {
      // The lines of maps are the first lines of the records of smaps, which cost far more to make.
      candidates.compare(other, parseSmaps(readPidFile(other, 'maps'), 'maps'), byFrames);
    });
    if (outcome === 'unreadable') unreadable++;
  }
  // Had it ended, every comparison after that would have been left out as if the other had.
  if (readStat(pid).starttimeTicks !== starttimeTicks) {
    throw new SystemError({ code: 'ESRCH', errno: -3, syscall: 'read', message: `process ${String(pid)} has ended` });
  }
  const parents = new Map([...processes.values()].map(({ pid: child, parent }) => [child, parent]));
  const sharer = (other: number, pages: Figure): Sharer => ({
    pid: other,
    comm: processes.get(other)?.comm ?? '',
    relation: relationOf(pid, other, parents),
    pages,
  });
  const elsewhere = (vma: SmapsVma, candidate: Candidate | undefined): Figure => {
    if (!mayBeShared(vma)) return 0;
    if (!candidate) return { unknown: TOO_LARGE };
    return byFrames ? candidate.unseen : { unknown: WHY_UNKNOWN };
  };
  const inAll = new Map<number, Figure[]>();
  const mappings = vmas.map((vma): SharedMapping => {
    const candidate = candidates.all.get(vma);
    const found = [...(candidate?.found ?? [])].map(([other, pages]) => sharer(other, pages)).sort(mostFirst);
    for (const one of found) inAll.set(one.pid, [...(inAll.get(one.pid) ?? []), one.pages]);
    return {
      vma,
      ownKb: sumKb(vma, PRIVATE_FIELDS),
      sharedKb: sumKb(vma, SHARED_FIELDS),
      sharedWith: found,
      elsewherePages: elsewhere(vma, candidate),
    };
  });
  const sharers = [...inAll].map(([other, figures]) => sharer(other, sum(figures))).sort(mostFirst);
  return { pid, comm, pageSizeBytes: unit, mappings, sharers, unreadable, byFrames };
}

function mostFirst(a: Sharer, b: Sharer): number {
  return bounds(b.pages).max - bounds(a.pages).max || a.pid - b.pid;
}
