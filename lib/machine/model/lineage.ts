/**
 * A lineage is one memory object with all who map it: a private anonymous region and its forked copies, a shared
 * anonymous region, a memfd, a file. Its pages are counted from the object's start, the same for every mapping.
 */
import type { PageRun } from '../../schema/selection.js';
import { type Configuration, ConfigurationTable, Draft, UNTOUCHED } from './configuration.js';
import { RunList, TransitionTable } from './runs.js';

export type LineageKind = 'private-anonymous' | 'shared-anonymous' | 'memfd' | 'file' | HugetlbKind;
type HugetlbKind = 'private-hugetlb' | 'shared-hugetlb';

/** What an operation came to. */
export interface Effect {
  faults: number;
  /** Pages that were met and are now in the page cache, and were not before. */
  allocated: number;
}

export class Lineage {
  readonly table = new ConfigurationTable();
  readonly runs = new RunList();
  /** Mappings that exist. */
  readonly mappings = new Set<number>();
  /** Some entry may be stale; without it nobody need look for them. */
  hasStale = false;
  /** Why nobody knows which of its pages have been merged with others. */
  mergeDoubt: string | undefined;
  /** Some of its pages may be merged ones. */
  hasMerged = false;
  /** The same of entries of swap. */
  hasSwapped = false;
  private nextMapping = 0;

  /**
   * @param pages Length of the object; Infinity for private anonymous memory, which has no end of its own.
   * @param chargedPerPage shmem_acct_blocks(): each allocated page is charged (memfd, and MAP_NORESERVE).
   */
  constructor(
    readonly kind: LineageKind,
    readonly pages: number,
    readonly chargedPerPage: boolean,
  ) {}

  get cached(): boolean {
    return this.kind !== 'private-anonymous' && this.kind !== 'private-hugetlb';
  }

  get isHugetlb(): boolean {
    return this.kind === 'private-hugetlb' || this.kind === 'shared-hugetlb';
  }

  addMapping(): number {
    const id = this.nextMapping++;
    this.mappings.add(id);
    return id;
  }

  /** Applies `change` once to each configuration among the selected pages; the number it returns are faults per page. */
  apply(selected: readonly PageRun[], change: (draft: Draft) => number): Effect {
    const faults = new Map<number, number>();
    const results = new TransitionTable(this.table.size, (number) => {
      const draft = new Draft(this.table.get(number));
      faults.set(number, change(draft));
      return this.table.intern(draft);
    });
    this.runs.apply(selected, results);
    const effect: Effect = { faults: 0, allocated: 0 };
    results.forEachMet((number, pages) => {
      effect.faults += pages * (faults.get(number) ?? 0);
      if (this.table.get(results.next(number)).cache.present && !this.table.get(number).cache.present) {
        effect.allocated += pages;
      }
    });
    return effect;
  }

  /** Applies a change that costs no faults. */
  change(selected: readonly PageRun[], by: (draft: Draft) => void): Effect {
    return this.apply(selected, (draft) => {
      by(draft);
      return 0;
    });
  }

  /** The configuration of one page. */
  at(page: number): Configuration {
    let found = UNTOUCHED;
    this.runs.forEach(page, page + 1, (number) => (found = number));
    return this.table.get(found);
  }

  /** The sum over all pages of what a page counts. */
  sumPages(countOf: (configuration: Configuration) => number): number {
    let total = 0;
    const known = new Map<number, number>();
    this.runs.forEach(0, Number.MAX_SAFE_INTEGER, (number, start, end) => {
      let count = known.get(number);
      if (count === undefined) known.set(number, (count = countOf(this.table.get(number))));
      if (count > 0) total += count * (end - start);
    });
    return total;
  }

  /** How many pages in the range satisfy the condition. */
  countPages(selected: readonly PageRun[], holds: (configuration: Configuration) => boolean): number {
    let count = 0;
    const known = new Map<number, boolean>();
    for (const { first, pages } of selected) {
      this.runs.forEach(first, first + pages, (number, start, end) => {
        let held = known.get(number);
        if (held === undefined) known.set(number, (held = holds(this.table.get(number))));
        if (held) count += end - start;
      });
    }
    return count;
  }

  /** Frames in use: anonymous ones, and pages of the page cache. */
  frames(): number {
    return this.sumPages(({ cache, exclusive }) => exclusive.length + (cache.present && this.kind !== 'file' ? 1 : 0));
  }

  /** Pages that are in the page cache. */
  cachedPages(): number {
    return this.countPages([{ first: 0, pages: Number.MAX_SAFE_INTEGER }], ({ cache }) => cache.present);
  }
}
