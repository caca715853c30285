/** Page states from /proc/PID/pagemap, read natively into typed arrays (native/core/pagemap.h). */
import { native } from '../native.js';
import { MAX_REGION_PAGES, requireInteger, requireObject } from '../schema/arguments.js';
import type { PageState, StateRuns } from '../schema/step.js';
import { pidError } from './read.js';
import { readSmaps, type SmapsVma } from './smaps.js';

/** The states by their number in a Uint8Array, in the order of native/core/pagemap.h. */
export const PAGE_STATES = [
  'not-present',
  'exclusive',
  'shared',
  'zero',
  'swapped',
  'unknown',
] as const satisfies PageState[];

export interface PagemapRange {
  /** Page-aligned. */
  address: bigint;
  pages: number;
}

export interface PagemapOptions {
  /**
   * Whether to look for PMD-mapped huge pages, whose bit 56 the kernel shows wrong; their pages are then
   * 'unknown'; before Linux 6.7 (no PAGEMAP_SCAN) all pages of a VMA that has some. Default true. Turn it off only for memory known to be of base pages (MADV_NOHUGEPAGE).
   */
  checkHuge?: boolean;
  /**
   * Whether to tell the zero page from pages that several processes map, which costs a second look at those
   * pages. Default true. Turn it off only where every page that is there was written: it would count as shared.
   */
  checkZero?: boolean;
}

function requireTarget(pid: number, range: PagemapRange): void {
  requireInteger('pid', pid, 1, 2 ** 31 - 1);
  requireObject('range', range);
  if (typeof range.address !== 'bigint') throw new TypeError('address must be a bigint');
  requireInteger('pages', range.pages, 0, MAX_REGION_PAGES);
}

function reading<T>(pid: number, read: () => T): T {
  try {
    return read();
  } catch (error) {
    throw pidError(error, pid, `/proc/${String(pid)}/pagemap`);
  }
}

/**
 * The raw 64-bit entries, one a page [Documentation/admin-guide/mm/pagemap.rst].
 * @throws SystemError ESRCH for a process that is not there, EACCES for one that may not be read.
 */
export function readPagemap(pid: number, range: PagemapRange): BigUint64Array {
  requireTarget(pid, range);
  const entries = new BigUint64Array(range.pages);
  reading(pid, () => {
    native().readPagemap(pid, range.address, range.pages, entries);
  });
  return entries;
}

let scans: boolean | undefined;

/** Whether this kernel has PAGEMAP_SCAN, which finds huge pages one by one. */
function canScan(): boolean {
  return (scans ??= native().probe().pagemapScan === 0);
}

/** Fields of smaps that count PMD-mapped pages [fs/proc/task_mmu.c: smaps_pmd_entry]. */
const HUGE_FIELDS = ['AnonHugePages', 'ShmemPmdMapped', 'FilePmdMapped'];

/** The parts of a range, as page numbers in it, that lie in VMAs with PMD-mapped pages. Pure. */
export function hugeParts(
  vmas: readonly SmapsVma[],
  { address, pages }: PagemapRange,
  pageSizeBytes: number,
): { first: number; pages: number }[] {
  const pageOf = (at: bigint): number => Math.min(pages, Math.max(0, Number(at - address) / pageSizeBytes));
  return vmas
    .filter(({ fieldsKb }) => HUGE_FIELDS.some((field) => (fieldsKb[field] ?? 0) > 0))
    .map(({ start, end }) => ({ first: pageOf(start), pages: pageOf(end) - pageOf(start) }))
    .filter((part) => part.pages > 0);
}

/** Where single huge pages cannot be found, the parts of a range that have some. */
function doubtfulParts(pid: number, range: PagemapRange, checkHuge: boolean): { first: number; pages: number }[] {
  if (!checkHuge || canScan()) return [];
  return hugeParts(readSmaps(pid), range, native().pageSizeBytes);
}

const [EXCLUSIVE, SHARED, UNKNOWN] = (['exclusive', 'shared', 'unknown'] as const).map((state) =>
  PAGE_STATES.indexOf(state),
) as [number, number, number];

/** One number a page, an index into PAGE_STATES. Errors as readPagemap. */
export function readPageStates(pid: number, range: PagemapRange, options: PagemapOptions = {}): Uint8Array {
  requireTarget(pid, range);
  const states = new Uint8Array(range.pages);
  reading(pid, () => {
    native().readPageStates(
      pid,
      range.address,
      range.pages,
      options.checkHuge ?? true,
      options.checkZero ?? true,
      states,
    );
  });
  for (const { first, pages } of doubtfulParts(pid, range, options.checkHuge ?? true)) {
    for (let page = first; page < first + pages; page++) {
      if (states[page] === EXCLUSIVE || states[page] === SHARED) states[page] = UNKNOWN;
    }
  }
  return states;
}

type Counts = Record<PageState, number>;

/** How many pages are in each state. Errors as readPagemap. */
export function countPages(pid: number, range: PagemapRange, options: PagemapOptions = {}): Counts {
  requireTarget(pid, range);
  const counts = new Float64Array(PAGE_STATES.length);
  reading(pid, () => {
    native().countPages(pid, range.address, range.pages, options.checkHuge ?? true, options.checkZero ?? true, counts);
  });
  const result = Object.fromEntries(PAGE_STATES.map((state, index) => [state, counts[index] ?? 0])) as Counts;
  for (const { first, pages } of doubtfulParts(pid, range, options.checkHuge ?? true)) {
    const address = range.address + BigInt(first) * BigInt(native().pageSizeBytes);
    const { exclusive, shared } = countPages(pid, { address, pages }, { ...options, checkHuge: false });
    result.exclusive -= exclusive;
    result.shared -= shared;
    result.unknown += exclusive + shared;
  }
  return result;
}

/** Appends a page states array to run-length encoded states. */
export function appendStateRuns(runs: StateRuns, states: Uint8Array): void {
  let start = 0;
  for (let page = 1; page <= states.length; page++) {
    if (page < states.length && states[page] === states[start]) continue;
    appendRun(runs, page - start, PAGE_STATES[states[start] ?? 5] ?? 'unknown');
    start = page;
  }
}

/** Appends one run, joined to the last one if that has the same state. */
export function appendRun(runs: StateRuns, pages: number, state: PageState): void {
  if (pages === 0) return;
  const last = runs.at(-1);
  if (last?.[1] === state) last[0] += pages;
  else runs.push([pages, state]);
}
