import { describe, expect, test } from 'vitest';
import { copiesInTheEnd, share, shareLabel } from '../../lib/experiments/shares.js';

const ORDER = { pattern: 'sequential', seed: 1, stride: 2 } as const;

describe('shares', () => {
  test.each([
    ['same', 0, 3],
    ['disjoint', 2, 3],
  ] as const)(
    'of overlap=%s come to all that writer %i of %i is to write, each page once',
    (overlap, index, writers) => {
      const shares = [1, 2, 3, 4].map((step) =>
        share({ ...ORDER, overlap, writer: 'children', steps: 4 }, 101, index, writers, step),
      );
      const [first] = shares;
      const own = overlap === 'same' ? { first: 0, pages: 101 } : { first: 67, pages: 34 };
      expect(first).toMatchObject({ ...own, from: 0 });
      expect(shares.slice(1).map(({ from }) => from)).toEqual(shares.slice(0, -1).map(({ to }) => to));
      expect(shares.at(-1)?.to).toBe(own.pages);
    },
  );

  test('are named by per cent, and no two alike', () => {
    expect([1, 2, 3, 4].map((step) => shareLabel(step, 4))).toEqual(['25%', '50%', '75%', '100%']);
    expect(shareLabel(1, 3)).toBe('33%');
    for (const steps of [1, 7, 99, 100, 101, 250, 999, 1000]) {
      const labels = Array.from({ length: steps }, (_, index) => shareLabel(index + 1, steps));
      expect(new Set(labels).size).toBe(steps);
      expect(labels.at(-1)).toBe('100%');
    }
  });

  test('copy what is written once less than there are owners, at most', () => {
    const copies = (writer: 'children' | 'parent' | 'both', overlap: 'same' | 'disjoint' = 'same') =>
      copiesInTheEnd({ writer, overlap, children: 8 });
    expect([copies('children'), copies('parent'), copies('both'), copies('both', 'disjoint')]).toEqual([8, 1, 8, 1]);
  });
});
