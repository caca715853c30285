/** A process tree looked at again and again: what each uses, and what it may have copied since it was forked. */
import { native } from '../native.js';
import { or, requireBoolean, requireInteger, requireObject, requireShare } from '../schema/arguments.js';
import { descendantsOf, isZombie, noMemoryError, sumMemory, tryProcess } from './process-tree.js';
import type { TreeMemory } from './process-tree.js';
import { PROC_ROOT, readPidFile } from './read.js';
import { ReadingPace } from './reading-pace.js';
import { parseStat, parseStatHead, readStat, readUptimeTicks } from './stat.js';
import type { Stat, StatHead } from './stat.js';
import { Strangers } from './strangers.js';
import { MemoryReader, WatchedProcess } from './watched-process.js';
import type { BrokenSharing, Change, WatchedMemory } from './watched-process.js';

export interface TreeSample extends TreeMemory {
  /** Since the watch began. */
  elapsedMs: number;
  /** What this look itself took. */
  costMs: number;
  /**
   * How long the memory of one process was read at most; 0 if none was. The kernel holds its mmap lock meanwhile, so that
   * it may have to wait when it maps or unmaps; its faults go on [fs/proc/task_mmu.c: show_smaps_rollup, m_start].
   */
  longestReadMs: number;
  processes: WatchedMemory[];
  /** Of another user, or not to be read for another reason: they are missing in every figure. */
  unreadable: number[];
}

export interface WatchOptions {
  /** A process that is left out with all its descendants: the one that watches. Default none. */
  exclude?: number;
  /** The share of one core that looking may take, above 0 and up to 1. Default 0.05. With 1 it takes what it takes. */
  maxLoad?: number;
}

/** For how long at most the memory of a tree is not read again while it rests. */
const REST_MS = 1000;
const DEFAULT_MAX_LOAD = 0.05;

/** Who is in the tree now. */
interface Look {
  tree: readonly Stat[];
  change: Change;
  /** A process has become another program, which shares nothing with the rest. */
  executed: boolean;
}

/**
 * Looks at a process, all that descend from it, and what they leave behind when they end. No process is stopped; nothing
 * is written to, and no page is touched. It works on one's own processes.
 *
 * Every look says who is there and how many faults each had. To read memory is what a look costs: it is read as one, of
 * all in the same look, or not at all, so that the sum of Pss is that of one time, and each row says how old it is.
 * - It is read at once when a process was forked, has ended or become another program, and in the first look.
 * - A tree rests as long as nobody in it has a fault or gives memory back. Then the memory of a process changes only by what
 *   others outside do to pages that they share with it, and is read once a second.
 * - Else it is read as soon as the last reading and the looks since are below `maxLoad`: in each look that is not too soon
 *   after the one before, if the tree is small.
 *
 * `copiedKb` is a bound, since only page frames tell whose copy a page is, and they are shown to root alone. It is
 * nearly exact for who writes, or counts references, while the others are quiet. It misses what is copied while a child
 * lives that comes and goes between two samples and leaves no zombie, since its parent ignores SIGCHLD.
 */
export class TreeWatch {
  readonly #memory = new MemoryReader();
  readonly #pace: ReadingPace;
  readonly #exclude: number;
  readonly #known = new Map<number, WatchedProcess>();
  readonly #roots: Set<number>;
  readonly #broken: BrokenSharing[] = [];
  readonly #strangers = new Strangers();
  #first = true;
  /** Who had ended at the last look and had not been waited for, with the start of each. */
  #zombies = new Map<number, number>();
  /** Who could not be read at the last look, with the start of each. */
  #unreadable = new Map<number, number>();
  /** When the last look ended, as startTicks has it. */
  #lookedTicks = 0;
  /** Something has stirred since memory was read. */
  #isStale = false;
  #readMs = 0;
  #longestReadMs = 0;
  #deferred = 0;

  /**
   * @param root The process to begin with.
   * @throws SystemError ESRCH: there is no such process; EACCES: it may not be read by this user.
   * @throws FeatureUnavailableError when it has no memory (a kernel thread, a zombie).
   */
  constructor(root: number, options: WatchOptions = {}) {
    requireInteger('root', root, 1, 2 ** 31 - 1);
    requireObject('options', options);
    this.#exclude = requireInteger('exclude', or(options.exclude, 0), 0, 2 ** 31 - 1);
    this.#pace = new ReadingPace(requireShare('maxLoad', or(options.maxLoad, DEFAULT_MAX_LOAD)));
    if (readPidFile(root, 'maps') === '') throw noMemoryError(`The memory of ${String(root)}`);
    this.#roots = new Set([root]);
  }

