/**
 * Which pages of a region an access touches, and in which order.
 *
 * A pattern is a permutation of the pages `first .. first + pages - 1`; an access takes the positions
 * `from .. to - 1` of that permutation. So successive slices of one pattern never touch a page twice.
 * native/core/selection.h holds the same arithmetic in C++; a test compares them.
 */
import type { Selection } from './selection-schema.js';

export type { Pattern, Selection } from './selection-schema.js';

/** A run of consecutive pages: `first` and how many. */
export interface PageRun {
  first: number;
  pages: number;
}

/** The most pages that a random pattern can permute: its arithmetic is of 32 bits. */
export const MAX_RANDOM_PAGES = 2 ** 30;

function mix(value: number, key: number): number {
  let h = Math.imul(value ^ key, 0x9e3779b1);
  h = Math.imul(h ^ (h >>> 15), 0x85ebca77);
  return h ^ (h >>> 13);
}

/**
 * A seeded permutation of 0 .. n - 1 that needs no memory: a four-round Feistel network over the smallest even
 * number of bits that holds n, walked until the value falls below n.
 */
function shuffler(n: number, seed: number): (position: number) => number {
  const half = Math.max(1, (33 - Math.clz32(n - 1)) >> 1);
  const mask = (1 << half) - 1;
  const key = (round: number): number => (seed + Math.imul(round, 0x27d4eb2f)) | 0;
  const [key0, key1, key2, key3] = [key(0), key(1), key(2), key(3)];
  return (position) => {
    let value = position;
    do {
      let left = value >>> half;
      let right = value & mask;
      left ^= mix(right, key0) & mask;
      right ^= mix(left, key1) & mask;
      left ^= mix(right, key2) & mask;
      right ^= mix(left, key3) & mask;
      value = (left << half) | right;
    } while (value >= n);
    return value;
  };
}

/** Pages 0, s, 2s, ... then 1, s + 1, ...: the first `pages % stride` columns are one page longer. */
function strider(pages: number, stride: number): (position: number) => number {
  const short = Math.floor(pages / stride);
  const longer = pages % stride;
  const inLonger = longer * (short + 1);
  return (position) => {
    if (position < inLonger) return Math.floor(position / (short + 1)) + (position % (short + 1)) * stride;
    const rest = position - inLonger;
    return longer + Math.floor(rest / short) + (rest % short) * stride;
  };
}

/** The permutation of a selection's pattern: from a position to the page of the region that stands there. */
export function pageOrder({ first, pages, pattern: name, stride, seed }: Selection): (position: number) => number {
  if (name === 'sequential') return (position) => first + position;
  const permute = name === 'random' ? shuffler(pages, seed) : strider(pages, stride);
  return (position) => first + permute(position);
}

export function selectionCount(selection: Selection): number {
  return selection.to - selection.from;
}

/** The selected pages in the order in which they are touched. */
export function selectedPages(selection: Selection): Float64Array {
  const pageAt = pageOrder(selection);
  const pages = new Float64Array(selectionCount(selection));
  for (let i = 0; i < pages.length; i++) pages[i] = pageAt(selection.from + i);
  return pages;
}

/** Where a bitmap of all pages of the pattern is smaller than a list of the selected ones, it is quicker too. */
const PAGES_PER_SELECTED = 32;

/** The selected pages as ascending runs of consecutive pages; order is lost. */
export function selectedRuns(selection: Selection): PageRun[] {
  const count = selectionCount(selection);
  const { first, pages, from } = selection;
  if (count === 0) return [];
  if (selection.pattern === 'sequential') return [{ first: first + from, pages: count }];
  if (count === pages) return [{ first, pages }];
  return pages <= count * PAGES_PER_SELECTED ? runsByBitmap(selection) : runsBySorting(selection);
}

function runsBySorting(selection: Selection): PageRun[] {
  const runs: PageRun[] = [];
  let run: PageRun | undefined;
  for (const page of selectedPages(selection).sort()) {
    if (run && page === run.first + run.pages) run.pages++;
    else runs.push((run = { first: page, pages: 1 }));
  }
  return runs;
}

function runsByBitmap(selection: Selection): PageRun[] {
  const { first, pages, from, to } = selection;
  const pageAt = pageOrder(selection);
  const selected = new Uint8Array(pages + 1);
  for (let position = from; position < to; position++) selected[pageAt(position) - first] = 1;
  const runs: PageRun[] = [];
  let begin = -1;
  // One page beyond the last is never selected, so that the last run ends too.
  for (let page = 0; page <= pages; page++) {
    if (selected[page] === 1) {
      if (begin < 0) begin = page;
    } else if (begin >= 0) {
      runs.push({ first: first + begin, pages: page - begin });
      begin = -1;
    }
  }
  return runs;
}
