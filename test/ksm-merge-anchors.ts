/** Anchors about pages that KSM has merged, computed by hand. Their machine may merge pages. */
import { expect } from 'vitest';
import type { Observation } from '../lib/schema/step.js';
import type { Machine, Process, Region } from '../lib/machine/machine.js';
import { at, isSince, minorFaults } from './anchor.js';
import type { Anchor } from './anchor.js';

function expectMerged(seen: Observation, process: Process, region: Region, kb: Record<string, number>): void {
  const { smapsKb } = at(seen, process, region);
  // smaps shows merged pages since Linux 6.8.
  const isShown = smapsKb['KSM'] !== undefined;
  expect(smapsKb).toMatchObject(Object.fromEntries(Object.entries(kb).filter(([name]) => isShown || name !== 'KSM')));
}

/** Where frames are shown. */
function expectFrames({ frames }: Observation, region: Region, count: number): void {
  if (frames) expect(frames[region.name]).toBe(count);
}

async function written(machine: Machine, pages: number): Promise<Region> {
  const region = await machine.root.map({ pages });
  await machine.root.write(region);
  await machine.root.advise(region, 'mergeable');
  return region;
}

export const mergeAnchors: Anchor[] = [
  {
    name: 'equal pages become one; a write copies it, and copies it also for the last who maps it',
    async run(machine) {
      const { root } = machine;
      const region = await written(machine, 10);
      await machine.mergePages();
      const merged = await machine.observe('merged');
      // Ten times floor(4096 * 4096 / 10), in kB, rounded down.
      expectMerged(merged, root, region, { Rss: 40, Pss: 3, Shared_Dirty: 40, Anonymous: 40, KSM: 40 });
      expect(at(merged, root, region).states).toEqual([[10, 'shared']]);
      expectFrames(merged, region, 1);
      expect(await minorFaults(root.read(region))).toBe(0);
      expect(await minorFaults(root.write(region, { pages: 3 }))).toBe(3);
      const copied = await machine.observe('copied');
      expectMerged(copied, root, region, { Private_Dirty: 12, Shared_Dirty: 28, Pss: 15, KSM: 28 });
      expectFrames(copied, region, 4);
      expect(await minorFaults(root.write(region, { first: 3, pages: 6 }))).toBe(6);
      const last = await machine.observe('the last');
      expectMerged(last, root, region, { Private_Dirty: 40, Shared_Dirty: 0, Pss: 40, KSM: 4 });
      expect(at(last, root, region).states).toEqual([[10, 'exclusive']]);
      expect(await minorFaults(root.write(region))).toBe(1);
      expectMerged(await machine.observe('all copied'), root, region, { Private_Dirty: 40, KSM: 0 });
    },
  },
  {
    name: 'what a parent and a child have written alike after the fork is merged',
    async run(machine) {
      const { root } = machine;
      const region = await written(machine, 8);
      const child = await root.fork();
      expect(await minorFaults(child.write(region))).toBe(8);
      const before = await machine.observe('written');
      expectMerged(before, child, region, { Private_Dirty: 32, Pss: 32, KSM: 0 });
      expectFrames(before, region, 16);
      await machine.mergePages();
      const merged = await machine.observe('merged');
      for (const process of [root, child]) {
        expectMerged(merged, process, region, { Rss: 32, Shared_Dirty: 32, Pss: 2, KSM: 32 });
      }
      expectFrames(merged, region, 1);
      await child.exit();
      const left = await machine.observe('the child has ended');
      expectMerged(left, root, region, { Rss: 32, Pss: 4, Shared_Dirty: 32, KSM: 32 });
    },
  },
  {
    name: 'pages of zeros and written ones are merged apart, and those that only were read are not merged',
    async run(machine) {
      const { root } = machine;
      const region = await root.map({ pages: 9 });
      await root.advise(region, 'mergeable');
      await root.advise(region, 'populate-write', { pages: 6 });
      await root.write(region, { pages: 3 });
      if (!machine.facts.forbidsZeroPage) await root.read(region, { first: 6, pages: 2 });
      await machine.mergePages();
      const merged = await machine.observe('merged');
      expectMerged(merged, root, region, { Rss: 24, Pss: 7, Shared_Dirty: 24, KSM: 24 });
      expectFrames(merged, region, 2);
    },
  },
  {
    name: 'nothing is merged of memory without the advice, nor a page with itself that a fork shares',
    async run(machine) {
      const { root } = machine;
      const plain = await root.map({ pages: 10 });
      await root.write(plain);
      const single = await written(machine, 1);
      const child = await root.fork();
      await machine.mergePages();
      const seen = await machine.observe('merged');
      expectMerged(seen, root, plain, { Shared_Dirty: 40, Pss: 20, KSM: 0 });
      expectMerged(seen, child, single, { Shared_Dirty: 4, Pss: 2, KSM: 0 });
      // With another page like it, it is.
      await root.advise(plain, 'mergeable', { pages: 1 });
      await child.advise(plain, 'mergeable', { pages: 1 });
      await machine.mergePages();
      expectMerged(await machine.observe('more'), child, single, { Shared_Dirty: 4, Pss: 1, KSM: 4 });
    },
  },
  {
    name: 'MADV_UNMERGEABLE gives each page back, at a fault; a read-only copy that was never written',
    async run(machine) {
      const { root } = machine;
      const region = await written(machine, 10);
      await machine.mergePages();
      expect(await minorFaults(root.advise(region, 'unmergeable', { pages: 6 }))).toBe(6);
      const seen = await machine.observe('unmerged');
      const unshared = isSince(machine, 6, 2);
      const own = unshared ? { Private_Clean: 24, Private_Dirty: 0 } : { Private_Clean: 0, Private_Dirty: 24 };
      expectMerged(seen, root, region, { ...own, Shared_Dirty: 16, Rss: 40, KSM: 16 });
      expect(await minorFaults(root.write(region, { pages: 6 }))).toBe(unshared ? 6 : 0);
      expectMerged(await machine.observe('written'), root, region, { Private_Dirty: 24, KSM: 16 });
    },
  },
  {
    name: 'a region that moves takes none of its merged pages along',
    async run(machine) {
      const { root } = machine;
      const region = await written(machine, 6);
      await machine.mergePages();
      await root.grow(region, 8);
      expectMerged(await machine.observe('moved'), root, region, { Rss: 24, Shared_Dirty: 0, KSM: 0, Pss: 24 });
      await machine.mergePages();
      expectMerged(await machine.observe('merged again'), root, region, { Rss: 24, Shared_Dirty: 24, KSM: 24 });
    },
  },
];
