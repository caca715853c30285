/** A process tree looked at again and again: what each uses, and what it may have copied since it was forked. */
import { native } from '../native.js';
import { requireInteger } from '../schema/arguments.js';
import type { Figure } from '../schema/figure.js';
import { inheritedVmas, lostSharing, sharedParts } from './copied.js';
import type { LostSharing, SharedPart } from './copied.js';
import {
  descendantsOf,
  isZombie,
  memoryFigures,
  noMemoryError,
  readStats,
  sumMemory,
  treeProcess,
  tryProcess,
} from './process-tree.js';
import type { ProcessMemory, TreeMemory, TreeProcess } from './process-tree.js';
import { readPidFile } from './read.js';
import { parseSmaps, parseSmapsRollup, privateKb, sharedKb } from './smaps.js';
import type { SmapsRollup } from './smaps.js';
import { readStat, readUptimeTicks } from './stat.js';
import type { Stat } from './stat.js';

export interface WatchedMemory extends ProcessMemory {
  /** Mapped by others too, files included. */
  sharedKb: number;
  /** Since it was first seen; since its fork, for one that was forked while the tree was watched. */
  minorFaults: number;
  /** Anonymous memory that was shared and that it has copied, since then. A bound: {@link TreeWatch}. */
  copiedKb: Figure;
  /** How old its Rss, Pss, USS and shared memory are: 0, or up to REST_MS while the tree rests ({@link TreeWatch}). */
  ageMs: number;
}

export interface TreeSample extends TreeMemory {
  /** Since the watch began. */
  elapsedMs: number;
  /** What this look itself took. */
  costMs: number;
  /**
   * How long the memory of one process was read at most. The kernel holds its mmap lock meanwhile, so that it may have
   * to wait when it maps or unmaps; its faults go on [fs/proc/task_mmu.c: show_smaps_rollup, m_start].
   */
  longestReadMs: number;
  processes: WatchedMemory[];
  /** Of another user, or not to be read for another reason: they are missing in every figure. */
  unreadable: number[];
}

/**
 * A mapping of a process that was shared and is so no longer, or not as much: `lostKb` is what stopped being shared, from
 * sample to sample, but no more than the process had faults meanwhile, without which it has copied nothing.
 */
export interface BrokenSharing extends LostSharing {
  pid: number;
  comm: string;
  /** The program is CPython, going by its name. */
  isPython: boolean;
  /** When it was seen first and last that some had been lost, after the watch began. */
  fromMs: number;
  toMs: number;
}

const WHY_BOUND =
  'a page stops being shared when this process copies it, and when the others write theirs or end as well; at most as ' +
  'many were copied as there were faults';

/** For how long at most the memory of a process is not read again while its tree rests. */
const REST_MS = 1000;

/** The memory of a process as it was read last. */
interface LastRead {
  atMs: number;
  rollup: SmapsRollup;
  /** Its size and what is resident of it [statm]: memory that was given back shows there, and no fault does. */
  statm: string;
}

/** What has become of the tree since the last look. */
interface Change {
  tree: readonly TreeProcess[];
  /** Something was forked. */
  born: boolean;
  /** Something was forked before the last look had ended, which did not see it yet. */
  bornEarly: boolean;
  /** Something has ended. */
  left: boolean;
}

/** What is remembered of a process. */
interface Known {
  process: TreeProcess;
  /** Changes with execve: then nothing is inherited any more. */
  image: string;
  faultsAtFirst: number;
  /** Right before `parts` was read. */
  faults: number;
  parts: SharedPart[];
  copiedKb: number;
  broken: BrokenSharing[];
  /** Of children that it has waited for: where they grow, one has ended that may never have been seen. */
  childFaults: number;
  /** Something was forked since `parts`: what was lost and what was shared anew cannot be told apart. */
  sharedAnew: boolean;
  /** What it had faults for and was not taken for copied, in the last look, if `parts` was read then. */
  uncountedKb: number;
  /** Minor and major faults at the last look. */
  allFaults: number;
  last: LastRead | undefined;
}

