/** What the matchers of cowlab/vitest say of page states that are known, in part or not. */
import { describe, expect, test } from 'vitest';
import { firstTouches, framesByPss, framesByStates } from '../../lib/api/copy-mark.js';
import { PAGE_STATES } from '../../lib/proc/pagemap.js';
import type { StateRuns } from '../../lib/schema/step.js';
import { judged, runsOf, showPages } from '../../lib/vitest/pages.js';
import '../../lib/vitest/index.js';

const observed = (...states: StateRuns) => ({ region: 'r1', states });

/** States by their first letters. */
const statesOf = (letters: string) =>
  Uint8Array.from(letters, (letter) => PAGE_STATES.findIndex((state) => state.startsWith(letter)));

const holder = (pid: number, letters: string) => ({
  pid,
  address: 0n,
  pages: letters.length,
  states: statesOf(letters),
});

describe('pages that are known', () => {
  test('share all if each of them is shared, and not if one is anything else', () => {
    expect(observed([10, 'shared'])).toShareAllPages();
    expect(observed([9, 'shared'], [1, 'exclusive'])).not.toShareAllPages();
    expect(observed([9, 'shared'], [1, 'not-present'])).not.toShareAllPages();
    expect(observed([9, 'shared'], [1, 'zero'])).not.toShareAllPages();
  });

  test('have as many exclusive pages as are exclusive', () => {
    expect(observed([3, 'shared'], [4, 'exclusive'], [1, 'zero'], [2, 'exclusive'])).toHaveExclusivePages(6);
    expect(observed([3, 'shared'])).toHaveExclusivePages(0);
    expect(observed([3, 'exclusive'])).not.toHaveExclusivePages(2);
  });
});

describe('pages that are not known', () => {
  const doubtful = observed([8, 'shared'], [2, 'unknown']);

  test('pass neither an assertion that hangs on them nor its opposite', () => {
    expect(() => {
      expect(doubtful).toShareAllPages();
    }).toThrow(
      /to share all of 10 pages, which cannot be told\npages 0..7 shared, 8..9 unknown \(8 shared, 2 unknown\)/,
    );
    expect(() => {
      expect(doubtful).not.toShareAllPages();
    }).toThrow(/not to share all of 10 pages, which cannot be told/);
    expect(() => {
      expect(doubtful).toHaveExclusivePages(1);
    }).toThrow(/to have 1 exclusive pages of 10, which cannot be told\nit has 0..2: pages 0..7 shared/);
    expect(() => {
      expect(doubtful).not.toHaveExclusivePages(1);
    }).toThrow(/cannot be told/);
  });

  test('do not matter where the others decide', () => {
    expect(observed([8, 'exclusive'], [2, 'unknown'])).not.toShareAllPages();
    expect(doubtful).not.toHaveExclusivePages(3);
  });
});

describe('a message', () => {
  test('shows pages as runs with their sums', () => {
    expect(showPages(judged('', runsOf(statesOf('eeesszne'))))).toBe(
      'pages 0..2 exclusive, 3..4 shared, 5 zero, 6 not-present, 7 exclusive (1 not-present, 4 exclusive, 2 shared, 1 zero)',
    );
    expect(showPages(judged('', [[5, 'shared']]))).toBe('pages 0..4 shared');
  });

  test('shows the first runs of many, and the sums of all', () => {
    const many = showPages(judged('', runsOf(statesOf('es'.repeat(40)))));
    expect(many).toMatch(/^pages 0 exclusive, 1 shared, .*23 shared and 56 more runs \(40 exclusive, 40 shared\)$/);
  });
});

describe('misuse of a matcher names the argument', () => {
  test.each<[string, () => void, RegExp]>([
    [
      'no pages',
      () => {
        expect(7).toShareAllPages();
      },
      /received must be/,
    ],
    [
      'no place',
      () => {
        expect({}).toHaveExclusivePages(1);
      },
      /pid must be/,
    ],
    [
      'a negative number',
      () => {
        expect(observed([1, 'shared'])).toHaveExclusivePages(-1);
      },
      /expected must be/,
    ],
    [
      'no mark',
      () => {
        expect({}).toHaveCopied(4096);
      },
      /received must be a mark/,
    ],
  ])('%s', (_name, misuse, message) => {
    expect(misuse).toThrow(message);
  });

  test('of toFailToFork too', async () => {
    await expect(expect({}).toFailToFork('ENOMEM')).rejects.toThrow(/received must be a process/);
    const process = { fork: () => undefined };
    await expect(expect(process).toFailToFork('EPERM' as 'ENOMEM')).rejects.toThrow(/code must be/);
  });
});

describe('frames behind a region', () => {
  test('are counted by states: one for each exclusive page, one or more for those that share one', () => {
    expect(framesByStates([holder(1, 'essn'), holder(2, 'nsse')])).toEqual({ min: 4, max: 4 });
    expect(framesByStates(['ss', 'ss', 'ss', 'se'].map((states, pid) => holder(pid, states)))).toEqual({
      min: 3,
      max: 4,
    });
  });

  test('are counted by Pss, within what the kernel rounds away', () => {
    // Three that share 100 pages: 133.33 kB each.
    expect(framesByPss(3 * 133, 3, 300, 4096)).toEqual({ min: 100, max: 100 });
    // Five: 80 kB each, but they could be 4 kB more together.
    expect(framesByPss(5 * 80, 5, 500, 4096)).toEqual({ min: 100, max: 101 });
  });
});

describe('pages touched for the first time', () => {
  test('are those that were not there, or zero', () => {
    const before = [holder(1, 'eezn'), holder(2, 'nzzz')];
    expect(firstTouches(before, [holder(1, 'eeee'), holder(2, 'ezzn')])).toBe(3);
    expect(firstTouches(before, before)).toBe(0);
  });

  test('cannot be told where pages or processes have gone, or a new process had nothing to inherit', () => {
    const before = [holder(1, 'ss'), holder(2, 'ss')];
    expect(firstTouches(before, [holder(1, 'ss')])).toEqual({
      unknown: expect.stringMatching(/process 2 has ended/) as string,
    });
    expect(firstTouches(before, [holder(1, 'ns'), holder(2, 'es')])).toEqual({
      unknown: expect.stringMatching(/process 1 has not got page 0/) as string,
    });
    expect(firstTouches([holder(1, 'en')], [holder(1, 'es'), holder(2, 'ss')])).toEqual({
      unknown: expect.stringMatching(/process 2 was forked since the mark, when page 1/) as string,
    });
  });
});
