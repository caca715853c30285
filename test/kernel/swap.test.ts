/** What the readers say of pages in swap, in a tree of processes, against what must be there by construction. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { createMemfd } from '../../lib/api/file-object.js';
import { fork } from '../../lib/api/forked-process.js';
import type { ForkedProcess, ForkedRegion } from '../../lib/api/forked-process.js';
import type { RawMapSpec } from '../../lib/api/map-spec.js';
import type { SystemChanges } from '../../lib/api/system-changes.js';
import type { WriteMethod } from '../../lib/api/written.js';
import { inspectReport } from '../../lib/cli/inspect.js';
import { predictFork } from '../../lib/machine/linux/predict.js';
import { native } from '../../lib/native.js';
import { FrameSnapshot, countFrames, readFrames, seesFrames } from '../../lib/proc/frames.js';
import { readHostFacts } from '../../lib/proc/host.js';
import { whyNoHugePages } from '../../lib/proc/huge-pages.js';
import { PAGE_STATES, appendStateRuns, countPages, readPageStates } from '../../lib/proc/pagemap.js';
import { readTreeMemory } from '../../lib/proc/process-tree.js';
import { readSharing } from '../../lib/proc/sharers.js';
import { readSmapsTable } from '../../lib/proc/smaps-table.js';
import { readSmaps } from '../../lib/proc/smaps.js';
import type { StateRuns } from '../../lib/schema/step.js';
import { takeSwap } from '../swap.js';

const PAGES = 1000;
const { forbidsZeroPage, pageSizeBytes } = readHostFacts(process.pid);
const KB = pageSizeBytes / 1024;

let changes: SystemChanges | undefined;
let why: string | undefined;
beforeAll(async () => {
  const taken = await takeSwap();
  if (typeof taken === 'string') why = taken;
  else changes = taken;
});
afterAll(async () => {
  await changes?.restore();
});

let root: ForkedProcess | undefined;
beforeEach(({ skip }) => {
  if (why !== undefined) skip(why);
});
afterEach(async () => {
  await root?.close();
  root = undefined;
});

/** On one CPU: pages that wait in another's list of new pages do not go to swap. */
async function parentWith(spec: RawMapSpec = {}): Promise<{ parent: ForkedProcess; region: ForkedRegion }> {
  root = fork();
  await root.restrict();
  const region = await root.map({ pages: PAGES, ...spec });
  return { parent: root, region };
}

/** 500 pages of 800 that were written are in swap; 100 were read only. */
async function pagedOut() {
  const { parent, region } = await parentWith();
  await parent.write(region, { pages: 800 }, 3n);
  await parent.read(region, { first: 800, pages: 100 });
  await parent.advise(region, 'pageout', { pages: 500 });
  return { parent, region };
}

function statesOf(process: ForkedProcess, region: ForkedRegion): StateRuns {
  const runs: StateRuns = [];
  appendStateRuns(runs, readPageStates(process.pid, process.placement(region)));
  return runs;
}

function smapsOf(process: ForkedProcess, region: ForkedRegion): Record<string, number> {
  const { address } = process.placement(region);
  return readSmaps(process.pid).find(({ start }) => start === address)?.fieldsKb ?? {};
}

const inKb = (pages: Record<string, number>): Record<string, number> =>
  Object.fromEntries(Object.entries(pages).map(([name, count]) => [name, Math.floor(count * KB)]));

/** Every reader says the same of the region, whatever it is. */
function expectAgreement(process: ForkedProcess, region: ForkedRegion): void {
  const placement = process.placement(region);
  const counts = countPages(process.pid, placement);
  const states = readPageStates(process.pid, placement);
  for (const [index, state] of PAGE_STATES.entries()) {
    expect(counts[state]).toBe(states.filter((one) => one === index).length);
  }
  const smaps = smapsOf(process, region);
  const own = (smaps['Private_Clean'] ?? 0) + (smaps['Private_Dirty'] ?? 0);
  const shared = (smaps['Shared_Clean'] ?? 0) + (smaps['Shared_Dirty'] ?? 0);
  expect(inKb({ own: counts.exclusive, shared: counts.shared, swap: counts.swapped })).toEqual({
    own,
    shared,
    swap: smaps['Swap'],
  });
  const table = readSmapsTable(process.pid, placement);
  expect(['Rss', 'Pss', 'Swap', 'SwapPss'].map((field) => table.sumKb(field))).toEqual(
    ['Rss', 'Pss', 'Swap', 'SwapPss'].map((field) => smaps[field]),
  );
  const ofSharing = readSharing(process.pid).mappings.find(({ vma }) => vma.start === placement.address);
  expect(ofSharing).toMatchObject({ ownKb: own, sharedKb: shared, vma: { fieldsKb: { Swap: smaps['Swap'] } } });
  if (!seesFrames()) return;
  const frames = readFrames(process.pid, placement);
  const [exclusive, mapped] = [PAGE_STATES.indexOf('exclusive'), PAGE_STATES.indexOf('shared')];
  expect([...frames].map((frame) => frame !== 0)).toEqual(
    [...states].map((state) => state === exclusive || state === mapped),
  );
}

