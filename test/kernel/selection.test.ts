import { expect, test } from 'vitest';
import { fork } from '../../lib/api/forked-process.js';
import { readPageStates } from '../../lib/proc/pagemap.js';
import { pageSizeBytes } from '../../lib/proc/host.js';
import { requireSelection } from '../../lib/schema/arguments.js';
import { selectedPages } from '../../lib/schema/selection.js';

const PAGES = 2 ** 30;

/** Only addresses: 4 TiB of which some hundred pages are touched. */
test.each([
  { pages: PAGES, pattern: 'random', seed: 12345, from: 7_000_000, to: 7_000_100 },
  { pages: PAGES - 12345, pattern: 'random', seed: 2 ** 32 - 1, from: 0, to: 100 },
  { first: 1000, pages: 600_000_001, pattern: 'stride', stride: 99_999, from: 300_000_000, to: 300_000_100 },
  { first: PAGES - 100, pages: 100, pattern: 'sequential', from: 10, to: 60 },
  { first: 5, pages: 3, pattern: 'random', seed: 1 },
  { first: 9, pages: 1, pattern: 'random', seed: 1 },
] as const)('C++ and TypeScript select the same pages: %o', async (choice) => {
  const child = fork();
  try {
    const region = await child.map({ pages: PAGES, noreserve: true });
    await child.write(region, choice);
    const { address } = child.placement(region);
    const selection = requireSelection(choice, PAGES);
    for (const page of selectedPages(selection)) {
      const at = { address: address + BigInt(page) * BigInt(pageSizeBytes()), pages: 1 };
      expect([...readPageStates(child.pid, at)]).toEqual([1]);
    }
  } finally {
    await child.close();
  }
});
