/** Page states from /proc/PID/pagemap, read natively into typed arrays (native/core/pagemap.h). */
import { native } from '../native.js';
import { MAX_REGION_PAGES, requireInteger, requireObject } from '../schema/arguments.js';
import type { PageState, StateRuns } from '../schema/step.js';
import { readMapCounts } from './map-counts.js';
import { pidError } from './read.js';
import { readSmaps, type SmapsVma } from './smaps.js';
import { isAtLeast, parseKernelRelease, readKernelOption, readKernelRelease } from './system.js';

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
   * Whether to look for PMD-mapped huge pages, whose bit 56 the kernel shows wrong (before Linux 6.7, which has no
   * PAGEMAP_SCAN, for VMAs that have some). smaps says what they are where the range holds their whole VMA; of single pages
   * only if all huge ones of the VMA are alike, or if root asks, who sees how often a frame is mapped. What remains is 'unknown', and so is all of it on a kernel that counts no
   * mappings of single pages (CONFIG_NO_PAGE_MAPCOUNT), or may be one. Default true. Turn it off only for memory known
   * to be of base pages (MADV_NOHUGEPAGE).
   */
  checkHuge?: boolean;
  /**
   * Whether to tell the zero page from pages that several processes map, which costs a second look at those
   * pages. Default true. Turn it off only where every page that is there was written: it would count as shared.
   */
  checkZero?: boolean;
}

const DEFAULTS: Required<PagemapOptions> = { checkHuge: true, checkZero: true };

