/** TreeWatch on processes that write exactly what they are told to. */
import { afterEach, describe, expect, test } from 'vitest';
import { fork } from '../../lib/api/forked-process.js';
import type { ForkedProcess, ForkedRegion } from '../../lib/api/forked-process.js';
import { startProgram } from '../../lib/api/foreign-program.js';
import { readProcesses } from '../../lib/proc/process-tree.js';
import { readSmapsRollup } from '../../lib/proc/smaps.js';
import { readStat } from '../../lib/proc/stat.js';
import { TreeWatch } from '../../lib/proc/tree-watch.js';
import type { TreeSample } from '../../lib/proc/tree-watch.js';
import type { WatchedMemory } from '../../lib/proc/watched-process.js';
import { bounds } from '../../lib/schema/figure.js';
import { KERNEL_THREAD, whyNoKernelThread } from './kernel-thread.js';

const MIB_PAGES = 256;
/** Fewer where each takes long, as in an emulated machine. */
const RACES = process.env['COWLAB_SHORT'] === '1' ? 8 : 20;
const opened: ForkedProcess[] = [];
afterEach(async () => {
  for (const one of opened.splice(0).reverse()) await one.close();
});

/** Reads memory in each look that finds it stirred; what the pace changes, watch-pace.test.ts says. */
function watchOf(pid: number): TreeWatch {
  return new TreeWatch(pid, { maxLoad: 1 });
}

async function parentWith(pages: number): Promise<{ parent: ForkedProcess; region: ForkedRegion }> {
  const parent = fork();
  opened.push(parent);
  const region = await parent.map({ pages });
  await parent.write(region);
  return { parent, region };
}

/** The parent has copied all pages since it was first looked at, while a child lived that no look has seen. */
async function parentThatCopied(pages: number) {
  const { parent, region } = await parentWith(pages);
  const watch = watchOf(parent.pid);
  const before = bounds(of(parent, watch.sample()).copiedKb).max;
  const child = await parent.fork();
  opened.push(child);
  expect((await parent.write(region)).minorFaults).toBe(pages);
  return { parent, child, watch, before };
}

function of({ pid }: ForkedProcess, sample: TreeSample): WatchedMemory {
  const found = sample.processes.find((one) => one.pid === pid);
  if (!found) throw new Error(`${String(pid)} is not in the sample`);
  return found;
}

