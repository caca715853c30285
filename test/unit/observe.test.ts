import { describe, expect, it } from 'vitest';
import { settleHuge, settleUnknown } from '../../lib/machine/linux/observe.js';
import { hugeParts } from '../../lib/proc/pagemap.js';
import { parseSmaps } from '../../lib/proc/smaps.js';
import type { StateRuns } from '../../lib/schema/step.js';

/** What pagemap tells without PAGEMAP_SCAN and without CAP_SYS_ADMIN: 10 pages, of which 4 are doubtful. */
const READ: StateRuns = [
  [1, 'exclusive'],
  [3, 'unknown'],
  [2, 'not-present'],
  [1, 'unknown'],
  [2, 'shared'],
  [1, 'swapped'],
];

describe('pages of which pagemap does not tell whether they are shared or the zero page', () => {
  it('are all shared when smaps counts every present page', () => {
    const { states, counts } = settleUnknown(READ, 7);
    expect(states).toEqual([
      [1, 'exclusive'],
      [3, 'shared'],
      [2, 'not-present'],
      [3, 'shared'],
      [1, 'swapped'],
    ]);
    expect(counts).toEqual({ exclusive: 1, shared: 6, zero: 0, swapped: 1, 'not-present': 2 });
  });

  it('are all the zero page when smaps counts none of them', () => {
    const { states, counts } = settleUnknown(READ, 3);
    expect(states[1]).toEqual([3, 'zero']);
    expect(states[3]).toEqual([1, 'zero']);
    expect(counts).toEqual({ exclusive: 1, shared: 2, zero: 4, swapped: 1, 'not-present': 2 });
  });

  it('stay unknown one by one when they are of both kinds, and are counted exactly', () => {
    const { states, counts } = settleUnknown(READ, 4);
    expect(states).toEqual(READ);
    expect(counts).toEqual({ exclusive: 1, shared: 3, zero: 3, swapped: 1, 'not-present': 2 });
  });

  it('are left alone where there are none', () => {
    const known: StateRuns = [
      [2, 'zero'],
      [3, 'exclusive'],
    ];
    expect(settleUnknown(known, 3).states).toBe(known);
  });
});

describe('VMAs that have huge pages, where single ones cannot be found', () => {
  const record = (range: string, fields: Record<string, number>): string =>
    [`${range} rw-p 00000000 00:00 0`, ...Object.entries(fields).map(([name, kb]) => `${name}: ${kb} kB`), ''].join(
      '\n',
    );
  const vmas = parseSmaps(
    record('00010000-00014000', { AnonHugePages: 0, ShmemPmdMapped: 0, FilePmdMapped: 0 }) +
      record('00014000-00018000', { AnonHugePages: 2048, ShmemPmdMapped: 0, FilePmdMapped: 0 }) +
      record('00018000-0001a000', { AnonHugePages: 0, ShmemPmdMapped: 0, FilePmdMapped: 2048 }) +
      record('00020000-00024000', { AnonHugePages: 0, ShmemPmdMapped: 2048, FilePmdMapped: 0 }),
  );

  it('are found as parts of the range that was asked for, cut to it', () => {
    expect(hugeParts(vmas, { address: 0x10000n, pages: 18 }, 4096)).toEqual([
      { first: 4, pages: 4 },
      { first: 8, pages: 2 },
      { first: 16, pages: 2 },
    ]);
    expect(hugeParts(vmas, { address: 0x15000n, pages: 2 }, 4096)).toEqual([{ first: 0, pages: 2 }]);
    expect(hugeParts(vmas, { address: 0x10000n, pages: 4 }, 4096)).toEqual([]);
  });
});

describe('pages of huge pages, of which pagemap does not tell how often they are mapped', () => {
  const runs: StateRuns = [
    [512, 'unknown'],
    [3, 'exclusive'],
    [2, 'shared'],
    [7, 'not-present'],
  ];

  it('are known where smaps leaves one possibility', () => {
    const { states, counts } = settleHuge(runs, { rss: 517, exclusive: 3, shared: 514, readable: true });
    expect(states).toEqual([
      [512, 'shared'],
      [3, 'exclusive'],
      [2, 'shared'],
      [7, 'not-present'],
    ]);
    expect(counts).toEqual({ exclusive: 3, shared: 514, zero: 0, swapped: 0, 'not-present': 7 });
  });

  it('are counted by smaps where they differ', () => {
    const { states, counts } = settleHuge([[1024, 'unknown']], {
      rss: 1024,
      exclusive: 24,
      shared: 1000,
      readable: true,
    });
    expect(states).toEqual([[1024, 'unknown']]);
    expect(counts).toMatchObject({ exclusive: 24, shared: 1000 });
  });

  it('are the huge zero page where smaps does not count them', () => {
    const { states, counts } = settleHuge([[512, 'shared']], { rss: 0, exclusive: 0, shared: 0, readable: true });
    expect(states).toEqual([[512, 'zero']]);
    expect(counts).toMatchObject({ shared: 0, zero: 512 });
  });

  it('stay unknown where smaps leaves them out', () => {
    const { states, counts } = settleHuge(runs, { rss: 5, exclusive: 3, shared: 2, readable: false });
    expect(states).toEqual(runs);
    expect(counts.exclusive).toHaveProperty('unknown');
    expect(counts['not-present']).toBe(7);
  });

  it('are what root sees of their frames where smaps leaves them out', () => {
    const { states, counts } = settleHuge([[512, 'shared']], { rss: 0, exclusive: 0, shared: 0, readable: false });
    expect(states).toEqual([[512, 'shared']]);
    expect(counts).toMatchObject({ shared: 512, zero: 0 });
  });
});