  /**
   * What the tree uses now; without processes when all have ended.
   * @param options `whole`: its memory is read now, whatever that takes, as one wants it of the last sample.
   */
  sample(options: { whole?: boolean } = {}): TreeSample {
    const start = performance.now();
    this.#longestReadMs = 0;
    const look = this.#find();
    const reads = requireBoolean('whole', or(options.whole, false)) || this.#isToRead(look);
    if (reads) {
      this.#isStale = false;
      this.#readMs = start;
    }
    const unreadable = new Map<number, number>();
    const processes = look.tree.flatMap((stat): WatchedMemory[] => {
      const seen = tryProcess(() => this.#look(stat, look, reads));
      if (seen === 'unreadable') unreadable.set(stat.pid, stat.starttimeTicks);
      return typeof seen === 'object' ? [seen] : [];
    });
    this.#unreadable = unreadable;
    this.#first = false;
    this.#lookedTicks = readUptimeTicks();
    const costMs = performance.now() - start;
    this.#pace.settle(costMs, reads);
    return {
      elapsedMs: start - this.#memory.beganMs,
      costMs,
      longestReadMs: this.#longestReadMs,
      processes,
      ...sumMemory(processes),
      unreadable: [...unreadable.keys()],
    };
  }

  /** Which sharing was broken so far, most first, of processes that have ended too. */
  get broken(): BrokenSharing[] {
    const all = [...this.#broken, ...[...this.#known.values()].flatMap(({ broken }) => broken)];
    return all.sort((a, b) => b.lostKb - a.lostKb);
  }

  /** In how many samples so far memory was not read to keep below `maxLoad`, though something had stirred. */
  get deferred(): number {
    return this.#deferred;
  }

  #find(): Look {
    const heads = native()
      .readStats(PROC_ROOT, this.#strangers.known())
      .map((text) => parseStatHead(text));
    const tree = this.#treeOf(heads.filter((head) => !isZombie(head)));
    const members = new Set(tree.map(({ pid }) => pid));
    const zombies = heads
      .filter((head) => isZombie(head) && members.has(head.parent))
      .map(({ text }) => parseStat(text));
    const others = heads.filter(({ pid, parent }) => !members.has(pid) && !members.has(parent));
    this.#strangers.add(others.map(({ pid }) => pid));
    const newborn = [
      ...tree.filter(({ pid, starttimeTicks }) => {
        return !this.#known.has(pid) && this.#unreadable.get(pid) !== starttimeTicks;
      }),
      ...zombies.filter((stat) => !this.#known.get(stat.pid)?.is(stat) && !this.#wasZombie(stat)),
    ];
    this.#zombies = new Map(zombies.map(({ pid, starttimeTicks }) => [pid, starttimeTicks]));
    const change = {
      born: newborn.length > 0,
      bornEarly: newborn.some(({ starttimeTicks }) => starttimeTicks <= this.#lookedTicks),
      left: this.#forget(tree),
    };
    const readable = tree.filter(({ pid }) => !this.#unreadable.has(pid));
    if (readable.some((stat) => this.#known.get(stat.pid)?.hasStirred(stat))) this.#isStale = true;
    return { tree, change, executed: readable.some((stat) => this.#known.get(stat.pid)?.hasExecuted(stat)) };
  }

  #wasZombie({ pid, starttimeTicks }: Stat): boolean {
    return this.#zombies.get(pid) === starttimeTicks;
  }

  /** Those known before remain ours when their parent ends and another process inherits them. */
  #treeOf(all: readonly StatHead[]): Stat[] {
    const known = new Map(all.filter(({ pid }) => this.#known.has(pid)).map(({ pid, text }) => [pid, parseStat(text)]));
    const ours = [...known.values()].filter((stat) => this.#known.get(stat.pid)?.is(stat));
    const roots = this.#first ? this.#roots : new Set(ours.map(({ pid }) => pid));
    const excluded = new Set(this.#exclude === 0 ? [] : descendantsOf(this.#exclude, all));
    const tree = descendantsOf(roots, all).filter((head) => !excluded.has(head));
    return tree.map(({ pid, text }) => known.get(pid) ?? parseStat(text));
  }

  /** Drops who has ended, or whose pid is another's by now. @returns Whether there was one. */
  #forget(tree: readonly Stat[]): boolean {
    const before = this.#known.size;
    const stats = new Map(tree.map((stat) => [stat.pid, stat]));
    for (const [pid, known] of this.#known) {
      const stat = stats.get(pid);
      if (stat && known.is(stat)) continue;
      this.#broken.push(...known.broken);
      this.#known.delete(pid);
    }
    return this.#known.size < before;
  }

  #isToRead({ change: { born, left }, executed }: Look): boolean {
    if (this.#first || born || left || executed) return true;
    if (!this.#isStale && performance.now() - this.#readMs < REST_MS) return false;
    const isDue = this.#pace.isDue();
    if (this.#isStale && !isDue) this.#deferred++;
    return isDue;
  }

  #look(found: Stat, look: Look, readsAll: boolean): WatchedMemory | 'gone' {
    const { pid } = found;
    const nowMs = performance.now();
    const readBeforeMs = this.#memory.spentMs;
    // Who could not be read is tried again each time: it may have become another program.
    const reads = readsAll || this.#unreadable.has(pid);
    const before = this.#known.get(pid);
    const stat = reads && before?.hasStirred(found) !== false ? readStat(pid) : found;
    // It has just had a fault: who was read before that in this look is to be read again.
    if (stat.minflt !== found.minflt || stat.majflt !== found.majflt) this.#isStale = true;
    const known = before && !before.hasExecuted(stat) ? before : this.#meet(stat, before, look);
    if (known === before) {
      known.notice(stat, look.change);
      if (reads) known.readMappings(look.change.left);
    }
    if (reads || known !== before) known.readFigures(nowMs);
    this.#longestReadMs = Math.max(this.#longestReadMs, this.#memory.spentMs - readBeforeMs);
    return known.row(nowMs) ?? 'gone';
  }

  #meet(stat: Stat, before: WatchedProcess | undefined, { tree }: Look): WatchedProcess {
    const hasChild = tree.some(({ ppid }) => ppid === stat.pid);
    const known = new WatchedProcess(stat, { before, wasThere: this.#first, hasChild }, this.#memory);
    this.#known.set(stat.pid, known);
    return known;
  }
}
