/**
 * Anchors: programs whose figures were computed by hand from the rules (4K pages), for the model and the kernel alike.
 * They take nothing from the model, so that both cannot be wrong together.
 */
import { expect } from 'vitest';
import { ProcessEndedError, SystemError } from '../lib/errors.js';
import type { HostFacts } from '../lib/schema/facts.js';
import { sum } from '../lib/schema/figure.js';
import type { Observation } from '../lib/schema/step.js';
import { at, expectRegion, isSince, minorFaults } from './anchor.js';
import type { Anchor } from './anchor.js';
import { hugeAnchors } from './huge-anchors.js';
import { ksmAnchors } from './ksm-anchors.js';

const baseAnchors: Anchor[] = [
  {
    name: 'a child that writes 100 of 1000 inherited pages makes 100 of them private in both, and 100 faults',
    async run(machine) {
      const { root } = machine;
      const region = await root.map({ pages: 1000 });
      expect(await minorFaults(root.write(region))).toBe(1000);
      const child = await root.fork();
      const before = await machine.observe('forked');
      expect(await minorFaults(child.write(region, { pages: 100 }))).toBe(100);
      const after = await machine.observe('written');
      for (const process of [root, child]) {
        expect(at(after, process, region).smapsKb).toMatchObject({
          Rss: 4000,
          Private_Dirty: 400,
          Shared_Dirty: 3600,
          Pss: 2200,
          Pss_Dirty: 2200,
          Anonymous: 4000,
        });
        expect(at(after, process, region).states).toEqual([
          [100, 'exclusive'],
          [900, 'shared'],
        ]);
      }
      const pss = (observation: Observation) =>
        sum([root, child].map((process) => at(observation, process, region).smapsKb['Pss'] ?? 0));
      expect([pss(before), pss(after)]).toEqual([4000, 4400]);
    },
  },
  {
    name: 'when the child has gone, the parent takes over each page by one fault and copies none',
    async run(machine) {
      const { root } = machine;
      const region = await root.map({ pages: 1000 });
      await root.write(region);
      const child = await root.fork();
      await child.write(region, { pages: 100 });
      await child.exit();
      await expectRegion(machine, root, region, { Pss: 4000, Private_Dirty: 4000 }, { exclusive: 1000 });
      expect(await minorFaults(root.write(region))).toBe(1000);
      expect(await minorFaults(root.write(region))).toBe(0);
      await expectRegion(machine, root, region, { Rss: 4000, Private_Dirty: 4000 }, { exclusive: 1000 });
    },
  },
  {
    name: 'three mappers of 10 pages have a Pss of 13 kB each, rounded down once per VMA',
    async run(machine) {
      const { root } = machine;
      const region = await root.map({ pages: 10 });
      await root.write(region);
      const first = await root.fork();
      const second = await first.fork();
      for (const process of [root, first, second]) {
        await expectRegion(machine, process, region, { Pss: 13, Shared_Dirty: 40, Private_Dirty: 0 }, { shared: 10 });
      }
      expect(await minorFaults(first.write(region, { pages: 3 }))).toBe(3);
      // 3 pages alone and 7 thirds of a page: 12 + 9.33 kB; the others have 3 halves and 7 thirds: 6 + 9.33 kB.
      await expectRegion(machine, first, region, { Pss: 21, Private_Dirty: 12, Shared_Dirty: 28 });
      await expectRegion(machine, second, region, { Pss: 15, Private_Dirty: 0, Shared_Dirty: 40 });
    },
  },
  {
    name: 'seven processes that share 100 pages account for 57 kB each',
    async run(machine) {
      const { root } = machine;
      const region = await root.map({ pages: 100 });
      await root.write(region);
      for (let i = 0; i < 6; i++) await root.fork();
      await expectRegion(machine, root, region, { Pss: 57, Rss: 400, Shared_Dirty: 400 }, { shared: 100 });
    },
  },
  {
    name: 'memory only read so far maps the zero page, counts nowhere in smaps, and is not copied by fork',
    forbidsZeroPage: false,
    async run(machine) {
      const { root } = machine;
      const region = await root.map({ pages: 20 });
      expect(await minorFaults(root.read(region))).toBe(20);
      expect(await minorFaults(root.read(region))).toBe(0);
      await expectRegion(machine, root, region, { Size: 80, Rss: 0, Pss: 0, Anonymous: 0 }, { zero: 20, exclusive: 0 });
      const child = await root.fork();
      await expectRegion(machine, child, region, { Rss: 0 }, { 'not-present': 20, zero: 0 });
      expect(await minorFaults(root.write(region, { pages: 5 }))).toBe(5);
      await expectRegion(machine, root, region, { Rss: 20, Private_Dirty: 20 }, { zero: 15, exclusive: 5 });
    },
  },
  {
    name: 'once one page of a region was written, fork copies its zero pages too',
    forbidsZeroPage: false,
    async run(machine) {
      const { root } = machine;
      const region = await root.map({ pages: 20 });
      await root.read(region);
      await root.write(region, { first: 3, pages: 1 });
      const child = await root.fork();
      await expectRegion(machine, child, region, { Rss: 4, Shared_Dirty: 4 }, { zero: 19, shared: 1 });
      expect(await minorFaults(child.read(region))).toBe(0);
      expect(await minorFaults(child.write(region))).toBe(20);
    },
  },
  {
    name: 'DONTNEED gives the pages back but not the mark of having been written',
    forbidsZeroPage: false,
    async run(machine) {
      const { root } = machine;
      const region = await root.map({ pages: 10 });
      await root.write(region);
      await root.advise(region, 'dontneed');
      await expectRegion(machine, root, region, { Rss: 0 }, { 'not-present': 10 });
      expect(await minorFaults(root.read(region))).toBe(10);
      const child = await root.fork();
      await expectRegion(machine, child, region, { Rss: 0 }, { zero: 10 });
    },
  },
  {
    name: 'WIPEONFORK gives the child an empty region that is wiped again in its own children',
    async run(machine) {
      const { root } = machine;
      const region = await root.map({ pages: 10, onFork: 'wipeonfork' });
      await root.write(region);
      const child = await root.fork();
      await expectRegion(machine, child, region, { Size: 40, Rss: 0 }, { 'not-present': 10 });
      await expectRegion(machine, root, region, { Private_Dirty: 40 }, { exclusive: 10 });
      expect(await minorFaults(root.write(region))).toBe(0);
      expect(await minorFaults(child.write(region))).toBe(10);
      const grandchild = await child.fork();
      const seen = at(await machine.observe('grandchild'), grandchild, region);
      expect(seen.counts).toMatchObject({ 'not-present': 10 });
      expect(seen.vmas).toMatchObject([{ first: 0, pages: 10, wipeonfork: true, accounted: true }]);
    },
  },
  {
    name: 'a region with DONTFORK is not there in the child',
    async run(machine) {
      const { root } = machine;
      const kept = await root.map({ pages: 4 });
      const left = await root.map({ pages: 4, onFork: 'dontfork' });
      await root.write(left);
      const child = await root.fork();
      const observation = await machine.observe('forked');
      const names = observation.processes.find(({ process }) => process === child.name)?.regions.map((r) => r.region);
      expect(names).toEqual([kept.name]);
      expect(await minorFaults(root.write(left))).toBe(0);
    },
  },
  {
    name: 'shared anonymous memory is the same pages in parent and child, and is not copied by fork',
    async run(machine) {
      const { root } = machine;
      const region = await root.map({ pages: 16, sharing: 'shared' });
      expect(await minorFaults(root.write(region))).toBe(16);
      const child = await root.fork();
      await expectRegion(machine, child, region, { Rss: 0 }, { 'not-present': 16 });
      await expectRegion(machine, root, region, { Private_Dirty: 64, Anonymous: 0 }, { exclusive: 16 });
      // All 16 pages are in the page cache: one fault maps them all, and writes after it cost nothing.
      expect(await minorFaults(child.read(region, { pages: 1 }))).toBe(1);
      expect(await minorFaults(child.write(region))).toBe(0);
      await expectRegion(machine, root, region, { Pss: 32, Shared_Dirty: 64 }, { shared: 16 });
    },
  },
  {
    name: 'shared memory that was read and then written is dirty for the writer alone, until it unmaps',
    async run(machine) {
      const { root } = machine;
      const region = await root.map({ pages: 10, sharing: 'shared' });
      const child = await root.fork();
      expect(await minorFaults(root.read(region))).toBe(10);
      await expectRegion(machine, root, region, { Private_Clean: 40, Private_Dirty: 0 });
      expect(await minorFaults(child.read(region))).toBe(1);
      expect(await minorFaults(child.write(region))).toBe(0);
      await expectRegion(machine, child, region, { Shared_Dirty: 40, Shared_Clean: 0, Pss_Dirty: 20 });
      await expectRegion(machine, root, region, { Shared_Dirty: 0, Shared_Clean: 40, Pss_Dirty: 0 });
      await child.exit();
      await expectRegion(machine, root, region, { Private_Dirty: 40, Private_Clean: 0 });
    },
  },
  {
    name: 'a write fault on shared memory makes the page dirty for every mapper',
    async run(machine) {
      const { root } = machine;
      const region = await root.map({ pages: 10, sharing: 'shared' });
      const child = await root.fork();
      await root.read(region);
      expect(await minorFaults(child.write(region))).toBe(10);
      await expectRegion(machine, root, region, { Shared_Dirty: 40, Shared_Clean: 0 });
    },
  },
  {
    name: 'fault-around maps the 16 aligned pages around a read, and stops at the end of the region',
    async run(machine) {
      const { root } = machine;
      const object = await machine.createMemfd(40);
      await object.write();
      const region = await root.map({ pages: 40, sharing: 'shared', backing: object });
      expect(await minorFaults(root.read(region, { first: 20, pages: 1 }))).toBe(1);
      const seen = at(await machine.observe('one read'), root, region);
      expect(seen.states).toEqual([
        [16, 'not-present'],
        [16, 'exclusive'],
        [8, 'not-present'],
      ]);
      expect(await minorFaults(root.read(region, { first: 39, pages: 1 }))).toBe(1);
      expect(await minorFaults(root.read(region))).toBe(1);
      await expectRegion(machine, root, region, { Rss: 160, Private_Dirty: 160 }, { exclusive: 40 });
    },
  },
  {
    name: 'the window of fault-around is 16 pages from where the VMA begins, if that clips it',
    async run(machine) {
      const { root } = machine;
      const object = await machine.createMemfd(64);
      await object.write();
      const region = await root.map({ pages: 64, sharing: 'shared', backing: object });
      await root.protect(region, 'r', { first: 5, pages: 59 });
      // The second VMA begins at page 5: the window of a read of page 7 is 5 .. 20.
      expect(await minorFaults(root.read(region, { first: 7, pages: 1 }))).toBe(1);
      const seen = at(await machine.observe('one read'), root, region);
      expect(seen.states).toEqual([
        [5, 'not-present'],
        [16, 'exclusive'],
        [43, 'not-present'],
      ]);
    },
  },
  {
    name: 'a read of a hole in a memfd allocates that page alone',
    async run(machine) {
      const { root } = machine;
      const object = await machine.createMemfd(32);
      await object.write({ first: 4, pages: 2 });
      const region = await root.map({ pages: 32, sharing: 'shared', backing: object });
      expect(await minorFaults(root.read(region, { first: 9, pages: 1 }))).toBe(1);
      // The pages 4 and 5 were there already, so the same fault maps them.
      await expectRegion(machine, root, region, { Rss: 12, Private_Clean: 4, Private_Dirty: 8 }, { exclusive: 3 });
    },
  },
  {
    name: 'a memfd that one process maps twice is Shared',
    async run(machine) {
      const { root } = machine;
      const object = await machine.createMemfd(12);
      const whole = await root.map({ pages: 12, sharing: 'shared', backing: object });
      const part = await root.map({ pages: 4, sharing: 'shared', backing: object, offset: 8 });
      await root.write(whole);
      expect(await minorFaults(root.read(part))).toBe(1);
      await expectRegion(machine, root, whole, { Pss: 40, Shared_Dirty: 16, Private_Dirty: 32 }, { shared: 4 });
      await expectRegion(machine, root, part, { Pss: 8, Shared_Dirty: 16, Private_Dirty: 0 }, { shared: 4 });
    },
  },
  {
    name: 'a private mapping of a memfd copies what it writes and shares what it reads',
    async run(machine) {
      const { root } = machine;
      const object = await machine.createMemfd(32);
      await object.write();
      const region = await root.map({ pages: 32, backing: object });
      expect(await minorFaults(root.read(region))).toBe(2);
      expect(await minorFaults(root.write(region, { pages: 4 }))).toBe(4);
      await expectRegion(machine, root, region, { Rss: 128, Anonymous: 16, Private_Dirty: 128 }, { exclusive: 32 });
      const child = await root.fork();
      // It has been written, so the page table entries of the page cache are copied too.
      await expectRegion(machine, child, region, { Rss: 128, Pss: 64, Shared_Dirty: 128 }, { shared: 32 });
      expect(await minorFaults(child.write(region, { pages: 8 }))).toBe(8);
      await expectRegion(machine, child, region, { Anonymous: 32, Private_Dirty: 32, Shared_Dirty: 96 });
    },
  },
  {
    name: 'a private write to a hole of a memfd costs one fault and leaves a page in the page cache',
    async run(machine) {
      const { root } = machine;
      const object = await machine.createMemfd(8);
      const own = await root.map({ pages: 8, backing: object });
      const common = await root.map({ pages: 8, sharing: 'shared', backing: object });
      expect(await minorFaults(root.write(own))).toBe(8);
      expect(await minorFaults(root.read(common))).toBe(1);
      await expectRegion(machine, root, common, { Private_Clean: 32, Private_Dirty: 0 }, { exclusive: 8 });
    },
  },
  {
    name: 'mprotect to read-only and back costs no fault, except for pages that were shared by fork',
    async run(machine) {
      const { root } = machine;
      const region = await root.map({ pages: 10 });
      await root.write(region);
      await root.protect(region, 'r');
      await root.protect(region, 'rw');
      expect(await minorFaults(root.write(region))).toBe(0);
      const child = await root.fork();
      await child.exit();
      await root.protect(region, 'r');
      await root.protect(region, 'rw');
      expect(await minorFaults(root.write(region))).toBe(10);
      await root.protect(region, 'none');
      await expectRegion(machine, root, region, { Rss: 40, Private_Dirty: 40 }, { exclusive: 10 });
    },
  },
  {
    name: 'protecting the middle of a region makes three VMAs, and one again when it is undone',
    async run(machine) {
      const { root } = machine;
      const region = await root.map({ pages: 10 });
      await root.write(region, { pages: 1 });
      await root.protect(region, 'r', { first: 4, pages: 2 });
      const split = at(await machine.observe('split'), root, region);
      expect(split.vmas.map(({ first, pages, protection }) => [first, pages, protection])).toEqual([
        [0, 4, 'rw'],
        [4, 2, 'r'],
        [6, 4, 'rw'],
      ]);
      await root.protect(region, 'rw', { first: 4, pages: 2 });
      expect(at(await machine.observe('joined'), root, region).vmas).toHaveLength(1);
    },
  },
  {
    name: 'a written VMA is joined with an unwritten neighbour (Linux 6.16), and an unwritten one with a written',
    async run(machine) {
      const { root } = machine;
      const region = await root.map({ pages: 10 });
      const half = { pages: 5 };
      // While they differ in a flag, what is written in one half does not concern the other.
      await root.advise(region, 'dontfork', half);
      await root.write(region, half);
      await root.advise(region, 'dofork', half);
      const written = at(await machine.observe('the written half changed'), root, region);
      expect(written.vmas).toHaveLength(isSince(machine, 6, 16) ? 1 : 2);
      await root.advise(region, 'dontfork', { first: 5 });
      await root.advise(region, 'dofork', { first: 5 });
      expect(at(await machine.observe('the other half changed'), root, region).vmas).toHaveLength(1);
    },
  },
  {
    name: 'a region that was never written is charged no more when it becomes read-only (Linux 6.7), a written one is',
    forbidsZeroPage: false,
    async run(machine) {
      const { root } = machine;
      const untouched = await root.map({ pages: 4 });
      const written = await root.map({ pages: 4 });
      await root.read(untouched);
      await root.write(written, { pages: 1 });
      await root.protect(untouched, 'r');
      await root.protect(written, 'r');
      const observation = await machine.observe('read-only');
      expect(at(observation, root, untouched).vmas).toMatchObject([{ accounted: !isSince(machine, 6, 7) }]);
      expect(at(observation, root, written).vmas).toMatchObject([{ accounted: true }]);
    },
  },
  {
    name: 'a grown region keeps its pages, and only new ones fault',
    async run(machine) {
      const { root } = machine;
      const region = await root.map({ pages: 10 });
      await root.write(region);
      await root.grow(region, 25);
      await expectRegion(machine, root, region, { Size: 100, Rss: 40 }, { exclusive: 10, 'not-present': 15 });
      expect(await minorFaults(root.write(region))).toBe(15);
    },
  },
  {
    name: 'shared anonymous memory beyond its first size raises SIGBUS',
    async run(machine) {
      const { root } = machine;
      const region = await root.map({ pages: 4, sharing: 'shared' });
      const child = await root.fork();
      await child.grow(region, 8);
      expect(await minorFaults(child.write(region, { pages: 4 }))).toBe(4);
      await expect(child.write(region, { first: 3, pages: 2 })).rejects.toThrow(ProcessEndedError);
      expect(child.ended).toMatchObject({ signal: 'SIGBUS' });
      expect(root.alive).toBe(true);
    },
  },
  {
    name: 'a write to read-only memory ends the process by SIGSEGV, and the pages before it are written',
    async run(machine) {
      const { root } = machine;
      const region = await root.map({ pages: 8, sharing: 'shared' });
      const child = await root.fork();
      await child.protect(region, 'r', { first: 5, pages: 3 });
      await expect(child.write(region)).rejects.toThrow(ProcessEndedError);
      expect(child.ended).toMatchObject({ signal: 'SIGSEGV' });
      expect(await minorFaults(root.read(region, { pages: 1 }))).toBe(1);
      await expectRegion(machine, root, region, { Private_Dirty: 20 }, { exclusive: 5 });
    },
  },
  {
    name: 'populating costs one fault a page where there is nothing yet, and refuses what is not permitted',
    forbidsZeroPage: false,
    async run(machine) {
      const { root } = machine;
      const region = await root.map({ pages: 10 });
      expect(await minorFaults(root.advise(region, 'populate-read', { pages: 4 }))).toBe(4);
      await expectRegion(machine, root, region, { Rss: 0 }, { zero: 4 });
      expect(await minorFaults(root.advise(region, 'populate-write'))).toBe(10);
      expect(await minorFaults(root.advise(region, 'populate-write'))).toBe(0);
      await root.protect(region, 'r');
      await expect(root.advise(region, 'populate-write')).rejects.toMatchObject({ code: 'EINVAL', syscall: 'madvise' });
      await root.protect(region, 'none');
      await expect(root.advise(region, 'populate-read')).rejects.toMatchObject({ code: 'EINVAL' });
      const mapped = await root.map({ pages: 10, populate: true });
      await expectRegion(machine, root, mapped, { Private_Dirty: 40 }, { exclusive: 10 });
    },
  },
  {
    name: 'populating shared memory for writing makes pages that are mapped already dirty for all, without a fault',
    async run(machine) {
      const { root } = machine;
      const region = await root.map({ pages: 10, sharing: 'shared' });
      const child = await root.fork();
      await root.read(region);
      await child.read(region);
      expect(await minorFaults(child.advise(region, 'populate-write'))).toBe(0);
      await expectRegion(machine, root, region, { Shared_Dirty: 40, Shared_Clean: 0 });
    },
  },
  {
    name: 'WIPEONFORK is refused for shared memory',
    async run(machine) {
      const region = await machine.root.map({ pages: 2, sharing: 'shared' });
      const refused = machine.root.advise(region, 'wipeonfork');
      await expect(refused).rejects.toThrow(SystemError);
      await expect(refused).rejects.toMatchObject({ code: 'EINVAL', syscall: 'madvise' });
    },
  },
  {
    name: 'a part that is unmapped is a hole, and the rest stays as it is',
    async run(machine) {
      const { root } = machine;
      const region = await root.map({ pages: 12 });
      await root.write(region);
      await root.unmap(region, { first: 4, pages: 4 });
      const seen = at(await machine.observe('hole'), root, region);
      expect(seen.pages).toBe(12);
      expect(seen.vmas.map(({ first, pages }) => [first, pages])).toEqual([
        [0, 4],
        [8, 4],
      ]);
      expect(seen.smapsKb).toMatchObject({ Size: 32, Rss: 32 });
      expect(seen.states).toEqual([
        [4, 'exclusive'],
        [4, 'not-present'],
        [4, 'exclusive'],
      ]);
    },
  },
  {
    name: 'random slices of one pattern write every page once',
    async run(machine) {
      const { root } = machine;
      const region = await root.map({ pages: 1000 });
      await root.write(region);
      const child = await root.fork();
      let faults = 0;
      for (let from = 0; from < 1000; from += 250) {
        const slice = { pattern: 'random', seed: 7, from, to: from + 250 } as const;
        faults += Number(await minorFaults(child.write(region, slice)));
      }
      expect(faults).toBe(1000);
      await expectRegion(machine, child, region, { Private_Dirty: 4000 }, { exclusive: 1000 });
    },
  },
  {
    name: 'a read beyond the end of an object fails, but has mapped the pages around it',
    async run(machine) {
      const object = await machine.createMemfd(5);
      await object.write();
      const region = await machine.root.map({ pages: 8, backing: object, sharing: 'shared' });
      const beyond = machine.root.advise(region, 'populate-read', { first: 6, pages: 1 });
      await expect(beyond).rejects.toMatchObject({ code: 'EFAULT', syscall: 'madvise' });
      await expectRegion(machine, machine.root, region, { Rss: 20, Pss: 20 }, { exclusive: 5, 'not-present': 3 });
    },
  },
  {
    name: 'where the zero page is forbidden, reading takes memory of its own, which fork shares',
    forbidsZeroPage: true,
    async run(machine) {
      const { root } = machine;
      const region = await root.map({ pages: 20 });
      expect(await minorFaults(root.read(region))).toBe(20);
      await expectRegion(machine, root, region, { Rss: 80, Private_Dirty: 80 }, { zero: 0, exclusive: 20 });
      expect(await minorFaults(root.write(region))).toBe(0);
      const child = await root.fork();
      await expectRegion(machine, child, region, { Rss: 80, Pss: 40, Shared_Dirty: 80 }, { shared: 20 });
      expect(await minorFaults(child.read(region))).toBe(0);
      expect(await minorFaults(child.write(region, { pages: 5 }))).toBe(5);
    },
  },
  {
    name: 'where the zero page is forbidden, read-only memory that is read is clean until it may be written',
    forbidsZeroPage: true,
    async run(machine) {
      const { root } = machine;
      const region = await root.map({ pages: 10, protection: 'r' });
      expect(await minorFaults(root.read(region))).toBe(10);
      await expectRegion(machine, root, region, { Rss: 40, Private_Clean: 40, Private_Dirty: 0 }, { exclusive: 10 });
      await root.protect(region, 'rw');
      await expectRegion(machine, root, region, { Private_Clean: 40, Private_Dirty: 0 });
      // It is exclusively ours, so it became writable at once, and the processor marks what is written.
      expect(await minorFaults(root.write(region, { pages: 4 }))).toBe(0);
      await expectRegion(machine, root, region, { Private_Clean: 24, Private_Dirty: 16 });
    },
  },
];

export const anchors: readonly Anchor[] = [...baseAnchors, ...hugeAnchors, ...ksmAnchors];

/** Those that hold on a kernel of these facts. */
export function anchorsFor({ forbidsZeroPage = false }: Pick<HostFacts, 'forbidsZeroPage'>): Anchor[] {
  return anchors.filter((anchor) => [undefined, forbidsZeroPage].includes(anchor.forbidsZeroPage));
}
