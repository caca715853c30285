/** Whom a process shares its memory with. */
import { afterEach, describe, expect, test } from 'vitest';
import { createMemfd } from '../../lib/api/file-object.js';
import { fork } from '../../lib/api/forked-process.js';
import type { ForkedProcess } from '../../lib/api/forked-process.js';
import { mmap } from '../../lib/api/mapping.js';
import type { Mapping } from '../../lib/api/mapping.js';
import { FeatureUnavailableError, SystemError } from '../../lib/errors.js';
import { readHostFacts } from '../../lib/proc/host.js';
import { readSharing, relationOf } from '../../lib/proc/sharers.js';
import type { SharedMapping, MemorySharing } from '../../lib/proc/sharers.js';
import { CAP_SYS_ADMIN, hasCapability, readStatus } from '../../lib/proc/status.js';
import { KERNEL_THREAD, whyNoKernelThread } from './kernel-thread.js';

const framesShown = hasCapability(readStatus('self'), CAP_SYS_ADMIN) === true;
const { forbidsZeroPage } = readHostFacts(process.pid);
const withFrames = test.skipIf(!framesShown);

const children: ForkedProcess[] = [];
const mappings: Mapping[] = [];
afterEach(async () => {
  for (const child of children.splice(0).reverse()) await child.kill();
  for (const mapping of mappings.splice(0)) mapping.unmap();
});

function map(spec: Parameters<typeof mmap>[0]): Mapping {
  const mapping = mmap(spec);
  mappings.push(mapping);
  return mapping;
}

async function forkFrom(parent?: ForkedProcess): Promise<ForkedProcess> {
  const child = parent ? await parent.fork() : fork();
  children.push(child);
  return child;
}

function mappingOf(sharing: MemorySharing, address: bigint): SharedMapping {
  const found = sharing.mappings.find(({ vma }) => vma.start === address);
  if (!found) expect.unreachable('the region is a VMA of its own');
  return found;
}

/** Pages by the pid of who has them too. */
function pagesOf({ sharedWith }: SharedMapping): Record<number, unknown> {
  return Object.fromEntries(sharedWith.map(({ pid, pages }) => [pid, pages]));
}

describe('by page frames', () => {
  withFrames('each pair of processes shares exactly the pages that neither has written since', async () => {
    const region = map({ pages: 1000 });
    region.write();
    const [a, b] = [await forkFrom(), await forkFrom()];
    await a.write(region, { first: 0, pages: 100 });
    await b.write(region, { first: 50, pages: 100 });
    const ofA = mappingOf(readSharing(a.pid), region.address);
    expect(pagesOf(ofA)).toEqual({ [process.pid]: 900, [b.pid]: 850 });
    expect(ofA).toMatchObject({ ownKb: 400, sharedKb: 3600, elsewherePages: 0 });
    expect(pagesOf(mappingOf(readSharing(b.pid), region.address))).toEqual({ [process.pid]: 900, [a.pid]: 850 });
    // Pages 50 to 99 were written by both, so that the parent has them alone.
    const ofParent = mappingOf(readSharing(process.pid), region.address);
    expect(pagesOf(ofParent)).toEqual({ [a.pid]: 900, [b.pid]: 900 });
    expect(ofParent).toMatchObject({ ownKb: 200, sharedKb: 3800, elsewherePages: 0 });
  });

  withFrames(
    'memory that only two of three processes map names those two, and what they are to each other',
    async () => {
      const child = await forkFrom();
      const region = await child.map({ pages: 64 });
      await child.write(region);
      const grandchild = await forkFrom(child);
      const sharing = readSharing(grandchild.pid);
      expect(pagesOf(mappingOf(sharing, grandchild.placement(region).address))).toEqual({ [child.pid]: 64 });
      expect(sharing.sharers.find(({ pid }) => pid === child.pid)).toMatchObject({ relation: 'parent' });
      expect(sharing.sharers.find(({ pid }) => pid === process.pid)).toMatchObject({ relation: 'ancestor' });
      const ofChild = readSharing(child.pid);
      expect(ofChild.sharers.find(({ pid }) => pid === grandchild.pid)).toMatchObject({ relation: 'child' });
    },
  );

  withFrames('a memfd is found at other addresses and places, and one that maps it twice counts once', async () => {
    const object = createMemfd(32);
    const child = await forkFrom();
    const whole = await child.map({ pages: 32, sharing: 'shared', object });
    const half = await child.map({ pages: 16, sharing: 'shared', object, offset: 16 });
    await child.write(whole);
    await child.read(half);
    const region = map({ pages: 24, sharing: 'shared', object, offset: 8 });
    region.read();
    const ours = mappingOf(readSharing(process.pid), region.address);
    // Pages 8 to 31 of the file, of which the child maps 16 to 31 twice.
    expect(pagesOf(ours)).toEqual({ [child.pid]: 24 });
    expect(pagesOf(mappingOf(readSharing(child.pid), child.placement(half).address))).toEqual({ [process.pid]: 16 });
    object.close();
  });

  withFrames('memory that has moved is shared with nobody that can be named, and that is said', async () => {
    const region = map({ pages: 16 });
    region.write();
    const child = await forkFrom();
    await child.write(region, { first: 0, pages: 4 });
    const { address } = region;
    expect(mappingOf(readSharing(child.pid), address)).toMatchObject({
      sharedWith: [{ pages: 12 }],
      elsewherePages: 0,
    });
    region.grow(64);
    expect(region.address).not.toBe(address);
    const moved = mappingOf(readSharing(child.pid), address);
    expect(moved).toMatchObject({ ownKb: 16, sharedKb: 48, sharedWith: [], elsewherePages: 12 });
  });

  test.skipIf(!framesShown || forbidsZeroPage)('the zero page is shared with nobody', async () => {
    const region = map({ pages: 8 });
    region.read();
    const child = await forkFrom();
    await child.read(region);
    expect(mappingOf(readSharing(child.pid), region.address)).toMatchObject({ sharedWith: [], elsewherePages: 0 });
  });
});

