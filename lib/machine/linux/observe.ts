/** What a region of a process is, by two independent readers: pagemap for the pages, smaps for the figures. */
import type { ForkedProcess, Placement } from '../../api/forked-process.js';
import { FrameSet } from '../../proc/frames.js';
import { appendRun, appendStateRuns, isHugetlb, readPages } from '../../proc/pagemap.js';
import type { PagemapOptions } from '../../proc/pagemap.js';
import { readSmaps, totalsKb, vmaPages } from '../../proc/smaps.js';
import type { SmapsVma } from '../../proc/smaps.js';
import { sum } from '../../schema/figure.js';
import type { Figure } from '../../schema/figure.js';
import { countStates } from '../../schema/state-runs.js';
import type { PageState, ProcessObservation, RegionObservation, StateRuns, Vma } from '../../schema/step.js';

/** Pages read at a time: a region that is 24 GiB of nothing must not need 6 MB of states at once. */
const PAGES_PER_READ = 2 ** 20;

const COUNTED = ['exclusive', 'shared', 'zero', 'swapped', 'not-present'] as const satisfies PageState[];

type Counts = Record<(typeof COUNTED)[number], number>;
/** Where the kernel does not tell all of them. */
type KnownCounts = Record<(typeof COUNTED)[number], Figure>;

const HIDDEN: Figure = { unknown: 'smaps of this kernel leaves out huge pages that may not be read (PROT_NONE)' };

/** A region in one process. */
interface Place extends Placement {
  pid: number;
  pageSize: number;
  /** Those of the region in all processes, where they are shown. */
  frames: FrameSet | undefined;
}

/** What pagemap tells of one VMA. */
function readStates({ pid, address: start, pageSize, frames }: Place, vma: Vma, options: PagemapOptions): StateRuns {
  const runs: StateRuns = [];
  for (let page = vma.first; page < vma.first + vma.pages;) {
    const pages = Math.min(PAGES_PER_READ, vma.first + vma.pages - page);
    const address = start + BigInt(page) * BigInt(pageSize);
    const found = frames && new Float64Array(pages);
    appendStateRuns(runs, readPages(pid, { address, pages }, options, found));
    if (found) frames.add(found);
    page += pages;
  }
  return runs;
}

/**
 * The states of a VMA's pages, and how many are in each. Before Linux 6.7 pagemap shows the zero page as it shows a
 * page that others map too, and only CAP_SYS_ADMIN sees which it is: it is unknown then. But smaps counts in Rss every
 * page that is present, and not the zero page, which is no page to it [fs/proc/task_mmu.c: smaps_pte_entry,
 * vm_normal_page]. So what is present beyond Rss is the zero page: the counts are exact, and the single pages are known
 * where all or none of the doubtful ones are it.
 */
export function settleUnknown(runs: StateRuns, rssPages: number): { states: StateRuns; counts: Counts } {
  const { unknown, ...counts } = countStates(runs);
  if (unknown === 0) return { states: runs, counts };
  const zero = counts.exclusive + counts.shared + counts.zero + unknown - rssPages;
  const settled = zero === 0 ? 'shared' : zero === unknown ? 'zero' : 'unknown';
  const states: StateRuns = [];
  for (const [pages, state] of runs) appendRun(states, pages, state === 'unknown' ? settled : state);
  return { states, counts: { ...counts, shared: counts.shared + unknown - zero, zero: counts.zero + zero } };
}

/**
 * The same for a VMA of huge pages. pagemap does not tell which pages of a huge one are shared, and before Linux 6.7 not
 * which are the huge zero page; smaps tells how many are.
 */
export function settleHuge(
  runs: StateRuns,
  pages: { rss: number; exclusive: number; shared: number; readable: boolean },
): { states: StateRuns; counts: KnownCounts } {
  const { unknown, ...counts } = countStates(runs);
  const zero = counts.exclusive + counts.shared + counts.zero + unknown - pages.rss;
  if (unknown === 0 && zero === counts.zero) return { states: runs, counts };
  if (!pages.readable && zero > counts.zero) {
    const hidden = { exclusive: HIDDEN, shared: HIDDEN, zero: HIDDEN };
    return { states: runs, counts: unknown > 0 ? { ...counts, ...hidden } : counts };
  }
  const states: StateRuns = [];
  const doubtsShared = zero !== counts.zero;
  const settled = alike({
    exclusive: pages.exclusive - counts.exclusive,
    shared: pages.shared - (doubtsShared ? 0 : counts.shared),
    zero: zero - counts.zero,
  });
  for (const [length, state] of runs) {
    const doubtful = state === 'unknown' || (state === 'shared' && doubtsShared);
    appendRun(states, length, doubtful ? settled : state);
  }
  return { states, counts: { ...counts, zero, exclusive: pages.exclusive, shared: pages.shared } };
}

