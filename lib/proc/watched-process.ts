/** What is remembered of a process from look to look: what it shared when it was read, and what it may have copied since. */
import { native } from '../native.js';
import type { Figure } from '../schema/figure.js';
import { inheritedVmas, lostSharing, sharedParts } from './copied.js';
import type { LostSharing, SharedPart } from './copied.js';
import { memoryFigures, treeProcess } from './process-tree.js';
import type { ProcessMemory } from './process-tree.js';
import { readPidFile } from './read.js';
import { parseSmaps, parseSmapsRollup, privateKb, sharedKb } from './smaps.js';
import { readStat } from './stat.js';
import type { Stat } from './stat.js';

export interface WatchedMemory extends ProcessMemory {
  /** Mapped by others too, files included. */
  sharedKb: number;
  /** Since it was first seen; since its fork, for one that was forked while the tree was watched. */
  minorFaults: number;
  /**
   * Anonymous memory that was shared and that it has copied, since then. A bound: {@link TreeWatch}. While memory is not
   * read it counts each fault since as a copy, and becomes less again when it is read.
   */
  copiedKb: Figure;
  /**
   * How old its Rss, Pss, USS and shared memory are: 0 when they were read in this look, else since they were. Faults are
   * never old.
   */
  ageMs: number;
}

/**
 * A mapping of a process that was shared and is so no longer, or not as much: `lostKb` is what stopped being shared, from
 * one reading of its memory to the next, but no more than the process had faults meanwhile, without which it has copied
 * nothing.
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

/** What has become of the tree since the last look. */
export interface Change {
  /** Something was forked. */
  born: boolean;
  /** Something was forked before the last look had ended, which did not see it yet. */
  bornEarly: boolean;
  /** Something has ended. */
  left: boolean;
}

/** How a process is met. */
export interface Meeting {
  /** It, before execve. */
  before: WatchedProcess | undefined;
  /** It was there before the watch. */
  wasThere: boolean;
  /** A process of the tree is its child. */
  hasChild: boolean;
}

/** Reads the memory of others, and knows how long that took. */
export class MemoryReader {
  readonly beganMs = performance.now();
  /** All reads so far. */
  spentMs = 0;

  read(pid: number, file: 'smaps' | 'smaps_rollup'): string {
    const start = performance.now();
    try {
      return readPidFile(pid, file);
    } finally {
      this.spentMs += performance.now() - start;
    }
  }
}

const WHY_BOUND =
  'a page stops being shared when this process copies it, and when the others write theirs or end as well; at most as ' +
  'many were copied as there were faults';

/** Where the program, its stack and its arguments lie, which are laid out anew by execve [proc_pid_stat(5)]. */
const IMAGE_FIELDS = [26, 27, 28, 48, 51];

export class WatchedProcess {
  readonly broken: BrokenSharing[];
  readonly #memory: MemoryReader;
  readonly #pageKb = native().pageSizeBytes / 1024;
  /** At the last look. */
  #stat: Stat;
  readonly #faultsAtFirst: number;
  /** Right before `#parts` was read. */
  #faultsAtRead: number;
  #parts: SharedPart[];
  #copiedKb: number;
  /** Something was forked since `#parts`: what was lost and what was shared anew cannot be told apart. */
  #sharedAnew = false;
  /** Of its faults since `#parts`, what cannot be copies: more than it shared, before anything was shared anew. */
  #freshKb = 0;
  /** What it had faults for and was not taken for copied, in the last look, if `#parts` was read then. */
  #uncountedKb: number;
  #figures: (ReturnType<typeof memoryFigures> & { sharedKb: number }) | undefined;
  #figuresMs = 0;

  /** Sees it for the first time, or the first time after execve. */
  constructor(stat: Stat, { before, wasThere, hasChild }: Meeting, memory: MemoryReader) {
    const inherited = inheritedVmas(parseSmaps(memory.read(stat.pid, 'smaps')));
    const wasForked = !wasThere && !before;
    const now = readStat(stat.pid);
    // The faults of a child count from its fork [kernel/fork.c: copy_signal]. What it has copied by now is private, if it
    // has not shared it again with children of its own.
    const hasForked = now.cminflt > 0 || hasChild;
    const ownKb = inherited.reduce((all, vma) => all + privateKb(vma), 0);
    const mostKb = now.minflt * this.#pageKb;
    const countedKb = hasForked ? mostKb : Math.min(ownKb, mostKb);
    this.#memory = memory;
    this.#stat = stat;
    this.#faultsAtFirst = before ? before.#faultsAtFirst : wasForked ? 0 : stat.minflt;
    this.#faultsAtRead = stat.minflt;
    this.#parts = sharedParts(inherited);
    this.#copiedKb = wasForked ? countedKb : before ? before.#copiedKb + before.#unreadKb() : 0;
    this.#uncountedKb = wasForked ? mostKb - countedKb : 0;
    this.broken = before?.broken ?? [];
  }

