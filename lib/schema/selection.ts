/**
 * Which pages of a region an access touches, and in which order.
 *
 * A pattern is a permutation of the pages `first .. first + pages - 1`; an access takes the positions
 * `from .. to - 1` of that permutation. So successive slices of one pattern never touch a page twice.
 * native/core/selection.h holds the same arithmetic in C++; a test compares them.
 */
import Type from 'typebox';

const PageCount = Type.Integer({ minimum: 0, maximum: 2 ** 40 });

export const PatternSchema = Type.Union([Type.Literal('sequential'), Type.Literal('random'), Type.Literal('stride')]);
export type Pattern = Type.Static<typeof PatternSchema>;

export const SelectionSchema = Type.Object({
  first: PageCount,
  pages: PageCount,
  pattern: PatternSchema,
  /** Seed of `random`, 0 .. 2^32 - 1; 0 for the other patterns. */
  seed: Type.Integer({ minimum: 0, maximum: 2 ** 32 - 1 }),
  /** Distance in pages of `stride`; 1 for the other patterns. */
  stride: Type.Integer({ minimum: 1, maximum: 2 ** 40 }),
  from: PageCount,
  to: PageCount,
});
export type Selection = Type.Static<typeof SelectionSchema>;

/** A run of consecutive pages: `first` and how many. */
export interface PageRun {
  first: number;
  pages: number;
}

function mix(value: number, key: number): number {
  let h = Math.imul((value ^ key) >>> 0, 0x9e3779b1) >>> 0;
  h = Math.imul((h ^ (h >>> 15)) >>> 0, 0x85ebca77) >>> 0;
  return (h ^ (h >>> 13)) >>> 0;
}

/**
 * A seeded permutation of 0 .. n - 1 that needs no memory: a four-round Feistel network over the smallest
 * even number of bits that holds n, walked until the value falls below n.
 */
function feistel(position: number, n: number, seed: number): number {
  let half = 1;
  while (4 ** half < n) half++;
  const size = 2 ** half;
  const mask = size - 1;
  let value = position;
  do {
    let left = Math.floor(value / size);
    let right = value % size;
    for (let round = 0; round < 4; round++) {
      const mixed = (mix(right, (seed + Math.imul(round, 0x27d4eb2f)) >>> 0) & mask) >>> 0;
      [left, right] = [right, ((left ^ mixed) & mask) >>> 0];
    }
    value = left * size + right;
  } while (value >= n);
  return value;
}

/** The page of the region that stands at a position of the selection's pattern. */
export function pageAt(selection: Selection, position: number): number {
  const { first, pages, stride } = selection;
  switch (selection.pattern) {
    case 'sequential':
      return first + position;
    case 'random':
      return first + feistel(position, pages, selection.seed);
    case 'stride': {
      // Pages 0, s, 2s, ... then 1, s + 1, ...: the first `pages % stride` columns are one page longer.
      const short = Math.floor(pages / stride);
      const longer = pages % stride;
      const inLonger = longer * (short + 1);
      const column =
        position < inLonger ? Math.floor(position / (short + 1)) : longer + Math.floor((position - inLonger) / short);
      const row = position < inLonger ? position % (short + 1) : (position - inLonger) % short;
      return first + column + row * stride;
    }
  }
}

export function selectionCount(selection: Selection): number {
  return selection.to - selection.from;
}

/** The selected pages in the order in which they are touched. */
export function selectedPages(selection: Selection): Float64Array {
  const pages = new Float64Array(selectionCount(selection));
  for (let i = 0; i < pages.length; i++) pages[i] = pageAt(selection, selection.from + i);
  return pages;
}

/** The selected pages as ascending runs of consecutive pages; order is lost. */
export function selectedRuns(selection: Selection): PageRun[] {
  const count = selectionCount(selection);
  if (count === 0) return [];
  if (selection.pattern === 'sequential') return [{ first: selection.first + selection.from, pages: count }];
  if (count === selection.pages) return [{ first: selection.first, pages: count }];
  const sorted = selectedPages(selection).sort();
  const runs: PageRun[] = [];
  let run: PageRun | undefined;
  for (const page of sorted) {
    if (run && page === run.first + run.pages) run.pages++;
    else runs.push((run = { first: page, pages: 1 }));
  }
  return runs;
}
