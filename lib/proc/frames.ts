/**
 * What a tree of processes really takes, by the identity of its pages: two processes have one page if the same page frame
 * stands behind it in both [Documentation/admin-guide/mm/pagemap.rst]. Only CAP_SYS_ADMIN sees frames.
 */
import { FeatureUnavailableError, SystemError } from '../errors.js';
import { native } from '../native.js';
import { appendRun, requireTarget, type PagemapRange } from './pagemap.js';
import { pidError } from './read.js';

/**
 * The page frame of each page, 0 where there is none of its own: not present, swapped out, or the zero page.
 * @throws FeatureUnavailableError where this process may not see frames; SystemError ESRCH, EACCES as readPagemap.
 */
export function readFrames(pid: number, range: PagemapRange): Float64Array {
  requireTarget(pid, range);
  const frames = new Float64Array(range.pages);
  try {
    native().readPages(pid, range.address, range.pages, true, true, new Uint8Array(range.pages), frames);
  } catch (error) {
    if (error instanceof SystemError && error.code === 'EPERM') {
      throw new FeatureUnavailableError(
        'The frames of pages',
        'they are shown with CAP_SYS_ADMIN only',
        'Run it as root.',
      );
    }
    throw pidError(error, pid, `/proc/${String(pid)}/pagemap`);
  }
  return frames;
}

/** The same memory in one process: page n of it is page n in all others. */
export interface FrameHolder extends PagemapRange {
  pid: number;
}

/**
 * What has become of a page of a process between two looks.
 * - kept: the frame that it or another of them had before; a child's inherited page is kept.
 * - copied: another than before, which others had too: the process has broken the sharing.
 * - replaced: another than before, which only this process had: given back and touched anew, or moved by the kernel.
 * - new: there was none before.
 * - gone: there is none any more.
 * - none: neither before nor now.
 */
export type PageFate = 'kept' | 'copied' | 'replaced' | 'new' | 'gone' | 'none';

/** Run-length encoded: [how many pages, their fate]. */
export type FateRuns = [number, PageFate][];

export interface ProcessFate {
  pid: number;
  counts: Record<PageFate, number>;
  runs: FateRuns;
}

/** The frames of the same memory in several processes at one moment; park them, or it is not one moment. */
export class FrameSnapshot {
  readonly #framesOf = new Map<number, Float64Array>();

  private constructor() {
    // By read() alone.
  }

  /** @throws As readFrames(). */
  static read(holders: Iterable<FrameHolder>): FrameSnapshot {
    const snapshot = new FrameSnapshot();
    for (const { pid, ...range } of holders) snapshot.#framesOf.set(pid, readFrames(pid, range));
    return snapshot;
  }

  /** How many different frames there are: the memory that all together really take, in pages. */
  get frames(): number {
    return countDifferent([...this.#framesOf.values()]);
  }

  /** What each process has done with its pages since an earlier look at the same memory. */
  since(before: FrameSnapshot): ProcessFate[] {
    const all = [...before.#framesOf.values()];
    return [...this.#framesOf].map(([pid, frames]) => {
      const own = before.#framesOf.get(pid);
      const counts: Record<PageFate, number> = { kept: 0, copied: 0, replaced: 0, new: 0, gone: 0, none: 0 };
      const runs: FateRuns = [];
      frames.forEach((frame, page) => {
        const fate = fateOf(frame, page, own, all);
        counts[fate]++;
        appendRun(runs, 1, fate);
      });
      return { pid, counts, runs };
    });
  }
}

/**
 * @param now The frame that the process has now.
 * @param own Its frames before; undefined for one that was born since, and so has had what the others had.
 */
function fateOf(now: number, page: number, own: Float64Array | undefined, all: readonly Float64Array[]): PageFate {
  const before = own?.[page] ?? 0;
  if (now === 0) return before === 0 ? 'none' : 'gone';
  if (holdersOf(now, page, all) > 0) return 'kept';
  if (own === undefined) return all.some((frames) => (frames[page] ?? 0) !== 0) ? 'copied' : 'new';
  if (before === 0) return 'new';
  return holdersOf(before, page, all) > 1 ? 'copied' : 'replaced';
}

function holdersOf(frame: number, page: number, all: readonly Float64Array[]): number {
  let holders = 0;
  for (const frames of all) if (frames[page] === frame) holders++;
  return holders;
}

/** Different frames, page by page: one that stands behind two different pages counts twice. */
function countDifferent(all: readonly Float64Array[]): number {
  const pages = Math.max(0, ...all.map(({ length }) => length));
  let count = 0;
  for (let page = 0; page < pages; page++) {
    for (let holder = 0; holder < all.length; holder++) {
      const frame = all[holder]?.[page] ?? 0;
      if (frame !== 0 && !hasEarlier(all, holder, page, frame)) count++;
    }
  }
  return count;
}

/** Pages looked at at a time: memory of terabytes must not need gigabytes of frame numbers. */
const PAGES_PER_LOOK = 2 ** 18;

/**
 * How many different frames stand behind the same memory in several processes, page by page.
 * @throws As readFrames().
 */
export function countFrames(holders: readonly FrameHolder[]): number {
  const pages = Math.max(0, ...holders.map((holder) => holder.pages));
  const unit = BigInt(native().pageSizeBytes);
  let count = 0;
  for (let first = 0; first < pages; first += PAGES_PER_LOOK) {
    const all = holders
      .filter((holder) => holder.pages > first)
      .map(({ pid, address, pages: length }) =>
        readFrames(pid, {
          address: address + BigInt(first) * unit,
          pages: Math.min(PAGES_PER_LOOK, length - first),
        }),
      );
    count += countDifferent(all);
  }
  return count;
}

/** Few enough that some pages alone do not take much: those of a region may lie anywhere. */
const FRAMES_PER_BLOCK = 2 ** 15;

/**
 * Different frames, of any number of processes: one that stands behind several pages (KSM) counts once all the same. A bit
 * each, so that it takes little however much there is.
 */
export class FrameSet {
  readonly #blocks: (Uint32Array | undefined)[] = [];
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** @param frames Those of some pages, 0 for none. */
  add(frames: Float64Array): void {
    for (const frame of frames) {
      if (frame === 0) continue;
      const block = (this.#blocks[Math.floor(frame / FRAMES_PER_BLOCK)] ??= new Uint32Array(FRAMES_PER_BLOCK / 32));
      const word = (frame & (FRAMES_PER_BLOCK - 1)) >>> 5;
      const bits = block[word] ?? 0;
      const bit = 1 << (frame & 31);
      if ((bits & bit) !== 0) continue;
      block[word] = bits | bit;
      this.#size++;
    }
  }
}

/** Whether page frames are shown to this process. */
export function seesFrames(): boolean {
  return native().probe().pageFrameNumbers === 0;
}

function hasEarlier(all: readonly Float64Array[], until: number, page: number, frame: number): boolean {
  for (let holder = 0; holder < until; holder++) if (all[holder]?.[page] === frame) return true;
  return false;
}