/** What pages are of which it is known how many are what: known if they can be one thing only. */
function alike(pagesBy: Partial<Record<PageState, number>>): PageState {
  const kinds = Object.entries(pagesBy).filter(([, pages]) => pages !== 0);
  return kinds.length === 1 ? (kinds[0]?.[0] as PageState) : 'unknown';
}

function describeVma(vma: SmapsVma, start: bigint, pageSize: number): Vma {
  return {
    first: Number((vma.start - start) / BigInt(pageSize)),
    pages: vmaPages(vma, pageSize),
    protection: vma.perms.startsWith('rw') ? 'rw' : vma.perms.startsWith('r') ? 'r' : 'none',
    accounted: vma.vmFlags.includes('ac'),
    dontfork: vma.vmFlags.includes('dc'),
    wipeonfork: vma.vmFlags.includes('wf'),
    ...(vma.vmFlags.includes('mg') ? { mergeable: true } : {}),
  };
}

function observePages(
  place: Place,
  vma: Vma,
  { fieldsKb, vmFlags }: SmapsVma,
): { states: StateRuns; counts: KnownCounts } {
  const pagesOf = (...fields: string[]): number =>
    (fields.reduce((kb, field) => kb + (fieldsKb[field] ?? 0), 0) * 1024) / place.pageSize;
  const rss = pagesOf('Rss');
  if (isHugetlb({ vmFlags })) {
    // It has no zero page, so that nothing is in doubt.
    const states = readStates(place, vma, { checkHuge: false, checkZero: false });
    return { states, counts: countStates(states) };
  }
  // MADV_HUGEPAGE.
  if (!vmFlags.includes('hg')) return settleUnknown(readStates(place, vma, { checkHuge: false }), rss);
  return settleHuge(readStates(place, vma, { checkHuge: true }), {
    rss,
    exclusive: pagesOf('Private_Clean', 'Private_Dirty'),
    shared: pagesOf('Shared_Clean', 'Shared_Dirty'),
    readable: vma.protection !== 'none',
  });
}

/** Whether a VMA is of a region, whose guards, also those that stand in holes, carry VM_DONTDUMP (native/core/region.cc). */
export function isOfRegion(vma: SmapsVma, { start, end }: { start: bigint; end: bigint }): boolean {
  return vma.start >= start && vma.end <= end && !vma.vmFlags.includes('dd');
}

function observeRegion(name: string, place: Place, all: SmapsVma[]): RegionObservation {
  const { address: start, pages: length, pageSize } = place;
  const end = start + BigInt(length) * BigInt(pageSize);
  const own = all.filter((vma) => isOfRegion(vma, { start, end }));
  const vmas = own.map((vma) => describeVma(vma, start, pageSize));
  const states: StateRuns = [];
  const counts: KnownCounts = { exclusive: 0, shared: 0, zero: 0, swapped: 0, 'not-present': 0 };
  const count = (state: keyof KnownCounts, more: Figure): void => {
    counts[state] = sum([counts[state], more]);
  };
  let page = 0;
  const leaveHole = (until: number): void => {
    appendRun(states, until - page, 'not-present');
    count('not-present', until - page);
  };
  own.forEach((smaps, index) => {
    const vma = vmas[index];
    if (!vma) return;
    leaveHole(vma.first);
    const settled = observePages(place, vma, smaps);
    for (const [pages, state] of settled.states) appendRun(states, pages, state);
    for (const state of COUNTED) count(state, settled.counts[state]);
    page = vma.first + vma.pages;
  });
  leaveHole(length);
  return { region: name, pages: length, states, counts, smapsKb: totalsKb(own), vmas };
}

/**
 * Observes all regions of a process that is parked. Reading faults nothing in it.
 * @param frames Of each region, where they are shown, to be added to.
 */
export function observeProcess(
  name: string,
  process: ForkedProcess,
  regions: ReadonlyMap<string, Placement>,
  pageSize: number,
  frames?: Map<string, FrameSet>,
): ProcessObservation {
  const vmas = regions.size > 0 ? readSmaps(process.pid) : [];
  const observed = [...regions].map(([region, placement]) => {
    if (frames && !frames.has(region)) frames.set(region, new FrameSet());
    return observeRegion(region, { ...placement, pid: process.pid, pageSize, frames: frames?.get(region) }, vmas);
  });
  // A region whose every page has been unmapped is no more.
  return { process: name, regions: observed.filter((region) => region.vmas.length > 0) };
}
