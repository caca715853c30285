/** Anchors about swap: figures computed by hand, of pages of 4 KiB. Each adds the swap itself. */
import { expect } from 'vitest';
import { bounds } from '../lib/schema/figure.js';
import type { Access, Machine } from '../lib/machine/machine.js';
import { at, expectRegion } from './anchor.js';
import type { Anchor } from './anchor.js';

const SWAP_PAGES = 4096;

/** Which faults are major is not known; the model says so, and each of the two bounds holds. */
function expectFaults({ minorFaults, majorFaults }: Access, pages: number): void {
  expect(bounds(minorFaults).min + bounds(majorFaults).max).toBe(pages);
}

export const swapAnchors: Pick<Anchor, 'name' | 'run'>[] = [
  {
    name: 'pages that were written go to swap, the zero page and what is not there do not, and a read brings them back clean',
    async run(machine) {
      const { root } = await withSwap(machine);
      const region = await root.map({ pages: 30 });
      await root.write(region, { pages: 20 });
      await root.advise(region, 'pageout');
      await expectRegion(
        machine,
        root,
        region,
        { Rss: 0, Pss: 0, Anonymous: 0, Swap: 80, SwapPss: 80 },
        { swapped: 20, exclusive: 0, 'not-present': 10 },
      );
      expectFaults(await root.read(region, { pages: 5 }), 5);
      await expectRegion(
        machine,
        root,
        region,
        { Rss: 20, Private_Clean: 20, Private_Dirty: 0, Swap: 60, SwapPss: 60 },
        { swapped: 15, exclusive: 5 },
      );
      // It was never another's, so that it came back writable.
      expect(await root.write(region, { pages: 5 })).toMatchObject({ minorFaults: 0, majorFaults: 0 });
      expectFaults(await root.write(region, { first: 5, pages: 15 }), 15);
      await expectRegion(machine, root, region, { Private_Clean: 0, Private_Dirty: 80, Swap: 0, SwapPss: 0 });
    },
  },
  {
    name: 'a fork duplicates entries of swap: SwapPss is split, and who reads has the page alone until the next one reads',
    async run(machine) {
      const { root } = await withSwap(machine);
      const region = await root.map({ pages: 12 });
      await root.write(region);
      await root.advise(region, 'pageout');
      const child = await root.fork();
      const grandchild = await child.fork();
      // 48 kB / 3, each page of 4096 bytes rounded down by the third of a byte.
      await expectRegion(machine, grandchild, region, { Swap: 48, SwapPss: 15 }, { swapped: 12 });
      expectFaults(await child.read(region, { pages: 6 }), 6);
      await expectRegion(machine, child, region, { Private_Clean: 24, Swap: 24, SwapPss: 7 }, { exclusive: 6 });
      await expectRegion(machine, root, region, { Swap: 48, SwapPss: 12 + 7 }, { swapped: 12 });
      expectFaults(await root.read(region, { pages: 6 }), 6);
      await expectRegion(machine, root, region, { Shared_Clean: 24, Pss: 12, SwapPss: 7 }, { shared: 6 });
      await expectRegion(machine, grandchild, region, { Swap: 48, SwapPss: 24 + 7 }, { swapped: 12 });
    },
  },
  {
    name: 'who writes a page that others have in swap copies it, also one that it has read, and the last one takes it over',
    async run(machine) {
      const { root } = await withSwap(machine);
      const region = await root.map({ pages: 8 });
      await root.write(region);
      await root.advise(region, 'pageout');
      const child = await root.fork();
      await child.read(region, { pages: 4 });
      expect(await child.write(region, { pages: 4 })).toMatchObject({ minorFaults: 4, majorFaults: 0 });
      expectFaults(await child.write(region, { first: 4, pages: 4 }), 4);
      await expectRegion(machine, child, region, { Private_Dirty: 32, Swap: 0 }, { exclusive: 8 });
      await expectRegion(machine, root, region, { Swap: 32, SwapPss: 32 }, { swapped: 8 });
      expectFaults(await root.read(region, { pages: 4 }), 4);
      // Alone by now, but what a fork had shared comes back read-only.
      expect(await root.write(region, { pages: 4 })).toMatchObject({ minorFaults: 4, majorFaults: 0 });
    },
  },
  {
    name: 'pages that others map too stay, and go once they are alone',
    async run(machine) {
      const { root } = await withSwap(machine);
      const region = await root.map({ pages: 10 });
      await root.write(region);
      const child = await root.fork();
      await child.write(region, { pages: 3 });
      await root.advise(region, 'pageout');
      const seen = await machine.observe('after pageout');
      expect(at(seen, root, region).counts).toMatchObject({ swapped: 3, shared: 7 });
      expect(at(seen, child, region).counts).toMatchObject({ swapped: 0, exclusive: 3, shared: 7 });
      await child.exit();
      await root.advise(region, 'pageout');
      await expectRegion(machine, root, region, { Rss: 0, Swap: 40 }, { swapped: 10 });
    },
  },
  {
    name: 'swap counts for CommitLimit and for the heuristic rule, but for the page of its header',
    async run(machine) {
      const before = machine.facts.commitLimitPages;
      await withSwap(machine);
      const [entry] = machine.trace;
      expect(Math.abs(Number(entry?.outcome.commitLimitPages) - before - (SWAP_PAGES - 1))).toBeLessThanOrEqual(1);
    },
  },
];

async function withSwap(machine: Machine): Promise<Machine> {
  await machine.addSwap(SWAP_PAGES);
  return machine;
}