describe('a page in swap', () => {
  test('is swapped and nothing else, to every reader', async () => {
    const { parent, region } = await pagedOut();
    expect(statesOf(parent, region)).toEqual([
      [500, 'swapped'],
      ...(forbidsZeroPage
        ? [[400, 'exclusive']]
        : [
            [300, 'exclusive'],
            [100, 'zero'],
          ]),
      [100, 'not-present'],
    ]);
    const there = forbidsZeroPage ? 400 : 300;
    expect(smapsOf(parent, region)).toMatchObject(
      inKb({ Rss: there, Pss: there, Anonymous: there, Private_Dirty: there, Swap: 500, SwapPss: 500 }),
    );
    expectAgreement(parent, region);
  });

  test('comes back by a read: alone, clean, with what it held, after as many faults', async () => {
    const { parent, region } = await pagedOut();
    const { sum, minorFaults, majorFaults } = await parent.read(region, { first: 100, pages: 50 });
    expect({ sum, faults: minorFaults + majorFaults }).toEqual({ sum: 150n, faults: 50 });
    expect(statesOf(parent, region).slice(0, 3)).toEqual([
      [100, 'swapped'],
      [50, 'exclusive'],
      [350, 'swapped'],
    ]);
    expect(smapsOf(parent, region)).toMatchObject(inKb({ Swap: 450, SwapPss: 450, Private_Clean: 50 }));
    expectAgreement(parent, region);
  });

  test('comes back by a write, dirty', async () => {
    const { parent, region } = await pagedOut();
    const { minorFaults, majorFaults } = await parent.write(region, { pages: 500 }, 4n);
    expect(minorFaults + majorFaults).toBe(500);
    expect(smapsOf(parent, region)).toMatchObject(inKb({ Swap: 0, SwapPss: 0, Private_Clean: 0 }));
    expect((await parent.read(region, { pages: 800 })).sum).toBe(4n * 500n + 3n * 300n);
    expectAgreement(parent, region);
  });

  test('has gone for good once it was given back', async () => {
    const { parent, region } = await pagedOut();
    await parent.advise(region, 'dontneed', { pages: 200 });
    expect(statesOf(parent, region).slice(0, 2)).toEqual([
      [200, 'not-present'],
      [300, 'swapped'],
    ]);
    expect((await parent.read(region, { pages: 200 })).sum).toBe(0n);
    expectAgreement(parent, region);
  });
});