/** Where the program, its stack and its arguments lie, which are laid out anew by execve [proc_pid_stat(5)]. */
function imageOf({ fields }: Stat): string {
  return [26, 27, 28, 48, 51].map((field) => fields[field] ?? '').join(' ');
}

/**
 * Looks at a process, all that descend from it, and what they leave behind when they end. No process is stopped; nothing
 * is written to, and no page is touched. It works on one's own processes.
 *
 * `copiedKb` is a bound, since only page frames tell whose copy a page is, and they are shown to root alone. It is
 * nearly exact for who writes, or counts references, while the others are quiet. It misses what is copied while a child
 * lives that comes and goes between two samples and leaves no zombie, since its parent ignores SIGCHLD.
 *
 * A tree rests as long as nobody in it has a fault, is forked, or ends. To read memory is what a look costs, and the memory
 * of a process in a resting tree, if as much of it is resident as before, changes only by what others outside do to pages
 * that they share with it. So it is read once a second then, and each row says how old it is.
 */
export class TreeWatch {
  readonly #began = performance.now();
  readonly #exclude: number;
  readonly #known = new Map<number, Known>();
  readonly #roots: Set<number>;
  readonly #pageKb = native().pageSizeBytes / 1024;
  readonly #broken: BrokenSharing[] = [];
  #first = true;
  /** Who had ended at the last look and had not been waited for, with the start of each. */
  #zombies = new Map<number, number>();
  /** When the last look ended, as startTicks has it. */
  #lookedTicks = 0;
  /** When the tree was last seen not to rest. */
  #stirredMs = 0;
  #longestReadMs = 0;
  /** All reads of anybody's memory so far. */
  #readMs = 0;

  /**
   * @param root The process to begin with.
   * @param exclude A process that is left out with all its descendants: the one that watches. None without it.
   * @throws SystemError ESRCH: there is no such process; EACCES: it may not be read by this user.
   * @throws FeatureUnavailableError when it has no memory (a kernel thread, a zombie).
   */
  constructor(root: number, exclude = 0) {
    requireInteger('root', root, 1, 2 ** 31 - 1);
    requireInteger('exclude', exclude, 0, 2 ** 31 - 1);
    if (readPidFile(root, 'maps') === '') throw noMemoryError(`The memory of ${String(root)}`);
    this.#roots = new Set([root]);
    this.#exclude = exclude;
  }

