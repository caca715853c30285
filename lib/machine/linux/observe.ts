/** What a region of a process is, by two independent readers: pagemap for the pages, smaps for the figures. */
import type { ForkedProcess, Placement } from '../../api/forked-process.js';
import { appendRun, appendStateRuns, isHugetlb, readPageStates } from '../../proc/pagemap.js';
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

/** What pagemap tells of one VMA. */
function readStates(pid: number, placement: Placement, vma: Vma, pageSize: number, options: PagemapOptions): StateRuns {
  const runs: StateRuns = [];
  for (let page = vma.first; page < vma.first + vma.pages;) {
    const pages = Math.min(PAGES_PER_READ, vma.first + vma.pages - page);
    const address = placement.address + BigInt(page) * BigInt(pageSize);
    appendStateRuns(runs, readPageStates(pid, { address, pages }, options));
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
  pid: number,
  placement: Placement,
  vma: Vma,
  { fieldsKb, vmFlags }: SmapsVma,
  pageSize: number,
): { states: StateRuns; counts: KnownCounts } {
  const pagesOf = (...fields: string[]): number =>
    (fields.reduce((kb, field) => kb + (fieldsKb[field] ?? 0), 0) * 1024) / pageSize;
  const rss = pagesOf('Rss');
  if (isHugetlb({ vmFlags })) {
    // It has no zero page, so that nothing is in doubt.
    const states = readStates(pid, placement, vma, pageSize, { checkHuge: false, checkZero: false });
    return { states, counts: countStates(states) };
  }
  // MADV_HUGEPAGE.
  if (!vmFlags.includes('hg'))
    return settleUnknown(readStates(pid, placement, vma, pageSize, { checkHuge: false }), rss);
  return settleHuge(readStates(pid, placement, vma, pageSize, { checkHuge: true }), {
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

function observeRegion(
  name: string,
  pid: number,
  placement: Placement,
  all: SmapsVma[],
  pageSize: number,
): RegionObservation {
  const end = placement.address + BigInt(placement.pages) * BigInt(pageSize);
  const own = all.filter((vma) => isOfRegion(vma, { start: placement.address, end }));
  const vmas = own.map((vma) => describeVma(vma, placement.address, pageSize));
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
    const settled = observePages(pid, placement, vma, smaps, pageSize);
    for (const [pages, state] of settled.states) appendRun(states, pages, state);
    for (const state of COUNTED) count(state, settled.counts[state]);
    page = vma.first + vma.pages;
  });
  leaveHole(placement.pages);
  return { region: name, pages: placement.pages, states, counts, smapsKb: totalsKb(own), vmas };
}

/** Observes all regions of a process that is parked. Reading faults nothing in it. */
export function observeProcess(
  name: string,
  process: ForkedProcess,
  regions: ReadonlyMap<string, Placement>,
  pageSize: number,
): ProcessObservation {
  const vmas = regions.size > 0 ? readSmaps(process.pid) : [];
  const observed = [...regions].map(([region, placement]) =>
    observeRegion(region, process.pid, placement, vmas, pageSize),
  );
  // A region whose every page has been unmapped is no more.
  return { process: name, regions: observed.filter((region) => region.vmas.length > 0) };
}