describe('in a tree', () => {
  async function tree() {
    const { parent, region } = await pagedOut();
    const child = await parent.fork();
    const grandchild = await child.fork();
    return { all: [parent, child, grandchild] as const, parent, child, grandchild, region };
  }

  test('a fork duplicates entries of swap, and SwapPss is split by as many', async () => {
    const { all, region } = await tree();
    for (const process of all) {
      expect(statesOf(process, region)[0]).toEqual([500, 'swapped']);
      expect(smapsOf(process, region)).toMatchObject(inKb({ Swap: 500, SwapPss: 500 / 3 }));
      expectAgreement(process, region);
    }
  });

  test('pages that others map too do not go', async () => {
    const { all, parent, region } = await tree();
    const before = all.map((process) => statesOf(process, region));
    await parent.advise(region, 'pageout');
    expect(all.map((process) => statesOf(process, region))).toEqual(before);
  });

  test('who reads one has it alone while the others have it in swap, and shares it with the next reader', async () => {
    const { all, parent, child, grandchild, region } = await tree();
    await child.read(region, { pages: 100 });
    expect(statesOf(child, region).slice(0, 2)).toEqual([
      [100, 'exclusive'],
      [400, 'swapped'],
    ]);
    // Two have entries of those 100 pages, and three of the others.
    expect(smapsOf(parent, region)).toMatchObject(inKb({ Swap: 500, SwapPss: 100 / 2 + 400 / 3 }));
    expect(smapsOf(child, region)).toMatchObject(inKb({ Swap: 400, SwapPss: 400 / 3 }));
    await grandchild.read(region, { pages: 40 });
    expect(statesOf(grandchild, region).slice(0, 2)).toEqual([
      [40, 'shared'],
      [460, 'swapped'],
    ]);
    expect(statesOf(child, region).slice(0, 2)).toEqual([
      [40, 'shared'],
      [60, 'exclusive'],
    ]);
    expect(smapsOf(parent, region)).toMatchObject(inKb({ Swap: 500, SwapPss: 40 + 60 / 2 + 400 / 3 }));
    for (const process of all) expectAgreement(process, region);
  });

  test('who writes one copies it, also one that another has read, and the others keep what was there', async () => {
    const { all, parent, child, grandchild, region } = await tree();
    await child.read(region, { pages: 100 });
    await grandchild.write(region, { first: 50, pages: 100 }, 9n);
    expect(statesOf(grandchild, region).slice(0, 3)).toEqual([
      [50, 'swapped'],
      [100, 'exclusive'],
      [350, 'swapped'],
    ]);
    expect(statesOf(child, region)[0]).toEqual([100, 'exclusive']);
    expect(statesOf(parent, region)[0]).toEqual([500, 'swapped']);
    for (const process of all) expectAgreement(process, region);
    expect((await grandchild.read(region, { pages: 800 })).sum).toBe(3n * 700n + 9n * 100n);
    expect((await parent.read(region, { pages: 800 })).sum).toBe(3n * 800n);
    for (const process of all) expectAgreement(process, region);
  });

  test('once the others have ended, what they had in swap is its own', async () => {
    const { parent, child, grandchild, region } = await tree();
    await grandchild.exit();
    await child.exit();
    expect(smapsOf(parent, region)).toMatchObject(inKb({ Swap: 500, SwapPss: 500 }));
    await parent.write(region, { pages: 500 });
    expect(smapsOf(parent, region)).toMatchObject(inKb({ Swap: 0, Shared_Dirty: 0, Shared_Clean: 0 }));
    expectAgreement(parent, region);
  });

  test('the Pss of the tree counts what is there, and readSharing() names who shares it', async () => {
    const { all, parent, child, grandchild, region } = await tree();
    await child.read(region, { pages: 100 });
    await grandchild.read(region, { pages: 100 });
    for (const { rssKb, pid } of readTreeMemory(parent.pid).processes) {
      const { mappings } = readSharing(pid);
      expect(rssKb).toBe(mappings.reduce((sum, { vma }) => sum + (vma.fieldsKb['Rss'] ?? 0), 0));
    }
    const there = forbidsZeroPage ? 400 : 300;
    const pssKb = all.reduce((sum, process) => sum + (smapsOf(process, region)['Pss'] ?? 0), 0);
    // Each is rounded down to a kB, and each part of a page to bytes.
    expect(pssKb).toBeLessThanOrEqual((there + 100) * KB);
    expect(pssKb).toBeGreaterThanOrEqual((there + 100) * KB - 2 * all.length);
    const fate = predictFork(parent.pid, readHostFacts(parent.pid));
    expect(inspectReport(readSharing(parent.pid), fate)).toMatch(/\s1\.95\s+MiB\s+more\s+are\s+in\s+swap\./);
    if (!seesFrames()) return;
    const [ofParent, ofChild] = [parent, child].map((process) =>
      readSharing(process.pid).mappings.find(({ vma }) => vma.start === process.placement(region).address),
    );
    const pagesWith = (mapping: typeof ofParent) =>
      Object.fromEntries((mapping?.sharedWith ?? []).map(({ pid, pages }) => [pid, pages]));
    expect(pagesWith(ofParent)).toEqual({ [child.pid]: there, [grandchild.pid]: there });
    expect(pagesWith(ofChild)).toEqual({ [parent.pid]: there, [grandchild.pid]: there + 100 });
    expect(countFrames(all.map(({ pid }) => ({ pid, ...parent.placement(region) })))).toBe(there + 100);
  });

  test.runIf(seesFrames())('a page that goes is gone, and one that comes back is new', async () => {
    const { parent, region } = await parentWith();
    await parent.write(region);
    const look = () => FrameSnapshot.read([{ pid: parent.pid, ...parent.placement(region) }]);
    const before = look();
    await parent.advise(region, 'pageout', { first: 200, pages: 300 });
    const out = look();
    expect(out.frames).toBe(PAGES - 300);
    expect(out.since(before)[0]?.runs).toEqual([
      [200, 'kept'],
      [300, 'gone'],
      [500, 'kept'],
    ]);
    await parent.read(region, { first: 200, pages: 300 });
    expect(look().since(out)[0]?.runs).toEqual([
      [200, 'kept'],
      [300, 'new'],
      [500, 'kept'],
    ]);
  });
});

