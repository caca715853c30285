/** A set of page numbers, kept as ascending runs that neither touch nor overlap. */
import type { PageRun } from './selection.js';

export class PageSet {
  #runs: PageRun[];

  constructor(runs: readonly PageRun[] = []) {
    this.#runs = [];
    for (const run of runs) this.add(run);
  }

  get runs(): readonly PageRun[] {
    return this.#runs;
  }

  get size(): number {
    return this.#runs.reduce((total, run) => total + run.pages, 0);
  }

  copy(): PageSet {
    return new PageSet(this.#runs.map((run) => ({ ...run })));
  }

  add(added: PageRun): void {
    if (added.pages === 0) return;
    let first = added.first;
    let end = added.first + added.pages;
    const apart: PageRun[] = [];
    for (const run of this.#runs) {
      if (run.first + run.pages < first || run.first > end) {
        apart.push(run);
        continue;
      }
      first = Math.min(first, run.first);
      end = Math.max(end, run.first + run.pages);
    }
    apart.push({ first, pages: end - first });
    this.#runs = apart.sort((a, b) => a.first - b.first);
  }

  remove(removed: PageRun): void {
    const removedEnd = removed.first + removed.pages;
    this.#runs = this.#runs.flatMap((run) => {
      const end = run.first + run.pages;
      const before = { first: run.first, pages: Math.min(end, removed.first) - run.first };
      const after = { first: Math.max(run.first, removedEnd), pages: end - Math.max(run.first, removedEnd) };
      return [before, after].filter((part) => part.pages > 0);
    });
  }

  /** The runs of this set that lie inside a range. */
  within(range: PageRun): PageRun[] {
    const end = range.first + range.pages;
    return this.#runs.flatMap((run) => {
      const first = Math.max(run.first, range.first);
      const pages = Math.min(run.first + run.pages, end) - first;
      return pages > 0 ? [{ first, pages }] : [];
    });
  }

  /** Whether every page of the range is in the set. */
  covers(range: PageRun): boolean {
    return this.within(range).reduce((total, run) => total + run.pages, 0) === range.pages;
  }
}
