/** Anchors about hugetlb memory, of huge pages of 2 MiB: 512 pages of 4 KiB. Each sets the pool itself. */
import { expect } from 'vitest';
import { ProcessEndedError } from '../lib/errors.js';
import { at, expectRegion, isSince, minorFaults } from './anchor.js';
import type { Anchor } from './anchor.js';

const HUGE = 512;
/** The first page of each of two huge ones: further ones may fault again where a page was taken over. */
const FIRST_PAGES = { pattern: 'stride', stride: HUGE, to: 2 } as const;

/** Where the memory of this machine is too scattered for the pool, its test is skipped. */
export class NoPoolError extends Error {}

async function died(signal: string, access: Promise<unknown>): Promise<void> {
  const error = await access.catch((reason: unknown) => reason);
  expect(error).toBeInstanceOf(ProcessEndedError);
  expect((error as ProcessEndedError).status).toMatchObject({ signal });
}

export const hugetlbAnchors: Pick<Anchor, 'name' | 'run'>[] = [
  {
    name: 'one byte written takes 2 MiB of the pool for one fault, and smaps shows it in Private_Hugetlb alone',
    async run(machine) {
      await setPool(machine, 4);
      const { root } = machine;
      const region = await root.map({ pages: 3 * HUGE, hugetlb: true });
      expect(await minorFaults(root.write(region, { first: HUGE + 7, pages: 1 }))).toBe(1);
      const figures = { Rss: 0, Pss: 0, Anonymous: 0, AnonHugePages: 0, Private_Hugetlb: 2048, Shared_Hugetlb: 0 };
      await expectRegion(machine, root, region, figures, { exclusive: HUGE, 'not-present': 2 * HUGE });
      expect(await minorFaults(root.write(region))).toBe(2);
      expect(await minorFaults(root.write(region))).toBe(0);
    },
  },
  {
    name: 'there is no zero page: a read takes 2 MiB too, and the first write to it faults and copies nothing',
    async run(machine) {
      await setPool(machine, 2);
      const { root } = machine;
      const region = await root.map({ pages: 2 * HUGE, hugetlb: true });
      expect(await minorFaults(root.read(region))).toBe(2);
      await expectRegion(machine, root, region, { Private_Hugetlb: 4096 }, { exclusive: 2 * HUGE, zero: 0 });
      expect(await minorFaults(root.write(region, FIRST_PAGES))).toBe(2);
    },
  },
  {
    name: 'a write after a fork copies 2 MiB, out of pages that nobody has reserved',
    async run(machine) {
      await setPool(machine, 4);
      const { root } = machine;
      const region = await root.map({ pages: 2 * HUGE, hugetlb: true });
      await root.write(region);
      const child = await root.fork();
      await expectRegion(machine, child, region, { Shared_Hugetlb: 4096, Private_Hugetlb: 0 });
      expect(await minorFaults(child.read(region))).toBe(0);
      expect(await minorFaults(child.write(region, { pages: 1 }))).toBe(1);
      const seen = await machine.observe('written');
      for (const process of [root, child]) {
        expect(at(seen, process, region).smapsKb).toMatchObject({ Private_Hugetlb: 2048, Shared_Hugetlb: 2048 });
      }
      await child.exit();
      expect(await minorFaults(root.write(region, FIRST_PAGES))).toBe(2);
    },
  },
  {
    name: 'mmap of more than is left unreserved fails with ENOMEM, though nothing has been touched',
    async run(machine) {
      await setPool(machine, 4);
      const { root } = machine;
      const region = await root.map({ pages: 3 * HUGE, hugetlb: true });
      const more = { pages: 2 * HUGE, hugetlb: true };
      await expect(root.map(more)).rejects.toMatchObject({ code: 'ENOMEM', syscall: 'mmap' });
      await root.unmap(region);
      await root.write(await root.map(more));
    },
  },
  {
    name: 'a child has none of the reservation: its write to an inherited page ends it by SIGBUS, and the parent goes on',
    async run(machine) {
      await setPool(machine, 2);
      const { root } = machine;
      const region = await root.map({ pages: 2 * HUGE, hugetlb: true });
      await root.write(region, { pages: 1 });
      const child = await root.fork();
      // One page is free, and reserved for the parent.
      await died('SIGBUS', child.write(region, { pages: 1 }));
      const second = await root.fork();
      await died('SIGBUS', second.read(region, { first: HUGE, pages: 1 }));
      expect(await minorFaults(root.write(region, FIRST_PAGES))).toBe(2);
    },
  },
  {
    name: 'where none is left the parent takes the page from its child, which SIGBUS ends when it touches it',
    async run(machine) {
      await setPool(machine, 2);
      const { root } = machine;
      const region = await root.map({ pages: 2 * HUGE, hugetlb: true });
      await root.write(region);
      const child = await root.fork();
      expect(await minorFaults(root.write(region, { pages: 1 }))).toBe(1);
      const seen = await machine.observe('taken');
      expect(at(seen, root, region).smapsKb).toMatchObject({ Private_Hugetlb: 2048, Shared_Hugetlb: 2048 });
      expect(at(seen, child, region).counts).toMatchObject({ shared: HUGE, 'not-present': HUGE });
      expect(await minorFaults(child.read(region, { first: HUGE, pages: HUGE }))).toBe(0);
      await died('SIGBUS', child.read(region, { pages: 1 }));
    },
  },
  {
    name: 'a child from which a page was taken may have no other, even if there are some again; its own child may',
    async run(machine) {
      await setPool(machine, 3);
      const { root } = machine;
      const region = await root.map({ pages: 2 * HUGE, hugetlb: true });
      await root.write(region, { pages: 1 });
      const child = await root.fork();
      const other = await root.map({ pages: HUGE, hugetlb: true });
      await root.write(region, { pages: 1 });
      await root.unmap(other);
      const grandchild = await child.fork();
      expect(await minorFaults(grandchild.write(region, { pages: 1 }))).toBe(1);
      await grandchild.exit();
      await died('SIGBUS', child.write(region, { first: HUGE, pages: 1 }));
    },
  },
  {
    name: 'noreserve reserves nothing: mmap always succeeds, and SIGBUS comes at the touch',
    async run(machine) {
      await setPool(machine, 2);
      const { root } = machine;
      const child = await root.fork();
      const region = await child.map({ pages: 5 * HUGE, hugetlb: true, noreserve: true });
      expect(await minorFaults(child.write(region, { pages: 2 * HUGE }))).toBe(2);
      await died('SIGBUS', child.write(region, { first: 2 * HUGE, pages: 1 }));
    },
  },
  {
    name: 'what a parent unmaps and its child still has is counted as if it were not reserved twice over (6.18, not 6.12)',
    async run(machine) {
      await setPool(machine, 4);
      const { root } = machine;
      const child = await root.fork();
      const region = await child.map({ pages: 2 * HUGE, hugetlb: true });
      await child.write(region);
      const grandchild = await child.fork();
      await child.unmap(region);
      // Two pages are free, and two more seem to be.
      const first = await child.map({ pages: 2 * HUGE, hugetlb: true });
      const more = child.map({ pages: 2 * HUGE, hugetlb: true });
      if (!isSince(machine, 6, 18)) {
        await expect(more).rejects.toMatchObject({ code: 'ENOMEM' });
        return;
      }
      const second = await more;
      expect(await minorFaults(child.write(first))).toBe(2);
      // So even a reserved page may not be there.
      await died('SIGBUS', child.write(second, { pages: 1 }));
      await grandchild.exit();
      const whole = await root.map({ pages: 4 * HUGE, hugetlb: true });
      expect(await minorFaults(root.write(whole))).toBe(4);
    },
  },
  {
    name: 'a shared region has one reservation, out of which any process may take a page for all',
    async run(machine) {
      await setPool(machine, 2);
      const { root } = machine;
      const region = await root.map({ pages: 2 * HUGE, hugetlb: true, sharing: 'shared' });
      const child = await root.fork();
      expect(await minorFaults(child.write(region))).toBe(2);
      await expectRegion(machine, child, region, { Private_Hugetlb: 4096 }, { exclusive: 2 * HUGE });
      expect(await minorFaults(root.read(region, { pages: 1 }))).toBe(1);
      expect(await minorFaults(root.write(region, { pages: HUGE }))).toBe(0);
      await expectRegion(machine, root, region, { Shared_Hugetlb: 2048, Private_Hugetlb: 0 });
      await child.exit();
      await expectRegion(machine, root, region, { Shared_Hugetlb: 0, Private_Hugetlb: 2048 });
      await expect(root.map({ pages: HUGE, hugetlb: true })).rejects.toMatchObject({ code: 'ENOMEM' });
    },
  },
];

async function setPool(machine: Parameters<Anchor['run']>[0], pages: number): Promise<void> {
  if ((await machine.setHugetlbPages(pages)) < pages) throw new NoPoolError();
}
