/**
 * How many pages of a region have been copied since a moment, in all processes that have it together. A page that is copied
 * is memory that was not taken before: so their number is the growth of what the processes really take, the sum of their
 * Pss, but for pages that were touched for the first time.
 */
import { native } from '../native.js';
import { countFrames, seesFrames } from '../proc/frames.js';
import { PAGE_STATES, readPageStates } from '../proc/pagemap.js';
import { SMAPS_PERMS, readSmapsTable, type SmapsTable } from '../proc/smaps-table.js';
import { bounds, isUnknown, type Figure } from '../schema/figure.js';
import type { PageState } from '../schema/step.js';
import { ForkedProcess, type RegionHandle } from './forked-process.js';
import { Mapping } from './mapping.js';

/** A region in one process, and what its pages are. */
export interface RegionHolder {
  pid: number;
  address: bigint;
  pages: number;
  /** One number a page, an index into PAGE_STATES. */
  states: Uint8Array;
}

/** [fs/proc/task_mmu.c: PSS_SHIFT] what one page adds to Pss is cut off at this many parts of a byte. */
const PSS_PARTS = 4096;

const ROUNDED = 'the kernel rounds Pss down, and does not say which processes share a page';

const [ABSENT, EXCLUSIVE, SHARED, ZERO] = (['not-present', 'exclusive', 'shared', 'zero'] as const).map((state) =>
  PAGE_STATES.indexOf(state),
) as [number, number, number, number];

const isThere = (state: number | undefined): boolean => state === EXCLUSIVE || state === SHARED;

/** Everybody who has the region now. */
function readHolders(region: RegionHandle): RegionHolder[] {
  const places = ForkedProcess.withRegion(region).map((one) => ({ pid: one.pid, ...one.placement(region) }));
  if (region instanceof Mapping) {
    const { address, pages } = region;
    places.unshift({ pid: process.pid, address, pages });
  }
  return places.map((place) => ({ ...place, states: readPageStates(place.pid, place) }));
}

/** smaps of the region in each who has it. */
function readTables(holders: readonly RegionHolder[]): SmapsTable[] {
  return holders.map(({ pid, address, pages }) => readSmapsTable(pid, { address, pages }));
}

/** @throws TypeError unless the region is private and anonymous in whoever has it. */
function requireCopied(tables: readonly SmapsTable[]): void {
  if (tables.length === 0) throw new TypeError('no living process has the region');
  for (const table of tables) {
    for (let vma = 0; vma < table.length; vma++) {
      const others = SMAPS_PERMS.shared | SMAPS_PERMS.file;
      if (((table.perms[vma] ?? 0) & others) === 0 && !table.hasVmFlag(vma, 'ht')) continue;
      throw new TypeError(
        'region must be private and anonymous, and not of hugetlb: of other memory Pss tells no copies',
      );
    }
  }
}

/**
 * Frames behind the pages of all holders by the states of these, if nobody else has them: a page that is exclusive has one
 * of its own; those that are shared have one for all, or one for any two. Pure.
 */
export function framesByStates(holders: readonly Pick<RegionHolder, 'states'>[]): { min: number; max: number } {
  const frames = { min: 0, max: 0 };
  const pages = Math.max(0, ...holders.map(({ states }) => states.length));
  for (let page = 0; page < pages; page++) {
    let shared = 0;
    for (const { states } of holders) {
      if (states[page] === SHARED) shared++;
      if (states[page] !== EXCLUSIVE) continue;
      frames.min++;
      frames.max++;
    }
    if (shared > 0) frames.min++;
    frames.max += Math.floor(shared / 2);
  }
  return frames;
}

/**
 * The same by the sum of Pss, which the kernel rounds down for each VMA, and a little for each page. Pure.
 * @param present Pages that are there, in all holders together.
 */
export function framesByPss(
  sumKb: number,
  vmas: number,
  present: number,
  pageSizeBytes: number,
): { min: number; max: number } {
  const least = sumKb * 1024;
  const most = least + vmas * 1024 + present / PSS_PARTS;
  return { min: Math.ceil(least / pageSizeBytes), max: Math.ceil(most / pageSizeBytes) - 1 };
}