describe('a watched tree', () => {
  test('what a child copies after it was seen is counted to the page, and found at its mapping', async () => {
    const { parent, region } = await parentWith(4 * MIB_PAGES);
    const watch = watchOf(parent.pid);
    watch.sample();
    const child = await parent.fork();
    opened.push(child);
    // What it needs for its own first write is copied by then.
    await child.write(region, { first: 4 * MIB_PAGES - 1, pages: 1 });
    const before = of(child, watch.sample());
    const { minorFaults } = await child.write(region, { first: 0, pages: MIB_PAGES });
    const after = of(child, watch.sample());
    expect(minorFaults).toBe(MIB_PAGES);
    expect(after.minorFaults - before.minorFaults).toBe(MIB_PAGES);
    expect(bounds(after.copiedKb).max - bounds(before.copiedKb).max).toBe(1024);
    expect(after.ussKb - before.ussKb).toBe(1024);
    const { address } = parent.placement(region);
    const broken = watch.broken.filter(({ start, end }) => start <= address && address < end);
    const ofChild = broken.find(({ pid }) => pid === child.pid);
    expect(ofChild).toMatchObject({ lostKb: 1024, isPython: false });
    // The parent has lost as much sharing, and has had no fault: it has copied nothing.
    expect(broken.find(({ pid }) => pid === parent.pid)).toBeUndefined();
  });

  test('what a child copied before it was seen for the first time is counted from its fork', async () => {
    const { parent, region } = await parentWith(4 * MIB_PAGES);
    const watch = watchOf(parent.pid);
    watch.sample();
    const child = await parent.fork();
    opened.push(child);
    await child.write(region, { first: 0, pages: MIB_PAGES });
    const { max } = bounds(of(child, watch.sample()).copiedKb);
    expect(max).toBeGreaterThanOrEqual(1024);
    // And what the child needed to begin with.
    expect(max).toBeLessThan(2 * 1024);
  });

  test('what is copied while the mappings are being read is within the bound', async () => {
    const pages = 128 * MIB_PAGES;
    const { parent, region } = await parentWith(pages);
    const child = await parent.fork();
    opened.push(child);
    const watch = watchOf(parent.pid);
    const before = bounds(of(child, watch.sample()).copiedKb).max;
    const state = { written: false };
    const writing = child.write(region).finally(() => {
      state.written = true;
    });
    while (!state.written) {
      watch.sample();
      await new Promise(setImmediate);
    }
    expect((await writing).minorFaults).toBe(pages);
    expect(bounds(of(child, watch.sample()).copiedKb).max - before).toBeGreaterThanOrEqual(pages * 4);
  });

  test('a child that only reads has copied nothing, and one whose sibling ends neither', async () => {
    const { parent, region } = await parentWith(MIB_PAGES);
    const watch = watchOf(parent.pid);
    const [reader, other] = [await parent.fork(), await parent.fork()];
    opened.push(reader, other);
    const before = bounds(of(reader, watch.sample()).copiedKb).max;
    await reader.read(region);
    await other.exit();
    const sample = watch.sample();
    expect(bounds(of(reader, sample).copiedKb).max).toBeLessThan(before + 64);
    expect(sample.processes.map(({ pid }) => pid).sort()).toEqual([parent.pid, reader.pid].sort());
  });

  test('what an ended process had shared does not pass for copied by another, nor when that writes it later', async () => {
    const { parent, region } = await parentWith(MIB_PAGES);
    const [stays, ends] = [await parent.fork(), await parent.fork()];
    opened.push(stays, ends);
    // So that its own first access is behind it, and only these two share the region.
    await stays.read(region);
    await parent.unmap(region);
    const watch = watchOf(parent.pid);
    const before = bounds(of(stays, watch.sample()).copiedKb).max;
    await ends.exit();
    expect(bounds(of(stays, watch.sample()).copiedKb).max).toBe(before);
    const { minorFaults } = await stays.write(region);
    watch.sample();
    // Each page is made writable again by a fault, and none is copied.
    expect(minorFaults).toBe(MIB_PAGES);
    const { address } = stays.placement(region);
    expect(watch.broken.filter(({ start, end }) => start <= address && address < end)).toEqual([]);
  });

  test('what was copied while a child lived that was never seen is within the bound', async () => {
    const { parent, child, watch, before } = await parentThatCopied(MIB_PAGES);
    await child.exit();
    const after = of(parent, watch.sample());
    expect(bounds(after.copiedKb).max - before).toBeGreaterThanOrEqual(1024);
  });

  test('what was copied while a child lived that nobody has waited for is within the bound', async () => {
    const { parent, child, watch, before } = await parentThatCopied(MIB_PAGES);
    // Its socket tells when it has ended, whereupon the library has its parent wait for it, which must not be yet.
    process.kill(parent.pid, 'SIGSTOP');
    process.kill(child.pid, 'SIGKILL');
    await expect.poll(() => readStat(child.pid).state).toBe('Z');
    const after = of(parent, watch.sample());
    process.kill(parent.pid, 'SIGCONT');
    expect(bounds(after.copiedKb).max - before).toBeGreaterThanOrEqual(1024);
  });

  test('what a child has copied before it forked is within the bound, though it is shared again', async () => {
    const { parent, region } = await parentWith(MIB_PAGES);
    const watch = watchOf(parent.pid);
    watch.sample();
    const child = await parent.fork();
    opened.push(child);
    expect((await child.write(region)).minorFaults).toBe(MIB_PAGES);
    opened.push(await child.fork());
    expect(bounds(of(child, watch.sample()).copiedKb).max).toBeGreaterThanOrEqual(1024);
  });

  test('what is copied right before a fork, while the tree is being looked at, is within the bound', async () => {
    const pages = 16 * MIB_PAGES;
    const { parent, region } = await parentWith(pages);
    let older = await parent.fork();
    opened.push(older);
    const watch = watchOf(parent.pid);
    for (let round = 0; round < RACES; round++) {
      watch.sample();
      const before = bounds(of(parent, watch.sample()).copiedKb).max;
      const state = { forked: false };
      const writing = parent.write(region);
      const forking = parent.fork().finally(() => {
        state.forked = true;
      });
      while (!state.forked) {
        watch.sample();
        await new Promise(setImmediate);
      }
      const child = await forking;
      opened.push(child);
      expect((await writing).minorFaults).toBe(pages);
      // One to end the interval in which the child was forked, and one that would see it late.
      watch.sample();
      const after = bounds(of(parent, watch.sample()).copiedKb).max;
      expect(after - before, `round ${String(round)}`).toBeGreaterThanOrEqual(pages * 4);
      await older.exit();
      older = child;
    }
  });

  test('figures are those of smaps_rollup, and only Pss adds up to what is taken', async () => {
    const { parent } = await parentWith(4 * MIB_PAGES);
    opened.push(await parent.fork(), await parent.fork());
    const sample = watchOf(parent.pid).sample();
    expect(sample.processes).toHaveLength(3);
    for (const one of sample.processes) {
      const { fieldsKb } = readSmapsRollup(one.pid);
      expect(one.rssKb).toBe(fieldsKb['Rss']);
      expect(one.ussKb + one.sharedKb).toBe(one.rssKb);
    }
    expect(sample.rssKb).toBeGreaterThan(3 * 4096);
    expect(sample.pssKb).toBe(sample.processes.reduce((all, { pssKb }) => all + pssKb, 0));
    expect(sample.costMs).toBeGreaterThan(0);
  });

  test('a resting tree is not read again at once, and what stirs it is seen at once', async () => {
    const { parent, region } = await parentWith(4 * MIB_PAGES);
    const child = await parent.fork();
    opened.push(child);
    // What it needs for its own first write is copied by then.
    await child.write(region, { first: 4 * MIB_PAGES - 1, pages: 1 });
    const watch = watchOf(parent.pid);
    const first = watch.sample();
    const second = watch.sample();
    expect(first.processes.map(({ ageMs }) => ageMs)).toEqual([0, 0]);
    expect(second.processes.every(({ ageMs }) => ageMs > 0)).toBe(true);
    expect(second.longestReadMs).toBe(0);
    expect([second.pssKb, second.ussKb, second.rssKb]).toEqual([first.pssKb, first.ussKb, first.rssKb]);
    // A fault in one of them: what the others share may have become their own.
    await child.write(region, { pages: MIB_PAGES });
    const third = watch.sample();
    expect(third.processes.map(({ ageMs }) => ageMs)).toEqual([0, 0]);
    expect(of(parent, third).ussKb - of(parent, second).ussKb).toBe(1024);
    // Memory that is given back, without a fault: it is resident no more.
    const before = of(child, watch.sample());
    await child.advise(region, 'dontneed', { pages: MIB_PAGES });
    const after = of(child, watch.sample());
    expect(after.ageMs).toBe(0);
    expect(before.ussKb - after.ussKb).toBe(1024);
  });

  test('who inherits an orphan does not take it out of the tree, and an ended tree is empty', async () => {
    // The middle one ends; its child lives on, and belongs to another parent.
    const program = startProgram('sh', ['-c', '(sleep 60 & echo $! ; exec sleep 0.3)& wait $!; echo over; sleep 60']);
    try {
      const sleeper = Number(await program.line());
      const parents = readProcesses();
      const middle = parents.find(({ pid }) => pid === sleeper)?.parent ?? 0;
      const watch = watchOf(middle);
      expect(watch.sample().processes.map(({ pid }) => pid)).toContain(sleeper);
      expect(await program.line()).toBe('over');
      expect(watch.sample().processes.map(({ pid }) => pid)).toEqual([sleeper]);
      process.kill(sleeper, 'SIGKILL');
      await expect.poll(() => watch.sample().processes).toEqual([]);
    } finally {
      await program.close();
    }
  });

  test('execve begins anew: memory that it gives up was not copied', async () => {
    const script = 'x=$(head -c 8000000 /dev/zero | tr "\\0" a); (sleep 0.5; exec sleep 60) & echo $!; wait';
    const program = startProgram('sh', ['-c', script]);
    try {
      const shell = Number(await program.line());
      const watch = watchOf(shell);
      const before = watch.sample().processes.find(({ pid }) => pid === shell);
      expect(before).toMatchObject({ comm: 'sh', copiedKb: 0 });
      const seen = () => watch.sample().processes.find(({ pid }) => pid === shell);
      await expect.poll(() => seen()?.comm, { timeout: 20_000 }).toBe('sleep');
      // A new program has so many faults that a good part of it would pass for copied.
      await expect.poll(() => seen()?.minorFaults, { timeout: 20_000 }).toBeGreaterThan(50);
      const broken = watch.broken.filter(({ pid }) => pid === shell).reduce((all, { lostKb }) => all + lostKb, 0);
      expect(broken).toBeLessThan(50 * 4);
    } finally {
      await program.close();
    }
  });

  test('looking causes no fault in the tree', async () => {
    const { parent } = await parentWith(MIB_PAGES);
    const watch = watchOf(parent.pid);
    const first = of(parent, watch.sample()).minorFaults;
    for (let look = 0; look < 50; look++) watch.sample();
    expect(of(parent, watch.sample()).minorFaults).toBe(first);
  });

  test.each([
    [0, RangeError],
    [1.5, RangeError],
    [-1, RangeError],
    [2 ** 31, RangeError],
  ])('a root of %d is refused', (pid, error) => {
    expect(() => new TreeWatch(pid)).toThrow(error);
  });

  test('a process without memory is refused, and why', (context) => {
    const lacking = whyNoKernelThread();
    if (lacking !== undefined) context.skip(lacking);
    expect(() => new TreeWatch(KERNEL_THREAD)).toThrow(/no memory of its own/);
  });

  test('a process that is not there is ESRCH', () => {
    expect(() => new TreeWatch(2 ** 22 + 99)).toThrow(/there is no process/);
  });
});