  /** Whether it is that process, and no other with its pid. */
  is({ starttimeTicks }: Stat): boolean {
    return this.#stat.starttimeTicks === starttimeTicks;
  }

  /** Whether it has become another program: then nothing is inherited any more. */
  hasExecuted({ fields }: Stat): boolean {
    return IMAGE_FIELDS.some((field) => this.#stat.fields[field] !== fields[field]);
  }

  /** Whether it had a fault since the last look, or has less memory or more, or less of it is resident. */
  hasStirred({ minflt, majflt, vsizeBytes, rssPages }: Stat): boolean {
    const then = this.#stat;
    if (minflt !== then.minflt || majflt !== then.majflt) return true;
    return vsizeBytes !== then.vsizeBytes || rssPages !== then.rssPages;
  }

  /** What stat tells: without its memory being read. */
  notice(stat: Stat, { born, bornEarly }: Change): void {
    // Of children that it has waited for: one has ended that may never have been seen.
    const hasWaited = this.#stat.cminflt !== stat.cminflt;
    // What was forked since the last look had ended shares nothing of before: the bound of then holds for the faults of then.
    if (born && !bornEarly && !hasWaited && !this.#sharedAnew) this.#freshKb = this.#faultsKb() - this.#unreadKb();
    this.#sharedAnew ||= born || hasWaited;
    // What was forked while the last look went on had shared again by then what was copied before, which hides that.
    if (bornEarly || hasWaited) this.#copiedKb += this.#uncountedKb;
    this.#uncountedKb = 0;
    this.#stat = stat;
  }

  /** What it has lost of what it shared. @param left Something has ended since. */
  readMappings(left: boolean): void {
    // Who has had no fault has copied nothing, and his mappings need not be read; but where one has ended, what it shared
    // is theirs alone from now on, which must not pass for copied at their next fault.
    const { pid, minflt } = this.#stat;
    if (minflt === this.#faultsAtRead && !left) return;
    const vmas = parseSmaps(this.#memory.read(pid, 'smaps'));
    // It has just ended, and has no mappings any more.
    if (vmas.length === 0) return;
    // What is copied while the mappings are read may be in them or not: its faults count before them and after.
    const mostKb = (readStat(pid).minflt - this.#faultsAtRead) * this.#pageKb;
    const parts = sharedParts(inheritedVmas(vmas));
    const lost = lostSharing(this.#parts, parts);
    const lostKb = lost.reduce((all, one) => all + one.lostKb, 0);
    const countedKb = this.#sharedAnew ? mostKb - this.#freshKb : Math.min(lostKb, mostKb);
    this.#copiedKb += countedKb;
    for (const one of mostKb > 0 ? lost : []) this.#record({ ...one, lostKb: Math.min(one.lostKb, mostKb) });
    this.#parts = parts;
    this.#faultsAtRead = minflt;
    this.#sharedAnew = false;
    this.#uncountedKb = mostKb - this.#freshKb - countedKb;
    this.#freshKb = 0;
  }

  readFigures(nowMs: number): void {
    const rollup = parseSmapsRollup(this.#memory.read(this.#stat.pid, 'smaps_rollup'));
    this.#figures = { ...memoryFigures(rollup), sharedKb: sharedKb(rollup) };
    this.#figuresMs = nowMs;
  }

  /** Undefined until its figures have been read. */
  row(nowMs: number): WatchedMemory | undefined {
    if (!this.#figures) return undefined;
    const { rssKb, pssKb, ussKb, sharedKb: ofOthersKb } = this.#figures;
    const { pid, parent, startTicks, comm } = treeProcess(this.#stat);
    const copiedKb = this.#copiedKb + this.#unreadKb();
    // Not by spreading, which costs as much as all else of a look.
    return {
      pid,
      parent,
      startTicks,
      comm,
      rssKb,
      pssKb,
      ussKb,
      sharedKb: ofOthersKb,
      minorFaults: this.#stat.minflt - this.#faultsAtFirst,
      copiedKb: copiedKb === 0 ? 0 : { min: 0, max: copiedKb, why: WHY_BOUND },
      ageMs: nowMs - this.#figuresMs,
    };
  }

  #faultsKb(): number {
    return (this.#stat.minflt - this.#faultsAtRead) * this.#pageKb;
  }

  /** What it may have copied since its mappings were read: no more than it shared then, if none was shared anew. */
  #unreadKb(): number {
    const mostKb = this.#faultsKb() - this.#freshKb;
    if (mostKb === 0 || this.#sharedAnew) return mostKb;
    const hadKb = this.#parts.reduce((all, part) => all + part.sharedKb, 0);
    return Math.min(mostKb, hadKb);
  }

  #record(lost: LostSharing): void {
    const { broken } = this;
    const { pid, comm } = this.#stat;
    const now = performance.now() - this.#memory.beganMs;
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
