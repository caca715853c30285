/** What a region of a process is, by two independent readers: pagemap for the pages, smaps for the figures. */
import type { ForkedProcess, Placement } from '../../api/forked-process.js';
import { appendRun, appendStateRuns, readPageStates } from '../../proc/pagemap.js';
import { readSmaps, vmaPages } from '../../proc/smaps.js';
import type { SmapsVma } from '../../proc/smaps.js';
import type { Figure } from '../../schema/figure.js';
import type { PageState, ProcessObservation, RegionObservation, StateRuns, Vma } from '../../schema/step.js';

/** Pages read at a time: a region that is 24 GiB of nothing must not need 6 MB of states at once. */
const PAGES_PER_READ = 2 ** 20;

/** Fields that are properties of the mapping, not amounts of memory. */
const NOT_FIGURES = new Set(['KernelPageSize', 'MMUPageSize']);

const COUNTED = ['exclusive', 'shared', 'zero', 'swapped', 'not-present'] as const satisfies PageState[];

function readStates(pid: number, placement: Placement, vmas: readonly Vma[], pageSize: number): StateRuns {
  const runs: StateRuns = [];
  let page = 0;
  for (const vma of vmas) {
    appendRun(runs, vma.first - page, 'not-present');
    for (page = vma.first; page < vma.first + vma.pages;) {
      const pages = Math.min(PAGES_PER_READ, vma.first + vma.pages - page);
      const address = placement.address + BigInt(page) * BigInt(pageSize);
      appendStateRuns(runs, readPageStates(pid, { address, pages }, { checkHuge: false }));
      page += pages;
    }
  }
  appendRun(runs, placement.pages - page, 'not-present');
  return runs;
}

/** Pages by state. Where some are unknown, those they could be are bounded by it. */
function countStates(runs: StateRuns): Record<string, Figure> {
  const totals = new Map<PageState, number>();
  for (const [pages, state] of runs) totals.set(state, (totals.get(state) ?? 0) + pages);
  const unknown = totals.get('unknown') ?? 0;
  const counts: Record<string, Figure> = {};
  for (const state of COUNTED) {
    const known = totals.get(state) ?? 0;
    const doubtful = unknown > 0 && (state === 'shared' || state === 'zero');
    counts[state] = doubtful
      ? {
          min: known,
          max: known + unknown,
          why: 'this kernel does not tell shared pages from the zero page (Linux 6.7 does)',
        }
      : known;
  }
  return counts;
}

function describeVma(vma: SmapsVma, start: bigint, pageSize: number): Vma {
  return {
    first: Number((vma.start - start) / BigInt(pageSize)),
    pages: vmaPages(vma, pageSize),
    protection: vma.perms.startsWith('rw') ? 'rw' : vma.perms.startsWith('r') ? 'r' : 'none',
    accounted: vma.vmFlags.includes('ac'),
    dontfork: vma.vmFlags.includes('dc'),
    wipeonfork: vma.vmFlags.includes('wf'),
  };
}

function observeRegion(
  name: string,
  pid: number,
  placement: Placement,
  all: SmapsVma[],
  pageSize: number,
): RegionObservation {
  const end = placement.address + BigInt(placement.pages) * BigInt(pageSize);
  // Guards, also those that stand in holes, carry VM_DONTDUMP (native/core/region.cc).
  const own = all.filter((vma) => vma.start >= placement.address && vma.end <= end && !vma.vmFlags.includes('dd'));
  const smapsKb: Record<string, Figure> = {};
  for (const vma of own) {
    for (const [field, kb] of Object.entries(vma.fieldsKb)) {
      if (!NOT_FIGURES.has(field)) smapsKb[field] = ((smapsKb[field] as number | undefined) ?? 0) + kb;
    }
  }
  const vmas = own.map((vma) => describeVma(vma, placement.address, pageSize));
  const states = readStates(pid, placement, vmas, pageSize);
  return { region: name, pages: placement.pages, states, counts: countStates(states), smapsKb, vmas };
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
