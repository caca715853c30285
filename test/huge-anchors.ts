/** Anchors about transparent huge pages, of 2 MiB: 512 pages of 4 KiB. */
import { expect } from 'vitest';
import type { Machine, Process, Region } from '../lib/machine/machine.js';
import { bounds, sum } from '../lib/schema/figure.js';
import { at, expectRegion, isSince, minorFaults } from './anchor.js';
import type { Anchor } from './anchor.js';

const HUGE = 512;

/** One huge page, that the root has written and a child inherited. */
async function sharedHugePage(machine: Machine): Promise<{ root: Process; child: Process; region: Region }> {
  const { root } = machine;
  const region = await root.map({ pages: HUGE, hugePages: true });
  await root.write(region);
  return { root, child: await root.fork(), region };
}

export const hugeAnchors: Anchor[] = [
  {
    name: 'one byte written to untouched memory takes a whole huge page for one fault',
    hugePages: true,
    async run(machine) {
      const { root } = machine;
      const region = await root.map({ pages: 3 * HUGE, hugePages: true });
      expect(await minorFaults(root.write(region, { first: HUGE + 7, pages: 1 }))).toBe(1);
      await expectRegion(
        machine,
        root,
        region,
        { Rss: 2048, Private_Dirty: 2048, Pss: 2048, AnonHugePages: 2048 },
        { exclusive: HUGE, 'not-present': 2 * HUGE },
      );
      expect(await minorFaults(root.write(region))).toBe(2);
    },
  },
  {
    name: 'what is left of a region beyond its last whole 2 MiB has base pages',
    hugePages: true,
    async run(machine) {
      const { root } = machine;
      const region = await root.map({ pages: HUGE + 3, hugePages: true });
      expect(await minorFaults(root.write(region))).toBe(4);
      await expectRegion(machine, root, region, { Rss: 2060, AnonHugePages: 2048 });
      const small = await root.map({ pages: HUGE - 1, hugePages: true });
      expect(await minorFaults(root.write(small))).toBe(HUGE - 1);
      await expectRegion(machine, root, small, { Rss: 2044, AnonHugePages: 0 });
    },
  },
  {
    name: 'a child that writes one byte to a shared huge page copies 4 KiB, and only its own mapping is split',
    hugePages: true,
    async run(machine) {
      const { root, child, region } = await sharedHugePage(machine);
      await expectRegion(machine, child, region, { Shared_Dirty: 2048, AnonHugePages: 2048 }, { shared: HUGE });
      expect(await minorFaults(child.write(region, { first: 100, pages: 1 }))).toBe(1);
      const seen = await machine.observe('written');
      const figures = { Rss: 2048, Private_Dirty: 4, Shared_Dirty: 2044, Pss: 1026 };
      expect(at(seen, child, region).smapsKb).toMatchObject({ ...figures, AnonHugePages: 0 });
      expect(at(seen, root, region).smapsKb).toMatchObject({ ...figures, AnonHugePages: 2048 });
      expect(at(seen, child, region).states).toEqual([
        [100, 'shared'],
        [1, 'exclusive'],
        [HUGE - 101, 'shared'],
      ]);
      // 4 KiB more than the 2 MiB that there were.
      expect(sum([root, child].map((process) => at(seen, process, region).smapsKb['Pss'] ?? 0))).toBe(2052);
      expect(await minorFaults(child.write(region))).toBe(HUGE - 1);
    },
  },
  {
    name: 'a huge page that nobody else has any more is taken over whole, and stays huge',
    hugePages: true,
    async run(machine) {
      const { root, child, region } = await sharedHugePage(machine);
      await child.write(region, { pages: 1 });
      await child.exit();
      expect(await minorFaults(root.write(region, { first: 9, pages: 1 }))).toBe(1);
      await expectRegion(machine, root, region, { Private_Dirty: 2048, AnonHugePages: 2048 }, { exclusive: HUGE });
      // One entry maps them all, but the processor may hold old translations of single pages.
      const { min, max } = bounds((await root.write(region)).minorFaults);
      expect(min).toBeGreaterThanOrEqual(0);
      expect(max).toBeLessThanOrEqual(HUGE);
    },
  },
  {
    name: 'giving back one page of a huge page splits its mapping; giving back all makes room for a new one',
    hugePages: true,
    async run(machine) {
      const { root } = machine;
      const region = await root.map({ pages: 2 * HUGE, hugePages: true });
      await root.write(region);
      await root.advise(region, 'dontneed', { first: 5, pages: 1 });
      await expectRegion(machine, root, region, { Rss: 4092, AnonHugePages: 2048 });
      expect(await minorFaults(root.write(region, { pages: HUGE }))).toBe(1);
      await expectRegion(machine, root, region, { Rss: 4096, AnonHugePages: 2048 });
      await root.advise(region, 'dontneed', { first: HUGE });
      await expectRegion(machine, root, region, { Rss: 2048, AnonHugePages: 0 });
      expect(await minorFaults(root.write(region))).toBe(1);
      await expectRegion(machine, root, region, { Rss: 4096, AnonHugePages: 2048 });
    },
  },
  {
    name: 'mprotect of a part splits a huge page, and of the whole does not',
    hugePages: true,
    async run(machine) {
      const { root } = machine;
      const region = await root.map({ pages: 2 * HUGE, hugePages: true });
      await root.write(region);
      await root.protect(region, 'r', { first: HUGE });
      await expectRegion(machine, root, region, { Rss: 4096, AnonHugePages: 4096 });
      await root.protect(region, 'r', { pages: 7 });
      await expectRegion(machine, root, region, { Rss: 4096, AnonHugePages: 2048 });
    },
  },
  {
    name: 'a read of untouched memory maps the huge zero page, which fork copies and a write replaces',
    hugePages: true,
    forbidsZeroPage: false,
    async run(machine) {
      const { root } = machine;
      const region = await root.map({ pages: HUGE, hugePages: true });
      expect(await minorFaults(root.read(region))).toBe(1);
      await expectRegion(machine, root, region, { Rss: 0, AnonHugePages: 0 }, { zero: HUGE });
      const child = await root.fork();
      await expectRegion(machine, child, region, { Rss: 0, AnonHugePages: 0 }, { zero: HUGE });
      const whole = isSince(machine, 6, 13);
      expect(await minorFaults(child.write(region, { pages: 1 }))).toBe(1);
      const kb = whole ? 2048 : 4;
      await expectRegion(machine, child, region, { Rss: kb, Private_Dirty: kb, AnonHugePages: whole ? 2048 : 0 });
      expect(await minorFaults(child.write(region))).toBe(whole ? 0 : HUGE - 1);
    },
  },
];