/** @throws TypeError, RangeError that name the argument. */
export function requireTarget(pid: number, range: PagemapRange): void {
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

function hasHuge({ fieldsKb }: SmapsVma): boolean {
  return HUGE_FIELDS.some((field) => (fieldsKb[field] ?? 0) > 0);
}

/** The parts of a range, as page numbers in it, that lie in these VMAs. */
function partsIn(
  vmas: readonly SmapsVma[],
  { address, pages }: PagemapRange,
  pageSizeBytes: number,
): { first: number; pages: number }[] {
  const pageOf = (at: bigint): number => Math.min(pages, Math.max(0, Number(at - address) / pageSizeBytes));
  return vmas
    .map(({ start, end }) => ({ first: pageOf(start), pages: pageOf(end) - pageOf(start) }))
    .filter((part) => part.pages > 0);
}

/** The parts of a range, as page numbers in it, that lie in VMAs with PMD-mapped pages. Pure. */
export function hugeParts(
  vmas: readonly SmapsVma[],
  range: PagemapRange,
  pageSizeBytes: number,
): { first: number; pages: number }[] {
  return partsIn(vmas.filter(hasHuge), range, pageSizeBytes);
}

/**
 * The parts of a range in which userfaultfd tracks writes and no page can be swapped: smaps counts none, or the memory is
 * shared, whose page tables hold no swap entries. What looks like one there is a marker, of a page that is not there. Pure.
 */
export function markerParts(
  vmas: readonly SmapsVma[],
  range: PagemapRange,
  pageSizeBytes: number,
): { first: number; pages: number }[] {
  const unswapped = vmas.filter(
    ({ vmFlags, perms, fieldsKb }) => vmFlags.includes('uw') && (perms.endsWith('s') || fieldsKb['Swap'] === 0),
  );
  return partsIn(unswapped, range, pageSizeBytes);
}

/**
 * The parts of a range in hugetlb VMAs. PAGEMAP_SCAN calls their pages huge too [pagemap_hugetlb_category], but they are
 * mapped and counted as wholes: bit 56 is right for each, and none is the zero page [pagemap_hugetlb_range]. Pure.
 */
export function hugetlbParts(
  vmas: readonly SmapsVma[],
  range: PagemapRange,
  pageSizeBytes: number,
): { first: number; pages: number }[] {
  return partsIn(vmas.filter(isHugetlb), range, pageSizeBytes);
}

/** VM_HUGETLB. */
export function isHugetlb({ vmFlags }: Pick<SmapsVma, 'vmFlags'>): boolean {
  return vmFlags.includes('ht');
}

const BY_BITS: Required<PagemapOptions> = { checkHuge: false, checkZero: false };

/** Bits 63 to 57 of an entry, of which a marker shows these: swapped, and write-protected by userfaultfd. */
const MARKER_BITS = 0b0100001;

/** The pages of a part that show as markers, as page numbers in the range. */
function markersIn(pid: number, range: PagemapRange, part: { first: number; pages: number }): number[] {
  const words = new Uint32Array(readPagemap(pid, partOf(range, part)).buffer);
  const found: number[] = [];
  for (let page = 0; page < part.pages; page++) {
    const bits = (words[2 * page + 1] ?? 0) >>> 25;
    if ((bits & 0b1100001) === MARKER_BITS) found.push(part.first + page);
  }
  return found;
}

/** The VMAs of a process, read once, when they are first asked for. */
type LazySmaps = () => SmapsVma[];

function lazySmaps(pid: number): LazySmaps {
  let vmas: SmapsVma[] | undefined;
  return () => (vmas ??= readSmaps(pid));
}

/** Where single huge pages cannot be found, the parts of a range that have some. */
function doubtfulParts(range: PagemapRange, checkHuge: boolean, smaps: LazySmaps): { first: number; pages: number }[] {
  if (!checkHuge || canScan()) return [];
  // Before Linux 6.6 smaps leaves huge pages out that may not be read [smaps_pmd_entry, follow_trans_huge_pmd].
  const mayHide = ({ perms, vmFlags }: SmapsVma): boolean =>
    perms.startsWith('---') && !vmFlags.includes('nh') && !isHugetlb({ vmFlags });
  return partsIn(
    smaps().filter((vma) => hasHuge(vma) || mayHide(vma)),
    range,
    native().pageSizeBytes,
  );
}

/** A VMA with PMD-mapped pages that lies in a range, whole. */
interface HugeVma {
  /** Page number in the range. */
  first: number;
  pages: number;
  /** All its pages that are there, by smaps, which counts the mappings of each page of a huge one. */
  exclusive: number;
  shared: number;
}

let counted: boolean | undefined;

/** Whether the kernel is known to count how often each page of a huge page is mapped. */
export function countsMappings(): boolean {
  if (counted !== undefined) return counted;
  const mayNot = isAtLeast(parseKernelRelease(readKernelRelease()), [6, 15]);
  counted = !mayNot || readKernelOption('CONFIG_NO_PAGE_MAPCOUNT') === false;
  return counted;
}

function wholeHugeVmas(range: PagemapRange, smaps: LazySmaps): HugeVma[] {
  if (!countsMappings()) return [];
  const unit = native().pageSizeBytes;
  const end = range.address + BigInt(range.pages) * BigInt(unit);
  return smaps().flatMap((vma): HugeVma[] => {
    const [part] = hugeParts([vma], range, unit);
    if (!part || vma.start < range.address || vma.end > end) return [];
    const { fieldsKb } = vma;
    const pagesOf = (kind: string): number =>
      (((fieldsKb[`${kind}_Clean`] ?? 0) + (fieldsKb[`${kind}_Dirty`] ?? 0)) * 1024) / unit;
    return [{ ...part, exclusive: pagesOf('Private'), shared: pagesOf('Shared') }];
  });
}

/**
 * How many of the unknown pages of a VMA are exclusive and shared, by what smaps has beyond the known ones. Undefined when
 * the two do not fit together, since the process has gone on in between. Pure.
 */
export function splitUnknown(
  known: Readonly<Record<'exclusive' | 'shared' | 'unknown', number>>,
  all: Readonly<Record<'exclusive' | 'shared', number>>,
): { exclusive: number; shared: number } | undefined {
  const [exclusive, shared] = [all.exclusive - known.exclusive, all.shared - known.shared];
  return exclusive >= 0 && shared >= 0 && exclusive + shared === known.unknown ? { exclusive, shared } : undefined;
}

const [ABSENT, EXCLUSIVE, SHARED, UNKNOWN] = (['not-present', 'exclusive', 'shared', 'unknown'] as const).map((state) =>
  PAGE_STATES.indexOf(state),
) as [number, number, number, number];

/** By pagemap alone. */
function pagemapStates(
  pid: number,
  range: PagemapRange,
  options: Required<PagemapOptions>,
  smaps: LazySmaps,
  frames: Float64Array | null = null,
): Uint8Array {
  const { checkHuge, checkZero } = options;
  const states = new Uint8Array(range.pages);
  reading(pid, () => {
    native().readPages(pid, range.address, range.pages, checkHuge, checkZero, states, frames);
  });
  for (const { first, pages } of doubtfulParts(range, checkHuge, smaps)) {
    for (let page = first; page < first + pages; page++) {
      if (states[page] === EXCLUSIVE || states[page] === SHARED) states[page] = UNKNOWN;
    }
  }
  return states;
}

/** One number a page, an index into PAGE_STATES. Errors as readPagemap. */
export function readPageStates(pid: number, range: PagemapRange, options: PagemapOptions = {}): Uint8Array {
  return readPages(pid, range, options);
}

/**
 * The same.
 * @param frames With CAP_SYS_ADMIN: receives the frame of each page, 0 for none, by the same reading of pagemap as the states.
 */
export function readPages(
  pid: number,
  range: PagemapRange,
  options: PagemapOptions,
  frames?: Float64Array,
): Uint8Array {
  requireTarget(pid, range);
  const smaps = lazySmaps(pid);
  const states = pagemapStates(pid, range, { ...DEFAULTS, ...options }, smaps, frames);
  if (!states.includes(UNKNOWN)) return states;
  for (const part of hugetlbParts(smaps(), range, native().pageSizeBytes)) {
    states.set(pagemapStates(pid, partOf(range, part), BY_BITS, smaps), part.first);
  }
  for (const part of markerParts(smaps(), range, native().pageSizeBytes)) {
    for (const page of markersIn(pid, range, part)) if (states[page] === UNKNOWN) states[page] = ABSENT;
  }
  for (const { first, pages, ...all } of wholeHugeVmas(range, smaps)) {
    const part = states.subarray(first, first + pages);
    const count = (wanted: number): number => part.reduce((total, state) => total + (state === wanted ? 1 : 0), 0);
    const known = { exclusive: count(EXCLUSIVE), shared: count(SHARED), unknown: count(UNKNOWN) };
    const split = splitUnknown(known, all);
    // Which of them are which is known only if they are all alike.
    if (!split || (split.exclusive > 0 && split.shared > 0)) continue;
    const state = split.exclusive > 0 ? EXCLUSIVE : SHARED;
    part.forEach((old, page) => {
      if (old === UNKNOWN) part[page] = state;
    });
  }
  if (states.includes(UNKNOWN) && countsMappings()) {
    const shown = frames ?? framesIfShown(pid, range);
    if (shown) settleByMapCounts(states, shown);
  }
  return states;
}

/** Undefined where they are not shown. */
function framesIfShown(pid: number, range: PagemapRange): Float64Array | undefined {
  const frames = new Float64Array(range.pages);
  try {
    native().readPages(pid, range.address, range.pages, true, true, new Uint8Array(range.pages), frames);
    return frames;
  } catch {
    return undefined;
  }
}

/** Settles the pages that are still unknown; without their frames they stay so. */
function settleByMapCounts(states: Uint8Array, frames: Float64Array): void {
  const isUnknown = (page: number): boolean => states[page] === UNKNOWN;
  readMapCounts(frames, isUnknown, (page, count) => {
    if (count > 0n) states[page] = count === 1n ? EXCLUSIVE : SHARED;
  });
}

type Counts = Record<PageState, number>;

/** By pagemap alone. */
function pagemapCounts(pid: number, range: PagemapRange, options: Required<PagemapOptions>, smaps: LazySmaps): Counts {
  const { checkHuge, checkZero } = options;
  const counts = new Float64Array(PAGE_STATES.length);
  reading(pid, () => {
    native().countPages(pid, range.address, range.pages, checkHuge, checkZero, counts);
  });
  const result = Object.fromEntries(PAGE_STATES.map((state, index) => [state, counts[index] ?? 0])) as Counts;
  for (const part of doubtfulParts(range, checkHuge, smaps)) {
    const { exclusive, shared } = pagemapCounts(pid, partOf(range, part), { ...options, checkHuge: false }, smaps);
    result.exclusive -= exclusive;
    result.shared -= shared;
    result.unknown += exclusive + shared;
  }
  return result;
}

function partOf({ address }: PagemapRange, { first, pages }: { first: number; pages: number }): PagemapRange {
  return { address: address + BigInt(first) * BigInt(native().pageSizeBytes), pages };
}

/** How many pages are in each state. Errors as readPagemap. */
export function countPages(pid: number, range: PagemapRange, options: PagemapOptions = {}): Counts {
  requireTarget(pid, range);
  const all = { ...DEFAULTS, ...options };
  const smaps = lazySmaps(pid);
  const counts = pagemapCounts(pid, range, all, smaps);
  if (counts.unknown === 0) return counts;
  for (const part of hugetlbParts(smaps(), range, native().pageSizeBytes)) {
    const doubted = pagemapCounts(pid, partOf(range, part), all, smaps);
    const known = pagemapCounts(pid, partOf(range, part), BY_BITS, smaps);
    for (const state of PAGE_STATES) counts[state] += known[state] - doubted[state];
  }
  for (const part of markerParts(smaps(), range, native().pageSizeBytes)) {
    const markers = Math.min(counts.unknown, markersIn(pid, range, part).length);
    counts['not-present'] += markers;
    counts.unknown -= markers;
  }
  for (const vma of wholeHugeVmas(range, smaps)) {
    const split = splitUnknown(pagemapCounts(pid, partOf(range, vma), all, smaps), vma);
    if (!split) continue;
    counts.exclusive += split.exclusive;
    counts.shared += split.shared;
    counts.unknown -= split.exclusive + split.shared;
  }
  return counts.unknown === 0 ? counts : countStates(readPageStates(pid, range, options));
}

function countStates(states: Uint8Array): Counts {
  const counts = Object.fromEntries(PAGE_STATES.map((state) => [state, 0])) as Counts;
  for (const state of states) counts[PAGE_STATES[state] ?? 'unknown']++;
  return counts;
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
export function appendRun<State>(runs: [number, State][], pages: number, state: State): void {
  if (pages === 0) return;
  const last = runs.at(-1);
  if (last?.[1] === state) last[0] += pages;
  else runs.push([pages, state]);
}
