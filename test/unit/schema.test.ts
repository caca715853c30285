import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { agrees, bounds, sum } from '../../lib/schema/figure.js';
import { PageSet } from '../../lib/schema/page-set.js';
import { selectedPages, selectedRuns } from '../../lib/schema/selection.js';
import type { Selection } from '../../lib/schema/selection.js';
import { formatBytes, parseSize } from '../../lib/schema/units.js';

const why = 'a reason';

describe('figures', () => {
  test('an exact expectation allows that number and no other', () => {
    expect(agrees(4, 4)).toBe(true);
    expect(agrees(4, 5)).toBe(false);
  });

  test('a range allows what lies inside it', () => {
    expect(agrees({ min: 2, max: 4, why }, 4)).toBe(true);
    expect(agrees({ min: 2, max: 4, why }, 5)).toBe(false);
  });

  test('a measured range agrees if it lies inside, differs if it lies outside, and else decides nothing', () => {
    expect(agrees({ min: 2, max: 6, why }, { min: 3, max: 5, why })).toBe(true);
    expect(agrees({ min: 2, max: 4, why }, { min: 5, max: 6, why })).toBe(false);
    expect(agrees(3, { min: 4, max: 9, why })).toBe(false);
    expect(agrees({ min: 2, max: 4, why }, { min: 3, max: 5, why })).toBeUndefined();
    expect(agrees(3, { min: 3, max: 4, why })).toBeUndefined();
  });

  test('what is unknown on either side is not judged', () => {
    expect(agrees({ unknown: why }, 4)).toBeUndefined();
    expect(agrees(4, { unknown: why })).toBeUndefined();
  });

  test('a sum is as exact as its least exact part', () => {
    expect(sum([1, 2])).toBe(3);
    expect(sum([1, { min: 2, max: 4, why }])).toEqual({ min: 3, max: 5, why });
    expect(sum([1, { unknown: why }])).toEqual({ unknown: why });
    expect(bounds({ unknown: why })).toEqual({ min: -Infinity, max: Infinity });
  });
});

const selections = fc
  .record({
    first: fc.nat({ max: 50 }),
    pages: fc.integer({ min: 1, max: 3000 }),
    pattern: fc.constantFrom('sequential', 'random', 'stride'),
    seed: fc.nat({ max: 2 ** 32 - 1 }),
    stride: fc.integer({ min: 1, max: 4000 }),
    a: fc.nat(),
    b: fc.nat(),
  })
  .map(({ a, b, ...rest }): Selection => {
    const from = a % (rest.pages + 1);
    return { ...rest, from, to: from + (b % (rest.pages - from + 1)) };
  });

describe('selections', () => {
  test('every pattern is a permutation: no page twice, none left out', () => {
    fc.assert(
      fc.property(selections, (selection) => {
        const pages = [...selectedPages({ ...selection, from: 0, to: selection.pages })];
        const wanted = Array.from({ length: selection.pages }, (_, index) => selection.first + index);
        expect(pages.sort((a, b) => a - b)).toEqual(wanted);
      }),
    );
  });

  test('the runs of a selection hold just its pages, ascending, and never touch', () => {
    fc.assert(
      fc.property(selections, (selection) => {
        const runs = selectedRuns(selection);
        const pages = runs.flatMap(({ first, pages: count }) => Array.from({ length: count }, (_, i) => first + i));
        expect(pages).toEqual([...selectedPages(selection)].sort((a, b) => a - b));
        runs.slice(1).forEach(({ first }, index) => {
          const before = runs[index];
          expect(first).toBeGreaterThan((before?.first ?? 0) + (before?.pages ?? 0));
        });
      }),
    );
  });

  test('by hand: a stride of 3 over 8 pages', () => {
    const selection = { first: 0, pages: 8, pattern: 'stride', seed: 0, stride: 3, from: 0, to: 8 } as const;
    expect([...selectedPages(selection)]).toEqual([0, 3, 6, 1, 4, 7, 2, 5]);
  });

  test('another seed is another order', () => {
    const selection = { first: 0, pages: 100, pattern: 'random', seed: 1, stride: 1, from: 0, to: 100 } as const;
    expect([...selectedPages(selection)]).not.toEqual([...selectedPages({ ...selection, seed: 2 })]);
  });
});

test('a set of pages behaves as a set of numbers', () => {
  const runs = fc.record({ first: fc.nat({ max: 40 }), pages: fc.nat({ max: 12 }) });
  fc.assert(
    fc.property(fc.array(fc.record({ add: fc.boolean(), run: runs })), runs, (changes, probe) => {
      const set = new PageSet();
      const numbers = new Set<number>();
      for (const { add, run } of changes) {
        if (add) set.add(run);
        else set.remove(run);
        for (let page = run.first; page < run.first + run.pages; page++) {
          if (add) numbers.add(page);
          else numbers.delete(page);
        }
      }
      const inside = Array.from({ length: probe.pages }, (_, index) => probe.first + index);
      expect(set.size).toBe(numbers.size);
      expect(set.covers(probe)).toBe(inside.every((page) => numbers.has(page)));
      expect(set.within(probe).reduce((total, { pages }) => total + pages, 0)).toBe(
        inside.filter((page) => numbers.has(page)).length,
      );
    }),
  );
});

describe('sizes', () => {
  test.each([
    ['4096', 4096],
    ['64KiB', 65536],
    ['256MiB', 2 ** 28],
    ['1.5 GiB', 1.5 * 2 ** 30],
    ['2g', 2 ** 31],
  ])('%s is %d bytes', (text, bytes) => {
    expect(parseSize(text)).toBe(bytes);
  });

  test.each(['', 'big', '-1', '1XB', '0.3', '1e9', '99999999TiB'])('%j is refused', (text) => {
    expect(() => parseSize(text)).toThrow(/is not a size/);
  });

  test('are written with three digits and a binary unit', () => {
    // Some bytes less than it: three digits, as of the amount that they are rounded to.
    expect([10 * 2 ** 30 - 8192, 100 * 2 ** 30 - 8192].map(formatBytes)).toEqual(['10.0 GiB', '100 GiB']);
    expect([0, 1023, 1024, 2 ** 28, 1.25 * 2 ** 30, -4096].map(formatBytes)).toEqual([
      '0 B',
      '1023 B',
      '1 KiB',
      '256 MiB',
      '1.25 GiB',
      '-4 KiB',
    ]);
  });
});