describe('as who may not read page frames', () => {
  test('the pages that two may share are bounded, and the reason is said', async () => {
    const region = map({ pages: 100 });
    region.write();
    const [a, b] = [await forkFrom(), await forkFrom()];
    await a.write(region, { first: 0, pages: 30 });
    const sharing = readSharing(a.pid, { frames: false });
    expect(sharing.byFrames).toBe(false);
    const { sharedWith, elsewherePages } = mappingOf(sharing, region.address);
    expect(sharedWith.map(({ pid }) => pid).sort()).toEqual([process.pid, b.pid].sort());
    const why = expect.stringMatching(/CAP_SYS_ADMIN/) as string;
    for (const { pages } of sharedWith) expect(pages).toEqual({ min: 0, max: 70, why });
    expect(elsewherePages).toEqual({ unknown: why });
  });
});

describe('what cannot be looked at', () => {
  test('a sparse mapping of a terabyte is not looked through, and that is said', async () => {
    const parent = await forkFrom();
    const region = await parent.map({ pages: 2 ** 28, noreserve: true });
    await parent.write(region, { first: 2 ** 27, pages: 3 });
    const child = await forkFrom(parent);
    const { sharedKb, sharedWith, elsewherePages } = mappingOf(readSharing(child.pid), child.placement(region).address);
    expect({ sharedKb, sharedWith }).toEqual({ sharedKb: 12, sharedWith: [] });
    expect(elsewherePages).toMatchObject({ unknown: expect.stringMatching(/too large/) as string });
  });

  test('a process that is not there', () => {
    expect(() => readSharing(2 ** 22 + 1)).toThrow(SystemError);
  });

  test('one without memory', (context) => {
    const lacking = whyNoKernelThread();
    if (lacking !== undefined) context.skip(lacking);
    expect(() => readSharing(KERNEL_THREAD)).toThrow(FeatureUnavailableError);
  });
});

test('relations are read from the parents', () => {
  const parents = new Map([
    [1, 0],
    [10, 1],
    [20, 10],
    [21, 10],
    [30, 20],
    [40, 1],
  ]);
  expect(relationOf(20, 10, parents)).toBe('parent');
  expect(relationOf(10, 20, parents)).toBe('child');
  expect(relationOf(20, 21, parents)).toBe('sibling');
  expect(relationOf(30, 10, parents)).toBe('ancestor');
  expect(relationOf(1, 30, parents)).toBe('descendant');
  expect(relationOf(30, 40, parents)).toBe('other');
  // Pids that were used again while they were read.
  parents.set(10, 30);
  expect(relationOf(40, 20, parents)).toBe('other');
  expect(relationOf(30, 99, parents)).toBe('other');
});
