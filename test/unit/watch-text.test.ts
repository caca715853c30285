/** What the summary of a watch says of sharing that was broken, or was not seen to be. */
import { describe, expect, it } from 'vitest';
import { summaryText } from '../../lib/cli/watch-text.js';
import type { WatchedMemory } from '../../lib/proc/watched-process.js';
import type { Figure } from '../../lib/schema/figure.js';

/** The summary of a watch that looked once, and saw one process that has copied so much. */
function summaryOf(copiedKb: Figure, deferred = 0): string {
  const memory = { rssKb: 300, pssKb: 200, ussKb: 100 };
  const process: WatchedMemory = {
    ...{ pid: 77, parent: 1, startTicks: 5, comm: 'python3' },
    ...{ ...memory, sharedKb: 200, minorFaults: 40, copiedKb, ageMs: 0 },
  };
  const sample = { elapsedMs: 10, costMs: 2, longestReadMs: 1, ...memory };
  const history = {
    samples: [{ ...sample, processes: 1, faults: 40, copiedKb: 0 }],
    peak: { ...sample, processes: [process], unreadable: [] },
    processes: new Map([['77 5', process]]),
    ...{ broken: [], intervalMs: 1000, maxLoad: 0.05, lengthened: 0, deferred, unreadable: 0 },
  };
  return summaryText('python3 has ended with code 0', history, { color: false }).replace(/\s+/g, ' ');
}

describe('a watch that saw no sharing break', () => {
  it('says that nothing was copied where nothing was', () => {
    expect(summaryOf(0)).toContain('No sharing was broken: nothing that a fork had shared was copied.');
  });

  it('does not say so where something may have been copied before it was seen', () => {
    const text = summaryOf({ min: 0, max: 40, why: 'a bound' });
    expect(text).not.toContain('nothing that a fork had shared was copied');
    expect(text).toContain('No sharing was seen to break between two samples.');
    expect(text).toContain('<= 40 KiB');
  });
});

it('a watch that put off reading memory says how often it was read, and how to have it read each time', () => {
  const text = summaryOf(0, 3);
  expect(text).toContain('3 of them did not read memory, to stay below 5% of a core: it was read every 12 ms');
  expect(text).toContain('--max-load 100 reads it in each');
  expect(summaryOf(0)).not.toContain('did not read memory');
});