  /** What the tree uses now; without processes when all have ended. */
  sample(): TreeSample {
    const start = performance.now();
    this.#longestReadMs = 0;
    const stats = new Map(readStats().map((stat) => [stat.pid, stat]));
    const change = this.#findChange([...stats.values()]);
    const { tree, born, left } = change;
    const unreadable: number[] = [];
    const rested = new Map([...stats].filter(([, stat]) => this.#hasRested(stat)));
    if (born || left || !tree.every(({ pid }) => rested.has(pid))) this.#stirredMs = performance.now();
    const processes = tree.flatMap((process): WatchedMemory[] => {
      const seen = tryProcess(() => this.#look(process, rested.get(process.pid), change));
      if (seen === 'unreadable') unreadable.push(process.pid);
      return typeof seen === 'object' ? [seen] : [];
    });
    this.#first = false;
    this.#lookedTicks = readUptimeTicks();
    return {
      elapsedMs: start - this.#began,
      costMs: performance.now() - start,
      longestReadMs: this.#longestReadMs,
      processes,
      ...sumMemory(processes),
      unreadable,
    };
  }

  /** Which sharing was broken so far, most first, of processes that have ended too. */
  get broken(): BrokenSharing[] {
    const all = [...this.#broken, ...[...this.#known.values()].flatMap(({ broken }) => broken)];
    return all.sort((a, b) => b.lostKb - a.lostKb);
  }

  #findChange(stats: readonly Stat[]): Change {
    const tree = this.#treeOf(stats.filter((stat) => !isZombie(stat)).map(treeProcess));
    const members = new Set(tree.map(({ pid }) => pid));
    const zombies = stats.filter((stat) => isZombie(stat) && members.has(stat.ppid));
    const newborn = [
      ...tree.filter(({ pid }) => !this.#known.has(pid)),
      ...zombies.map(treeProcess).filter(({ pid, startTicks }) => {
        const known = this.#known.get(pid)?.process.startTicks ?? this.#zombies.get(pid);
        return known !== startTicks;
      }),
    ];
    this.#zombies = new Map(zombies.map(({ pid, starttimeTicks }) => [pid, starttimeTicks]));
    return {
      tree,
      born: newborn.length > 0,
      bornEarly: newborn.some(({ startTicks }) => startTicks <= this.#lookedTicks),
      left: this.#forget(tree),
    };
  }

  /** Those known before remain ours when their parent ends and another process inherits them. */
  #treeOf(all: readonly TreeProcess[]): TreeProcess[] {
    const ours = all.filter(({ pid, startTicks }) => this.#known.get(pid)?.process.startTicks === startTicks);
    const roots = this.#first ? this.#roots : new Set(ours.map(({ pid }) => pid));
    const tree = descendantsOf(roots, all);
    if (this.#exclude === 0) return tree;
    const excluded = new Set(descendantsOf(this.#exclude, all).map(({ pid }) => pid));
    return tree.filter(({ pid }) => !excluded.has(pid));
  }

  /** Drops who has ended, or whose pid is another's by now. @returns Whether there was one. */
  #forget(tree: readonly TreeProcess[]): boolean {
    const before = this.#known.size;
    const starts = new Map(tree.map(({ pid, startTicks }) => [pid, startTicks]));
    for (const [pid, { process, broken }] of this.#known) {
      if (starts.get(pid) === process.startTicks) continue;
      this.#broken.push(...broken);
      this.#known.delete(pid);
    }
    return this.#known.size < before;
  }

  /** Whether a process has had no fault since the last look. */
  #hasRested({ pid, minflt, majflt }: Stat): boolean {
    return minflt + majflt === this.#known.get(pid)?.allFaults;
  }

  /** @param rested What it showed a moment ago, if it had no fault until then. */
  #look(process: TreeProcess, rested: Stat | undefined, change: Change): WatchedMemory {
    const { pid } = process;
    const readBefore = this.#readMs;
    const stat = rested ?? readStat(pid);
    const known = this.#update(process, stat, change);
    const now = performance.now();
    const allFaults = stat.minflt + stat.majflt;
    // It has just had one: who was read before that in this look is read again in the next.
    if (allFaults !== known.allFaults) this.#stirredMs = now;
    known.allFaults = allFaults;
    const { rollup, atMs } = this.#readRollup(pid, known);
    this.#longestReadMs = Math.max(this.#longestReadMs, this.#readMs - readBefore);
    return {
      ...process,
      ...memoryFigures(rollup),
      sharedKb: sharedKb(rollup),
      minorFaults: known.faults - known.faultsAtFirst,
      copiedKb: known.copiedKb === 0 ? 0 : { min: 0, max: known.copiedKb, why: WHY_BOUND },
      ageMs: Math.max(0, now - atMs),
    };
  }

  #readRollup(pid: number, known: Known): LastRead {
    const statm = readPidFile(pid, 'statm');
    const now = performance.now();
    const { last } = known;
    const rested = last !== undefined && last.atMs > this.#stirredMs && last.statm === statm;
    if (rested && now - last.atMs < REST_MS) return last;
    return (known.last = { atMs: now, rollup: parseSmapsRollup(this.#readMemory(pid, 'smaps_rollup')), statm });
  }

  #update(process: TreeProcess, stat: Stat, { tree, born, bornEarly, left }: Change): Known {
    const known = this.#known.get(process.pid);
    const image = imageOf(stat);
    if (known?.image !== image) return this.#meet(process, stat, image, tree);
    known.process = process;
    const hasWaited = known.childFaults !== stat.cminflt;
    known.childFaults = stat.cminflt;
    known.sharedAnew ||= born || hasWaited;
    // What was forked while the last look went on had shared again by then what was copied before, which hides that.
    if (bornEarly || hasWaited) known.copiedKb += known.uncountedKb;
    known.uncountedKb = 0;
    const faultsKb = (stat.minflt - known.faults) * this.#pageKb;
    // Who has had no fault has copied nothing, and his mappings need not be read; but where one has ended, what it shared
    // is theirs alone from now on, which must not pass for copied at their next fault.
    if (faultsKb <= 0 && !left) return known;
    const vmas = parseSmaps(this.#readMemory(process.pid, 'smaps'));
    // It has just ended, and has no mappings any more.
    if (vmas.length === 0) return known;
    // What is copied while the mappings are read may be in them or not: its faults count before them and after.
    const mostKb = (readStat(process.pid).minflt - known.faults) * this.#pageKb;
    const parts = sharedParts(inheritedVmas(vmas));
    const lost = lostSharing(known.parts, parts);
    const lostKb = lost.reduce((all, one) => all + one.lostKb, 0);
    const countedKb = known.sharedAnew ? mostKb : Math.min(lostKb, mostKb);
    known.copiedKb += countedKb;
    for (const one of mostKb > 0 ? lost : []) {
      this.#record(known, { ...one, lostKb: Math.min(one.lostKb, mostKb) });
    }
    Object.assign(known, { parts, faults: stat.minflt, sharedAnew: false, uncountedKb: mostKb - countedKb });
    return known;
  }

  /** Sees a process for the first time, or the first time after execve. */
  #meet(process: TreeProcess, stat: Stat, image: string, tree: readonly TreeProcess[]): Known {
    const before = this.#known.get(process.pid);
    const inherited = inheritedVmas(parseSmaps(this.#readMemory(process.pid, 'smaps')));
    const wasForked = !this.#first && !before;
    const now = readStat(process.pid);
    // The faults of a child count from its fork [kernel/fork.c: copy_signal]. What it has copied by now is private, if it
    // has not shared it again with children of its own.
    const hasForked = now.cminflt > 0 || tree.some(({ parent }) => parent === process.pid);
    const ownKb = inherited.reduce((all, vma) => all + privateKb(vma), 0);
    const mostKb = now.minflt * this.#pageKb;
    const countedKb = hasForked ? mostKb : Math.min(ownKb, mostKb);
    const known: Known = {
      process,
      image,
      faultsAtFirst: before?.faultsAtFirst ?? (wasForked ? 0 : stat.minflt),
      faults: stat.minflt,
      parts: sharedParts(inherited),
      copiedKb: wasForked ? countedKb : (before?.copiedKb ?? 0),
      uncountedKb: wasForked ? mostKb - countedKb : 0,
      broken: before?.broken ?? [],
      childFaults: stat.cminflt,
      sharedAnew: false,
      allFaults: stat.minflt + stat.majflt,
      last: undefined,
    };
    this.#known.set(process.pid, known);
    return known;
  }

  #readMemory(pid: number, file: 'smaps' | 'smaps_rollup'): string {
    const start = performance.now();
    try {
      return readPidFile(pid, file);
    } finally {
      this.#readMs += performance.now() - start;
    }
  }

  #record({ process: { pid, comm }, broken }: Known, lost: LostSharing): void {
    const now = performance.now() - this.#began;
    const same = broken.find(({ start, end }) => start < lost.end && lost.start < end);
    if (!same) {
      broken.push({ ...lost, pid, comm, isPython: comm.startsWith('python'), fromMs: now, toMs: now });
      return;
    }
    same.lostKb += lost.lostKb;
    same.toMs = now;
    if (lost.start < same.start) same.start = lost.start;
    if (lost.end > same.end) same.end = lost.end;
  }
}