describe('of other memory', () => {
  test('a private memfd: what was copied goes as anonymous memory does', async () => {
    const object = createMemfd(PAGES);
    const { parent, region } = await parentWith({ object });
    object.close();
    await parent.write(region, { pages: 700 });
    await parent.advise(region, 'pageout', { pages: 300 });
    expect(statesOf(parent, region)).toEqual([
      [300, 'swapped'],
      [400, 'exclusive'],
      [300, 'not-present'],
    ]);
    expectAgreement(parent, region);
  });

  // No page table holds an entry of swap there, and smaps counts what the whole object has in it, in each process
  // [fs/proc/task_mmu.c: smap_gather_stats].
  test('shared memory: not there, and in the Swap of all, but in no SwapPss', async () => {
    const { parent, region } = await parentWith({ sharing: 'shared' });
    await parent.write(region, {}, 2n);
    const child = await parent.fork();
    await parent.advise(region, 'pageout', { pages: 400 });
    for (const [process, rest] of [
      [parent, 'exclusive'],
      [child, 'not-present'],
    ] as const) {
      const { swapped, [rest]: others } = countPages(process.pid, process.placement(region));
      expect({ swapped, others }).toEqual({ swapped: 0, others: rest === 'exclusive' ? 600 : PAGES });
      expect(smapsOf(process, region)).toMatchObject(inKb({ Swap: 400, SwapPss: 0 }));
    }
    expect((await child.read(region, { pages: 500 })).sum).toBe(1000n);
    expect(smapsOf(parent, region)).toMatchObject(inKb({ Swap: 0 }));
  });

  test('huge pages: the readers agree before, after, and when some are back', async ({ skip }) => {
    const noHuge = whyNoHugePages();
    if (noHuge !== undefined) skip(noHuge);
    const { parent, region } = await parentWith({ pages: 1024, hugePages: true });
    await parent.write(region, {}, 5n);
    await parent.advise(region, 'pageout', { pages: 512 });
    expect(countPages(parent.pid, parent.placement(region))).toMatchObject({ exclusive: 512, swapped: 512 });
    expectAgreement(parent, region);
    const child = await parent.fork();
    expect((await child.read(region, { first: 3, pages: 100 })).sum).toBe(500n);
    for (const process of [parent, child]) expectAgreement(process, region);
  });
});

describe('a mark of what is written', () => {
  const { softDirty, userfaultfdWpAsync, pagemapScan } = native().probe();
  const has: Record<WriteMethod, boolean> = {
    userfaultfd: userfaultfdWpAsync === 0 && pagemapScan === 0,
    'soft-dirty': softDirty === 0,
    pagemap: true,
  };

  test.for(['userfaultfd', 'soft-dirty'] as const)(
    'by %s: neither going to swap nor coming back is a write, and a write stays one',
    async (by, { skip }) => {
      if (!has[by]) skip('this kernel has not got it');
      const { parent, region } = await parentWith();
      await parent.write(region);
      const mark = await parent.markWritten(region, {}, { by });
      const writtenRuns = async () => (await mark.read()).writtenRuns;
      await parent.advise(region, 'pageout', { pages: 600 });
      expect(countPages(parent.pid, parent.placement(region)).swapped).toBe(600);
      expect(await writtenRuns()).toEqual([]);
      await parent.read(region, { pages: 100 });
      expect(await writtenRuns()).toEqual([]);
      await parent.write(region, { first: 50, pages: 200 });
      await parent.write(region, { first: 900, pages: 10 });
      const expected = [
        { first: 50, pages: 200 },
        { first: 900, pages: 10 },
      ];
      expect(await writtenRuns()).toEqual(expected);
      await parent.advise(region, 'pageout', { first: 900, pages: 100 });
      expect(await writtenRuns()).toEqual(expected);
      await parent.read(region);
      expect(await writtenRuns()).toEqual(expected);
      await mark.reset();
      expect(await writtenRuns()).toEqual([]);
      await mark.close();
    },
  );

  test('by pagemap: what was not there is written even if it is in swap by now, and the rest is doubtful', async () => {
    const { parent, region } = await parentWith();
    await parent.write(region, { pages: 500 });
    await parent.advise(region, 'pageout', { pages: 250 });
    const mark = await parent.markWritten(region, {}, { by: 'pagemap' });
    await parent.write(region, { first: 600, pages: 100 });
    await parent.advise(region, 'pageout', { first: 600, pages: 100 });
    expect(await mark.read()).toMatchObject(
      forbidsZeroPage
        ? { written: 0, doubtful: 600 }
        : { writtenRuns: [{ first: 600, pages: 100 }], doubtfulRuns: [{ first: 0, pages: 500 }] },
    );
  });

  test.runIf(has.userfaultfd)(
    'swapped pages and pages that are not there are told apart in marked memory',
    async () => {
      const { parent, region } = await parentWith();
      await parent.write(region, { pages: 500 });
      const mark = await parent.markWritten(region, {}, { by: 'userfaultfd' });
      await parent.advise(region, 'pageout', { pages: 400 });
      expect(statesOf(parent, region)).toEqual([
        [400, 'swapped'],
        [100, 'exclusive'],
        [500, 'not-present'],
      ]);
      expectAgreement(parent, region);
      await mark.close();
    },
  );
});
