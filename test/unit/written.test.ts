/** What two looks at page states tell about writes, and which marked pages only look as if they were in swap. */
import { describe, expect, test } from 'vitest';
import { compareStates } from '../../lib/api/write-tracker.js';
import { PAGE_STATES, markerParts } from '../../lib/proc/pagemap.js';
import { parseSmaps } from '../../lib/proc/smaps.js';
import type { PageState } from '../../lib/schema/step.js';

function states(...names: PageState[]): Uint8Array {
  return Uint8Array.from(names, (name) => PAGE_STATES.indexOf(name));
}

describe('of two looks', () => {
  const before = states(
    'not-present',
    'zero',
    'not-present',
    'not-present',
    'exclusive',
    'shared',
    'shared',
    'swapped',
  );
  const now = states('exclusive', 'shared', 'zero', 'not-present', 'exclusive', 'exclusive', 'shared', 'exclusive');

  test('private anonymous pages that were not there and are now were written, and those that are not were not', () => {
    expect(compareStates(before, now, 'anonymous', false)).toEqual({
      written: [{ first: 0, pages: 2 }],
      doubtful: [{ first: 4, pages: 4 }],
    });
  });

  test('a page that has gone to swap since was written, and what was unknown is doubtful', () => {
    const [then, after] = [states('zero', 'unknown', 'not-present'), states('swapped', 'shared', 'unknown')];
    expect(compareStates(then, after, 'anonymous', false)).toEqual({
      written: [{ first: 0, pages: 1 }],
      doubtful: [{ first: 1, pages: 2 }],
    });
  });

  test('nothing is certain where a read takes a page, or maps one of an object', () => {
    const there = [
      { first: 0, pages: 2 },
      { first: 4, pages: 4 },
    ];
    expect(compareStates(before, now, 'anonymous', true)).toEqual({ written: [], doubtful: there });
    expect(compareStates(before, now, 'object', false)).toEqual({ written: [], doubtful: there });
  });

  test('and of shared memory nothing at all', () => {
    const all = [{ first: 0, pages: 8 }];
    expect(compareStates(before, now, 'shared', false)).toEqual({ written: [], doubtful: all });
  });
});

test('no page is taken for a marker where one may be in swap, or no writes are tracked', () => {
  const record = (start: number, perms: string, swapKb: number, flags: string) =>
    `${start.toString(16)}000-${(start + 2).toString(16)}000 ${perms} 00000000 00:00 0 \nSwap: ${swapKb} kB\nVmFlags: ${flags}\n`;
  const vmas = parseSmaps(
    record(1, 'rw-p', 0, 'rd wr uw') +
      record(3, 'rw-p', 4, 'rd wr uw') +
      record(5, 'rw-s', 4, 'rd wr uw') +
      record(7, 'rw-p', 0, 'rd wr') +
      record(9, 'rw-p', 0, 'rd uw'),
  );
  expect(markerParts(vmas, { address: 0x2000n, pages: 8 }, 4096)).toEqual([
    { first: 0, pages: 1 },
    { first: 3, pages: 2 },
    { first: 7, pages: 1 },
  ]);
});
