/**
 * A sorted run list over the pages of one memory object: run i holds the pages from starts[i] up to starts[i + 1],
 * the last one all that follow. Every page of a run has the same configuration; neighbours differ.
 */
import type { PageRun } from '../../schema/selection.js';
import { UNTOUCHED } from './configuration.js';

/** What an operation does to a page, by the number of its configuration; also counts the pages it met. */
export class TransitionTable {
  private readonly results: Int32Array;
  /** Pages met, by the number of their configuration before. */
  readonly pages: Float64Array;

  /**
   * @param size How many configurations there are now; the operation meets no others.
   * @param compute The number of the configuration after the operation.
   */
  constructor(
    size: number,
    private readonly compute: (configuration: number) => number,
  ) {
    this.results = new Int32Array(size).fill(-1);
    this.pages = new Float64Array(size);
  }

  next(configuration: number): number {
    let result = this.results[configuration] ?? -1;
    if (result < 0) {
      result = this.compute(configuration);
      this.results[configuration] = result;
    }
    return result;
  }

  /** Calls for every configuration that was met. */
  forEachMet(visit: (configuration: number, pages: number) => void): void {
    this.pages.forEach((pages, configuration) => {
      if (pages > 0) visit(configuration, pages);
    });
  }
}

/** Growing arrays into which a stretch of a run list is rebuilt. */
class Rebuilt {
  starts = new Float64Array(64);
  configurations = new Int32Array(64);
  count = 0;

  clear(): void {
    this.count = 0;
  }

  push(start: number, configuration: number): void {
    if (this.count > 0 && this.configurations[this.count - 1] === configuration) return;
    if (this.count === this.starts.length) {
      this.starts = enlarged(this.starts, new Float64Array(this.count * 2));
      this.configurations = enlarged(this.configurations, new Int32Array(this.count * 2));
    }
    this.starts[this.count] = start;
    this.configurations[this.count] = configuration;
    this.count++;
  }
}

function enlarged<T extends Float64Array | Int32Array>(from: T, to: T): T {
  to.set(from);
  return to;
}

/** Shared by all run lists: only one is rebuilt at a time. */
const rebuilt = new Rebuilt();

export class RunList {
  private starts = new Float64Array(4);
  private configurations = new Int32Array(4).fill(UNTOUCHED);
  private count = 1;

  /** How many runs there are. */
  get length(): number {
    return this.count;
  }

  /**
   * The run list itself, for a loop that would spend most of its time in calls: run i begins at starts[i], the first
   * that reaches into the pages from `from` on is number `first`.
   */
  raw(from: number): { starts: Float64Array; configurations: Int32Array; first: number; count: number } {
    const { starts, configurations, count } = this;
    return { starts, configurations, first: this.indexOf(from), count };
  }

  /** Calls for each run, or part of one, within [from, to), in ascending order. */
  forEach(from: number, to: number, visit: (configuration: number, start: number, end: number) => void): void {
    const { starts, configurations, count } = this;
    if (from >= to) return;
    for (let i = this.indexOf(from); i < count; i++) {
      const start = Math.max(from, starts[i] ?? 0);
      if (start >= to) break;
      visit(configurations[i] ?? UNTOUCHED, start, Math.min(to, i + 1 < count ? (starts[i + 1] ?? to) : to));
    }
  }

  /** Applies an operation to the pages of the ascending runs `selected`, in one pass. */
  apply(selected: readonly PageRun[], table: TransitionTable): void {
    const first = selected[0];
    const last = selected.at(-1);
    if (!first || !last) return;
    const { starts, configurations, count } = this;
    const { pages: met } = table;
    const begin = this.indexOf(first.first);
    let i = begin;
    let at = starts[i] ?? 0;
    let end = i + 1 < count ? (starts[i + 1] ?? Infinity) : Infinity;
    let configuration = configurations[i] ?? UNTOUCHED;
    rebuilt.clear();
    const step = (): void => {
      i++;
      end = i + 1 < count ? (starts[i + 1] ?? Infinity) : Infinity;
      configuration = configurations[i] ?? UNTOUCHED;
    };
    for (const { first: from, pages } of selected) {
      const to = from + pages;
      while (end <= from) {
        rebuilt.push(at, configuration);
        at = end;
        step();
      }
      if (at < from) rebuilt.push(at, configuration);
      at = from;
      while (at < to) {
        const until = end < to ? end : to;
        rebuilt.push(at, table.next(configuration));
        met[configuration] = (met[configuration] ?? 0) + (until - at);
        at = until;
        if (at === end) step();
      }
    }
    if (i < count) rebuilt.push(at, configuration);
    this.splice(begin, Math.min(i + 1, count));
  }

  /** Applies an operation to every page. */
  applyToAll(table: TransitionTable): void {
    rebuilt.clear();
    for (let i = 0; i < this.count; i++) {
      rebuilt.push(this.starts[i] ?? 0, table.next(this.configurations[i] ?? UNTOUCHED));
    }
    this.splice(0, this.count);
  }

  /** Copies the configurations of the pages from `from` into `into`. */
  load(from: number, into: Int32Array): void {
    this.forEach(from, from + into.length, (configuration, start, end) => {
      into.fill(configuration, start - from, end - from);
    });
  }

  /** Replaces the configurations of whole stretches of pages; the stretches ascend and do not overlap. */
  store(stretches: readonly { from: number; configurations: Int32Array }[]): void {
    const first = stretches[0];
    if (!first) return;
    const begin = this.indexOf(first.from);
    let i = begin;
    let at = this.starts[i] ?? 0;
    rebuilt.clear();
    for (const { from, configurations } of stretches) {
      for (; i + 1 < this.count && (this.starts[i + 1] ?? 0) <= from; i++) {
        rebuilt.push(at, this.configurations[i] ?? UNTOUCHED);
        at = this.starts[i + 1] ?? 0;
      }
      if (at < from) rebuilt.push(at, this.configurations[i] ?? UNTOUCHED);
      configurations.forEach((configuration, k) => {
        rebuilt.push(from + k, configuration);
      });
      at = from + configurations.length;
      while (i + 1 < this.count && (this.starts[i + 1] ?? 0) <= at) i++;
    }
    rebuilt.push(at, this.configurations[i] ?? UNTOUCHED);
    this.splice(begin, i + 1);
  }

  /** The run that holds the page. */
  private indexOf(page: number): number {
    let low = 0;
    let high = this.count;
    while (high - low > 1) {
      const middle = (low + high) >>> 1;
      if ((this.starts[middle] ?? 0) <= page) low = middle;
      else high = middle;
    }
    return low;
  }

  /** Puts the rebuilt runs in the place of the runs begin .. end - 1, and merges at both seams. */
  private splice(begin: number, end: number): void {
    const follows = end < this.count && this.configurations[end] === rebuilt.configurations[rebuilt.count - 1];
    const tail = follows ? end + 1 : end;
    const joins = begin > 0 && this.configurations[begin - 1] === rebuilt.configurations[0] ? 1 : 0;
    const inserted = rebuilt.count - joins;
    const count = begin + inserted + (this.count - tail);
    if (count > this.starts.length) {
      this.starts = enlarged(this.starts, new Float64Array(count * 2));
      this.configurations = enlarged(this.configurations, new Int32Array(count * 2));
    }
    this.starts.copyWithin(begin + inserted, tail, this.count);
    this.configurations.copyWithin(begin + inserted, tail, this.count);
    this.starts.set(rebuilt.starts.subarray(joins, rebuilt.count), begin);
    this.configurations.set(rebuilt.configurations.subarray(joins, rebuilt.count), begin);
    this.count = count;
  }
}
