/** The page map of a region: which pages of it are what, in each process, at each observation. */
import type { ResultDocument } from '../schema/result.js';
import { countStates } from '../schema/state-runs.js';
import type { PageState, RegionObservation, StateRuns } from '../schema/step.js';
import { Expectations, hugePagesOf, observationsOf, occurrences } from './observations.js';

/** More pages than this many are drawn several to a cell. */
const MOST_CELLS = 1024;

/** What is in a cell: pages by state, the most frequent first. */
export type Cell = readonly (readonly [PageState, number])[];

/** Whether the pages of a region are mapped as huge pages: where only some are, no figure says which. */
export type Huge = 'none' | 'some' | 'all';

export interface RegionMap {
  process: string;
  pages: number;
  pagesPerCell: number;
  cells: Cell[];
  states: StateRuns;
  pagesBy: Record<PageState, number>;
  hugePages: number;
  huge: Huge;
  /** How many pages the model has in another state; undefined where it was not compared. */
  unlikeModel: number | undefined;
}

/** All processes that have the region, at one observation. */
export interface MapStep {
  label: string;
  maps: RegionMap[];
}

export interface PageMap {
  region: string;
  /** In words: how it is mapped. */
  description: string;
  steps: MapStep[];
}

/** A power of two, so that cells end where huge pages and page tables do. */
export function pagesPerCellOf(pages: number): number {
  return 2 ** Math.max(0, Math.ceil(Math.log2(pages / MOST_CELLS)));
}

/** Cells of so many pages each; the last may have fewer. */
export function cellsOf(states: StateRuns, pagesPerCell: number): Cell[] {
  const cells: Cell[] = [];
  let cell = new Map<PageState, number>();
  let room = pagesPerCell;
  const finish = (): void => {
    cells.push([...cell].sort(([, a], [, b]) => b - a));
    cell = new Map();
    room = pagesPerCell;
  };
  for (const [pages, state] of states) {
    let left = pages;
    while (left > 0) {
      const taken = Math.min(left, room);
      cell.set(state, (cell.get(state) ?? 0) + taken);
      left -= taken;
      room -= taken;
      if (room === 0) finish();
    }
  }
  if (cell.size > 0) finish();
  return cells;
}

function regionMap(
  process: string,
  observed: RegionObservation,
  pageSizeBytes: number,
  unlikeModel: number | undefined,
): RegionMap {
  const { states } = observed;
  const pagesBy = countStates(states);
  const pages = states.reduce((total, [count]) => total + count, 0);
  const pagesPerCell = pagesPerCellOf(pages);
  const hugePages = hugePagesOf(observed, pageSizeBytes);
  const present = pagesBy.exclusive + pagesBy.shared;
  const huge = !(hugePages > 0) ? 'none' : hugePages >= present ? 'all' : 'some';
  const cells = cellsOf(states, pagesPerCell);
  return { process, pages, pagesPerCell, cells, states, pagesBy, hugePages, huge, unlikeModel };
}

function describe({ trace }: ResultDocument, region: string): string {
  const mapped = trace.find(({ step }) => step.op === 'map' && step.region === region)?.step;
  if (mapped?.op !== 'map') return '';
  const backing = mapped.backing === 'anonymous' ? 'anonymous' : `of object ${mapped.backing}`;
  const huge = mapped.hugetlb ? ', hugetlb' : mapped.hugePages ? ', MADV_HUGEPAGE' : '';
  return `${mapped.sharing}, ${backing}${huge}, mapped by ${mapped.process}`;
}

/** One for each region of the trace, in the order in which they are seen. */
export function pageMapsOf(result: ResultDocument): PageMap[] {
  const { pageSizeBytes } = result.environment;
  const expectations = new Expectations(result);
  const byRegion = new Map<string, MapStep[]>();
  const observations = observationsOf(result);
  const before = occurrences(observations);
  for (const [index, { label, processes }] of observations.entries()) {
    const here = new Map<string, MapStep>();
    for (const { process, regions } of processes) {
      for (const observed of regions) {
        const check = expectations.of(label, process, observed.region, 'pages in another state', before[index]);
        const unlike = typeof check?.measured === 'number' ? check.measured : undefined;
        const step = here.get(observed.region) ?? { label, maps: [] };
        step.maps.push(regionMap(process, observed, pageSizeBytes, unlike));
        here.set(observed.region, step);
      }
    }
    for (const [region, step] of here) byRegion.set(region, [...(byRegion.get(region) ?? []), step]);
  }
  return [...byRegion].map(([region, steps]) => ({ region, description: describe(result, region), steps }));
}

/** What a reader can find in a map: each state of a page, and pages that are mapped as huge ones. */
function kindsIn({ steps }: PageMap): string[] {
  const maps = steps.flatMap((step) => step.maps);
  const states = maps.flatMap(({ states: runs }) => runs.map(([, state]) => state));
  return [...new Set<string>(maps.some(({ huge }) => huge !== 'none') ? [...states, 'huge'] : states)];
}

/** Two maps of the same pictures tell the same, whoever the processes are. */
function picturesOf({ steps }: PageMap): string {
  return JSON.stringify(steps.map(({ maps }) => maps.map(({ states, huge }) => [states, huge])));
}

/** The one with the highest rank, the first of several; of two ranks the first figure that differs decides. */
function highest<T>(all: readonly T[], rankOf: (one: T) => readonly number[]): T | undefined {
  const ranked = all.map((one) => ({ one, rank: rankOf(one) }));
  ranked.sort((a, b) => {
    const at = a.rank.findIndex((figure, index) => figure !== b.rank[index]);
    return at === -1 ? 0 : (b.rank[at] ?? 0) - (a.rank[at] ?? 0);
  });
  return ranked[0]?.one;
}

/**
 * The maps to draw, in their order. One after the other is chosen: that with the most kinds of pages that none before
 * has, then one whose pictures none before has, then what shows the most kinds, processes and steps.
 */
export function mostTelling(maps: readonly PageMap[], count: number): PageMap[] {
  const shown = new Set<string>();
  let left = maps.map((map) => ({ map, kinds: kindsIn(map), pictures: picturesOf(map) }));
  const chosen = new Set<PageMap>();
  while (chosen.size < count) {
    const best = highest(left, ({ map: { steps }, kinds, pictures }) => [
      kinds.filter((kind) => !shown.has(kind)).length,
      shown.has(pictures) ? 0 : 1,
      kinds.length,
      new Set(steps.flatMap((step) => step.maps.map(({ process }) => process))).size,
      steps.length,
    ]);
    if (!best) break;
    chosen.add(best.map);
    for (const one of [...best.kinds, best.pictures]) shown.add(one);
    left = left.filter((one) => one !== best);
  }
  return maps.filter((map) => chosen.has(map));
}

/** So many of a longer row, spread evenly, the first and the last among them. */
export function spread<T>(all: readonly T[], count: number): T[] {
  if (all.length <= count) return [...all];
  return Array.from({ length: count }, (_, index) => Math.round((index * (all.length - 1)) / (count - 1))).flatMap(
    (index) => all.slice(index, index + 1),
  );
}