/** How many page frames stand behind the region in all who have it. @param tables Theirs, where they have been read. */
function framesOf(holders: readonly RegionHolder[], tables?: readonly SmapsTable[]): Figure {
  if (seesFrames()) return countFrames(holders);
  let [sumKb, vmas, present] = [0, 0, 0];
  for (const table of tables ?? readTables(holders)) {
    sumKb += table.sumKb('Pss');
    vmas += table.length;
  }
  for (const { states } of holders) for (const state of states) if (isThere(state)) present++;
  const byPss = framesByPss(sumKb, vmas, present, native().pageSizeBytes);
  const byStates = framesByStates(holders);
  const min = Math.max(byPss.min, byStates.min);
  const max = Math.min(byPss.max, byStates.max);
  if (min > max) return { unknown: 'processes that cowlab did not fork share these pages' };
  return min === max ? min : { min, max, why: ROUNDED };
}

/** The first page in a state of which nobody can say whether it was copied. */
function doubtful({ pid, states }: RegionHolder): string | undefined {
  const page = states.findIndex((state) => !isThere(state) && state !== ABSENT && state !== ZERO);
  const state: PageState | undefined = PAGE_STATES[states[page] ?? -1];
  return (
    state &&
    `page ${page} of process ${pid} is ${state === 'unknown' ? 'in a state that this kernel does not tell' : state}`
  );
}

/** Pages that were touched for the first time since, which took memory and are no copies; or why that cannot be said. Pure. */
export function firstTouches(
  before: readonly RegionHolder[],
  now: readonly RegionHolder[],
): number | { unknown: string } {
  const ended = before.find(({ pid }) => !now.some((holder) => holder.pid === pid));
  if (ended)
    return { unknown: `process ${ended.pid} has ended or unmapped it since the mark, and what it had copied is gone` };
  let touched = 0;
  for (const { pid, states } of now) {
    const own = before.find((holder) => holder.pid === pid)?.states;
    for (const [page, state] of states.entries()) {
      const wasThere = own ? isThere(own[page]) : before.every((holder) => isThere(holder.states[page]));
      if (wasThere === isThere(state)) continue;
      if (wasThere) return { unknown: `process ${pid} has not got page ${page} any more, which was there at the mark` };
      if (!own) return { unknown: `process ${pid} was forked since the mark, when page ${page} was not there in all` };
      touched++;
    }
  }
  return touched;
}

/** A moment in the life of a region. */
export class CopyMark {
  readonly #region: RegionHandle;
  readonly #before: readonly RegionHolder[];
  readonly #frames: Figure;

  /** @internal Use markCopies(). */
  constructor(region: RegionHandle) {
    this.#region = region;
    this.#before = readHolders(region);
    const tables = readTables(this.#before);
    requireCopied(tables);
    this.#frames = framesOf(this.#before, tables);
  }

  /**
   * How many pages all processes that have the region have copied since the mark, together. Unknown, and why, if one of them
   * has ended since, has given pages back, or has some swapped out. One that was forked since is counted too. What they were
   * asked to do before should have been awaited.
   * @throws TypeError if no living process has the region; SystemError ESRCH if one ends while it is read.
   */
  copiedPages(): Figure {
    return this.look().copiedPages;
  }

  /** @internal The same, with what the pages are now. */
  look(): { copiedPages: Figure; holders: RegionHolder[] } {
    const holders = readHolders(this.#region);
    return { copiedPages: this.#judge(holders), holders };
  }

  #judge(holders: readonly RegionHolder[]): Figure {
    const doubt = [...this.#before, ...holders].map(doubtful).find((reason) => reason !== undefined);
    if (doubt !== undefined) return { unknown: doubt };
    const touched = firstTouches(this.#before, holders);
    return typeof touched === 'number' ? growth(this.#frames, framesOf(holders), touched) : touched;
  }
}

function growth(before: Figure, now: Figure, touched: number): Figure {
  if (isUnknown(before)) return before;
  if (isUnknown(now)) return now;
  const [then, since] = [bounds(before), bounds(now)];
  const min = Math.max(0, since.min - then.max - touched);
  const max = since.max - then.min - touched;
  return min === max ? min : { min, max, why: ROUNDED };
}

/**
 * Marks private anonymous memory, to say later how much of it has been copied.
 * @throws TypeError for other memory, and if no living process has the region.
 */
export function markCopies(region: RegionHandle): CopyMark {
  return new CopyMark(region);
}
