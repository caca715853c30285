import { describe, expect, test } from 'vitest';
import { KeyStore, runsOfPages, seededNumbers } from '../../lib/experiments/key-writes.js';

const STORE = { pages: 500, keysPerPage: 4, exponent: 0, seed: 7 };

function distinct(pages: Uint32Array): number {
  return new Set(pages).size;
}

describe('writes to keys', () => {
  test('are those of the seed', () => {
    const first = new KeyStore(STORE);
    expect(first.pagesOfWrites(300)).toEqual(first.pagesOfWrites(300));
    expect(first.pagesOfWrites(300)).toEqual(new KeyStore(STORE).pagesOfWrites(300));
    expect(first.pagesOfWrites(300)).not.toEqual(new KeyStore({ ...STORE, seed: 8 }).pagesOfWrites(300));
    expect(first.pagesOfWrites(400).slice(0, 300)).toEqual(first.pagesOfWrites(300));
  });

  test('come from numbers that mulberry32 gives everywhere', () => {
    const next = seededNumbers(1);
    expect([next(), next(), next()].map((number) => number * 2 ** 32)).toEqual([2693262067, 11749833, 2265367787]);
  });

  test.each([0, 0.99, 2])('lie in the store, with the exponent %d', (exponent) => {
    const pages = new KeyStore({ ...STORE, exponent }).pagesOfWrites(5000);
    expect(Math.max(...pages)).toBeLessThan(500);
    expect(pages).toHaveLength(5000);
  });

  test('meet fewer pages the more skewed they are, and more of them where keys share a page', () => {
    const met = (exponent: number, keysPerPage: number) =>
      distinct(new KeyStore({ ...STORE, exponent, keysPerPage }).pagesOfWrites(1000));
    expect(met(0.99, 4)).toBeLessThan(met(0, 4));
    expect(met(2, 4)).toBeLessThan(met(0.99, 4));
    expect(met(0.99, 64)).toBeGreaterThan(met(0.99, 1));
  });

  test.each([1, 4])(
    'meet N (1 - (1 - 1/N)^k) pages on average if all are alike, with %i keys in a page',
    (keysPerPage) => {
      const expected = 500 * (1 - (1 - 1 / 500) ** 700);
      expect(new KeyStore({ ...STORE, keysPerPage }).expectedPages(700)).toBeCloseTo(expected, 6);
    },
  );

  test('meet one page at the first, and none without any', () => {
    for (const exponent of [0, 0.99]) {
      const store = new KeyStore({ ...STORE, exponent });
      expect([store.expectedPages(0), distinct(store.pagesOfWrites(0))]).toEqual([0, 0]);
      expect(store.expectedPages(1)).toBeCloseTo(1, 6);
      expect(distinct(store.pagesOfWrites(1))).toBe(1);
    }
  });

  test('follow the law: the most written of two pages with one key each has 1 / (1 + 1/2^s) of them', () => {
    const pages = new KeyStore({ pages: 2, keysPerPage: 1, exponent: 1, seed: 3 }).pagesOfWrites(30_000);
    const ones = pages.reduce((total, page) => total + page, 0);
    // Of a fixed seed, so that this is no matter of chance: three standard deviations of 82 about 20,000.
    expect(Math.abs(Math.max(ones, 30_000 - ones) - 20_000)).toBeLessThan(3 * 82);
  });
});

describe('runs of pages', () => {
  test('join neighbours, in ascending order, each page once', () => {
    expect(runsOfPages(Uint32Array.of(5, 1, 2, 5, 0, 9), 10)).toEqual([
      { first: 0, pages: 3 },
      { first: 5, pages: 1 },
      { first: 9, pages: 1 },
    ]);
    expect(runsOfPages(Uint32Array.of(), 10)).toEqual([]);
    expect(runsOfPages(Uint32Array.of(0), 1)).toEqual([{ first: 0, pages: 1 }]);
  });
});
