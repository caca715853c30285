/** What smaps and pagemap show of the model's state. */
import { type Figure, sum } from '../../schema/figure.js';
import type { PageRun } from '../../schema/selection.js';
import type { Observation, PageState, RegionObservation, StateRuns, Vma as VmaSeen } from '../../schema/step.js';
import { CACHE, type Configuration, isMerged, mapCount, pteOf, swapCount, ZERO } from './configuration.js';
import { hiddenParts, hugePages } from './huge.js';
import { doubtCounts, doubtFigures, doubtFrames, doubtStates } from './ksm.js';
import { mergedMapCounts } from './merge.js';
import { type Mapping, toObject, type World } from './process.js';
import { endOf, type Vma } from './vma.js';

/** All living processes in order of birth, their regions in order of creation. */
export function observe(world: World, label: string): Observation {
  const merged: MergedCounts = world.mutation === 'merged-counts-are-local' ? new Map() : mergedMapCounts(world);
  return {
    label,
    frames: framesOfRegions(world),
    processes: [...world.processes.values()].map((process) => ({
      process: process.name,
      regions: [...process.mappings.values()].map((mapping) => observeRegion(world, mapping, merged)),
    })),
  };
}

/** Frames behind each region, over all processes; the zero page is nobody's. */
function framesOfRegions(world: World): Record<string, Figure> {
  const mappings = new Map<string, Mapping[]>();
  for (const process of world.processes.values()) {
    for (const mapping of process.mappings.values()) {
      mappings.set(mapping.region, [...(mappings.get(mapping.region) ?? []), mapping]);
    }
  }
  return Object.fromEntries([...mappings].map(([region, ofRegion]) => [region, countFrames(ofRegion)]));
}

/** @param mappings Of one region, all of the same memory object. */
function countFrames(mappings: readonly Mapping[]): Figure {
  const ids = new Set(mappings.map(({ id }) => id));
  const [first] = mappings;
  if (!first) return 0;
  const merged = new Set<number>();
  const frames = first.lineage.sumPages(({ ptes }) => {
    const own = new Set(
      ptes.flatMap(({ mapping, frame, swapped }) => (ids.has(mapping) && frame !== ZERO && !swapped ? [frame] : [])),
    );
    for (const frame of own) if (isMerged(frame) && own.delete(frame)) merged.add(frame);
    return own.size;
  });
  return doubtFrames(first, frames + merged.size);
}

function observeRegion(world: World, mapping: Mapping, merged: MergedCounts): RegionObservation {
  const states = new StateRunBuilder();
  const perVma: Record<string, Figure>[] = [];
  const counts = { exclusive: 0, shared: 0, zero: 0, swapped: 0 };
  let present = 0;
  const views: PageView[] = [];
  let at = 0;
  const pageKb = world.facts.pageSizeBytes / 1024;
  for (const vma of mapping.vmas) {
    states.add(vma.first - at, 'not-present');
    const tally = tallyRange(mapping, vma, views, merged, states);
    const hidden = hiddenParts(world, mapping, vma).flatMap((part) => tallyRange(mapping, part, views, merged));
    perVma.push({
      ...smapsOf(world, mapping, vma, without(tally, hidden)),
      AnonHugePages: hugePages(world, mapping, vma) * pageKb,
    });
    for (const { view, pages } of tally) {
      if (view.state === 'not-present') continue;
      counts[view.state] += pages;
      present += pages;
    }
    at = endOf(vma);
  }
  states.add(mapping.pages - at, 'not-present');
  return {
    region: mapping.region,
    pages: mapping.pages,
    states: doubtStates(mapping, states.finish()),
    counts: doubtCounts(mapping, { ...counts, 'not-present': mapping.pages - present }),
    smapsKb: doubtFigures(mapping, sumOverVmas(perVma)),
    vmas: mapping.vmas.map(seen),
  };
}

function seen({ first, pages, protection, accounted, dontfork, wipeonfork, mergeable }: Vma): VmaSeen {
  const flags = { accounted, dontfork, wipeonfork, ...(mergeable ? { mergeable } : {}) };
  return { first, pages, protection, ...flags };
}

/** A page of one configuration as one mapping sees it. */
interface PageView {
  state: 'exclusive' | 'shared' | 'zero' | 'swapped' | 'not-present';
  anonymous: boolean;
  /** It is counted by smaps; the zero page is not [vm_normal_page]. */
  counted: boolean;
  dirty: boolean;
  mapCount: number;
  /** By KSM. */
  merged: boolean;
  /** Of a page in swap: how many entries of swap it has. */
  swapCount: number;
}

/** How many entries map each merged page. */
type MergedCounts = ReadonlyMap<number, number>;

