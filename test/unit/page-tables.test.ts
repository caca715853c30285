import { describe, expect, test } from 'vitest';
import { tablesKb } from '../../lib/experiments/page-tables.js';

/** Of 2 MiB: what one table of 512 entries covers, with pages of 4 KiB. */
const SPAN = 2n ** 21n;

describe('page tables', () => {
  test('are one for each 512 pages, and at most one more for each level above', () => {
    expect(tablesKb(8n * SPAN, 512, 4096)).toEqual({ min: 4, max: 4 * (1 + 3) });
    expect(tablesKb(8n * SPAN, 5 * 512, 4096)).toEqual({ min: 20, max: 4 * (5 + 3) });
  });

  test('at the ends may be those of neighbours', () => {
    expect(tablesKb(8n * SPAN + 4096n, 512, 4096)).toEqual({ min: 0, max: 4 * (2 + 3) });
    expect(tablesKb(8n * SPAN + 4096n, 1024, 4096)).toEqual({ min: 4, max: 4 * (3 + 3) });
    expect(tablesKb(8n * SPAN + 4096n, 3, 4096)).toEqual({ min: 0, max: 4 * (1 + 3) });
  });

  test('of the next level are two where a border of 1 GiB lies inside', () => {
    expect(tablesKb(2n ** 30n - SPAN, 1024, 4096)).toEqual({ min: 8, max: 4 * (2 + 2 + 2) });
    expect(tablesKb(2n ** 39n - SPAN, 1024, 4096)).toEqual({ min: 8, max: 4 * (2 + 2 + 2 + 1) });
  });

  test('have 8 bytes for each page of a large range: 48 MiB for 24 GiB', () => {
    expect(tablesKb(0n, 24 * 2 ** 18, 4096).min).toBe(48 * 1024);
  });

  test('cover more where pages are larger', () => {
    expect(tablesKb(2n ** 25n, 2048, 16384)).toEqual({ min: 16, max: 16 * (1 + 3) });
  });
});
