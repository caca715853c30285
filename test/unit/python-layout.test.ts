/** The layout of CPython's objects, against figures computed by hand from obmalloc.c. */
import { describe, expect, test } from 'vitest';
import { FLOAT, LIST, Layout, OBMALLOC, pagesIn, runsOf, survivorsOf } from '../../lib/experiments/python-layout.js';

const PAGE = 4096;

describe('lists of CPython 3.10 and later', () => {
  test('are 255 to a pool of 16 KiB, of which 64 make an arena', () => {
    // (16384 - 48) / 64 = 255.25.
    const layout = new Layout(OBMALLOC['3.10'], LIST, 255 * 64 + 1, PAGE);
    expect(layout).toMatchObject({ blockBytes: 64, blocksPerPool: 255, poolsPerArena: 64, pools: 65, arenas: 2 });
    expect(layout.arenaOf(255 * 64 - 1)).toBe(0);
    expect(layout.arenaOf(255 * 64)).toBe(1);
  });

  test('have their counts 16 bytes behind their GC heads, so that the two may lie on two pages', () => {
    // The block of object 63 begins at 48 + 63 * 64 = 4080: its head is on page 0, its count at 4096, on page 1.
    const layout = new Layout(OBMALLOC['3.10'], LIST, 64, PAGE);
    expect(layout.blockAt(63)).toBe(4080);
    expect(layout.gcHeads).toEqual([{ first: 0, pages: 1 }]);
    expect(layout.counts).toEqual([{ first: 0, pages: 2 }]);
    expect(layout.written).toEqual([{ first: 0, pages: 2 }]);
    expect(new Layout(OBMALLOC['3.10'], LIST, 63, PAGE).counts).toEqual([{ first: 0, pages: 1 }]);
  });

  test('fill four pages a pool', () => {
    expect(pagesIn(new Layout(OBMALLOC['3.10'], LIST, 255, PAGE).counts)).toBe(4);
    expect(pagesIn(new Layout(OBMALLOC['3.10'], LIST, 256, PAGE).counts)).toBe(5);
    // 100,000 / 255 = 392 pools and 40 lists, which end at 48 + 40 * 64, on the first page of the last pool.
    expect(pagesIn(new Layout(OBMALLOC['3.10'], LIST, 100_000, PAGE).counts)).toBe(4 * 392 + 1);
  });
});

test('before 3.10 a pool is a page of 63 lists, and an arena 64 of them', () => {
  const layout = new Layout(OBMALLOC['3.9'], LIST, 64, PAGE);
  expect(layout).toMatchObject({ blocksPerPool: 63, poolsPerArena: 64, pools: 2, arenas: 1 });
  expect(layout.blockAt(63)).toBe(PAGE + 48);
});

test('floats are 510 to a pool of 16 KiB, and no container: a collection writes to none of them', () => {
  const layout = new Layout(OBMALLOC['3.10'], FLOAT, 1000, PAGE);
  expect(layout).toMatchObject({ blockBytes: 32, blocksPerPool: 510 });
  expect(layout.gcHeads).toEqual([]);
  expect(pagesIn(layout.counts)).toBe(8);
});

test('survivors pin the arenas that they are in', () => {
  const layout = new Layout(OBMALLOC['3.10'], LIST, 255 * 64 * 5, PAGE);
  expect(layout.pinnedBy([0])).toEqual(new Set([0]));
  expect(layout.pinnedBy(survivorsOf(layout.objects, 100, 'together'))).toEqual(new Set([0]));
  expect(layout.pinnedBy(survivorsOf(layout.objects, 100, 'scattered')).size).toBe(5);
  expect(layout.pinnedBy(survivorsOf(layout.objects, 2, 'scattered'))).toEqual(new Set([0, 2]));
});

test('what is larger than 512 bytes is not laid out', () => {
  expect(() => new Layout(OBMALLOC['3.10'], { bytes: 513, countAt: 0, gcHeadAt: undefined }, 1, PAGE)).toThrow(
    /513 bytes/,
  );
});

test('runs are of neighbours, whatever their order', () => {
  expect(runsOf([5, 1, 2, 7, 6])).toEqual([
    { first: 1, pages: 2 },
    { first: 5, pages: 3 },
  ]);
  expect(runsOf([])).toEqual([]);
});