const NOT_PRESENT: PageView = {
  state: 'not-present',
  anonymous: false,
  counted: false,
  dirty: false,
  mapCount: 0,
  merged: false,
  swapCount: 0,
};
const ZERO_PAGE: PageView = { ...NOT_PRESENT, state: 'zero' };

function viewOf(configuration: Configuration, mapping: number, mergedCounts: MergedCounts): PageView {
  const pte = pteOf(configuration, mapping);
  if (!pte) return NOT_PRESENT;
  if (pte.frame === ZERO) return ZERO_PAGE;
  if (pte.swapped) return { ...NOT_PRESENT, state: 'swapped', swapCount: swapCount(configuration, pte.frame) };
  const merged = isMerged(pte.frame);
  const count = (merged ? mergedCounts.get(pte.frame) : undefined) ?? mapCount(configuration, pte.frame);
  return {
    // pagemap bit 56 [pte_to_pagemap_entry]: mapped exclusively.
    state: count === 1 ? 'exclusive' : 'shared',
    anonymous: pte.frame !== CACHE,
    counted: true,
    // smaps_account(): pte_dirty() or folio_test_dirty(). The folio of an anonymous page is not dirty before it is swapped,
    // and after that only if the entry was, when it left the swap cache for a write [folio_free_swap].
    dirty: pte.dirty || (pte.frame === CACHE && configuration.cache.dirty),
    mapCount: count,
    merged,
    swapCount: 0,
  };
}

/** How many pages of a range look so. */
type Tally = { view: PageView; pages: number }[];

function tallyRange(
  mapping: Mapping,
  range: PageRun,
  views: PageView[],
  merged: MergedCounts,
  states?: StateRunBuilder,
): Tally {
  const { lineage } = mapping;
  const pagesBy = new Float64Array(lineage.table.size);
  const { first, pages } = toObject(mapping, range);
  const end = first + pages;
  const { starts, configurations, first: firstRun, count: runs } = lineage.runs.raw(first);
  let at = first;
  for (let i = firstRun; i < runs && at < end; i++) {
    const number = configurations[i] ?? 0;
    const next = i + 1 < runs ? (starts[i + 1] ?? end) : end;
    const until = next < end ? next : end;
    const view = (views[number] ??= viewOf(lineage.table.get(number), mapping.id, merged));
    pagesBy[number] = (pagesBy[number] ?? 0) + (until - at);
    states?.add(until - at, view.state);
    at = until;
  }
  const tally: Tally = [];
  pagesBy.forEach((count, number) => {
    const view = views[number];
    if (view && count > 0) tally.push({ view, pages: count });
  });
  return tally;
}

function without(tally: Tally, hidden: Tally): Tally {
  const pagesOf = (wanted: PageView): number =>
    hidden.reduce((total, { view, pages }) => total + (view === wanted ? pages : 0), 0);
  return tally.map(({ view, pages }) => ({ view, pages: pages - pagesOf(view) }));
}

const UNCERTAIN_DIRT = 'writeback turns dirty pages of a file clean at times of its own';

/** Pages of hugetlb are in figures of their own, and in no others [smaps_hugetlb_range]. */
function hugetlbSmaps({ facts }: World, vma: Vma, tally: Tally): Record<string, Figure> {
  const kb = facts.pageSizeBytes / 1024;
  const kbIn = (state: PageState): number =>
    kb * tally.reduce((total, { view, pages }) => total + (view.state === state ? pages : 0), 0);
  return {
    ...Object.fromEntries(SMAPS_FIELDS.map((name) => [name, 0])),
    Size: vma.pages * kb,
    Private_Hugetlb: kbIn('exclusive'),
    Shared_Hugetlb: kbIn('shared'),
  };
}

/** Of memory that is not hugetlb. */
const SMAPS_FIELDS = [
  'Rss',
  'Pss',
  'Pss_Dirty',
  'Shared_Clean',
  'Shared_Dirty',
  'Private_Clean',
  'Private_Dirty',
  'Anonymous',
  'KSM',
] as const;

/** The figures of one VMA, in kB [smap_gather_stats, __show_smap]. */
function smapsOf(world: World, mapping: Mapping, vma: Vma, tally: Tally): Record<string, Figure> {
  if (mapping.hugetlb) return hugetlbSmaps(world, vma, tally);
  const kb = world.facts.pageSizeBytes / 1024;
  const pagesWhere = (holds: (view: PageView) => boolean): number => {
    let total = 0;
    for (const { view, pages } of tally) if (view.counted && holds(view)) total += pages;
    return total;
  };
  const pssKbWhere = (holds: (view: PageView) => boolean): number => {
    let pss = 0;
    // PSS_SHIFT: each page's share is a fixed-point number with 12 bits after the point, rounded down.
    for (const { view, pages } of tally) {
      if (view.counted && holds(view)) pss += pages * Math.floor((world.facts.pageSizeBytes * 4096) / view.mapCount);
    }
    return Math.floor(pss / 2 ** 22);
  };
  const zero = tally.reduce((total, { view, pages }) => total + (view.state === 'zero' ? pages : 0), 0);
  const rss = pagesWhere(() => true) + (world.mutation === 'zero-page-counts-in-rss' ? zero : 0);
  const isShared = (view: PageView): boolean => view.mapCount >= 2;

  /** A figure of pages that are dirty or clean: known, but for page-cache pages of a file. */
  const split = (
    measure: (holds: (view: PageView) => boolean) => number,
    among: (view: PageView) => boolean,
    dirty: boolean,
  ): Figure => {
    if (mapping.lineage.kind !== 'file') return measure((view) => among(view) && view.dirty === dirty);
    const min = measure((view) => among(view) && view.anonymous && view.dirty === dirty);
    const max = measure((view) => among(view) && (!view.anonymous || view.dirty === dirty));
    return min === max ? min : { min, max, why: UNCERTAIN_DIRT };
  };
  const kbOf = (holds: (view: PageView) => boolean): number => pagesWhere(holds) * kb;
  return {
    Size: vma.pages * kb,
    Rss: rss * kb,
    Pss: pssKbWhere(() => true),
    Pss_Dirty: split(pssKbWhere, () => true, true),
    Shared_Clean: split(kbOf, isShared, false),
    Shared_Dirty: split(kbOf, isShared, true),
    Private_Clean: split(kbOf, (view) => !isShared(view), false),
    Private_Dirty: split(kbOf, (view) => !isShared(view), true),
    Anonymous: kbOf((view) => view.anonymous),
    KSM: kbOf((view) => view.merged),
    ...swapSmaps(world, tally),
  };
}

/** The same arithmetic as of Pss, by the entries of swap that each page has [smaps_pte_entry, swp_swapcount]. */
function swapSmaps({ facts, mutation }: World, tally: Tally): Record<string, Figure> {
  let pss = 0;
  let swapped = 0;
  for (const { view, pages } of tally) {
    if (view.state !== 'swapped') continue;
    swapped += pages;
    const sharers = mutation === 'swap-pss-is-whole' ? 1 : view.swapCount;
    pss += pages * Math.floor((facts.pageSizeBytes * 4096) / sharers);
  }
  return { Swap: (swapped * facts.pageSizeBytes) / 1024, SwapPss: Math.floor(pss / 2 ** 22) };
}

/** Zero, unless it was counted, for private anonymous and page-cache memory without mlock and MADV_FREE. */
const ALWAYS_ZERO = [
  'LazyFree',
  'ShmemPmdMapped',
  'FilePmdMapped',
  'Shared_Hugetlb',
  'Private_Hugetlb',
  'Swap',
  'SwapPss',
  'Locked',
] as const;

function sumOverVmas(perVma: readonly Record<string, Figure>[]): Record<string, Figure> {
  const total: Record<string, Figure> = {};
  for (const name of Object.keys(perVma[0] ?? {})) total[name] = sum(perVma.map((figures) => figures[name] ?? 0));
  for (const name of ALWAYS_ZERO) total[name] ??= 0;
  total['Referenced'] = { unknown: 'the kernel clears accessed bits at times of its own' };
  return total;
}

/** A random access pattern makes millions of short runs; those of equal length and state are one object. */
const LONGEST_INTERNED = 1024;
type Interned = ([number, PageState] | undefined)[];
const interned = new Map<PageState, Interned>();

function internedOf(state: PageState): Interned {
  let ofState = interned.get(state);
  if (!ofState) interned.set(state, (ofState = new Array<undefined>(LONGEST_INTERNED + 1).fill(undefined)));
  return ofState;
}

/** Run-length encodes page states. The runs are shared between observations: nobody may change them. */
class StateRunBuilder {
  private readonly finished: StateRuns = [];
  private pages = 0;
  private state: PageState = 'not-present';
  private ofState = internedOf('not-present');

  add(pages: number, state: PageState): void {
    if (pages === 0) return;
    if (state !== this.state) {
      this.flush();
      this.state = state;
      this.ofState = internedOf(state);
    }
    this.pages += pages;
  }

  finish(): StateRuns {
    this.flush();
    // A copy has no spare room, which matters when thousands of observations are kept.
    return this.finished.slice();
  }

  private flush(): void {
    const { pages, state } = this;
    if (pages > LONGEST_INTERNED) this.finished.push([pages, state]);
    else if (pages > 0) this.finished.push((this.ofState[pages] ??= [pages, state]));
    this.pages = 0;
  }
}
