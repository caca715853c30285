/** Page frames, which CAP_SYS_ADMIN sees: what a tree really takes, and who has copied which page. */
import { afterEach, describe, expect, test } from 'vitest';
import { fork } from '../../lib/api/forked-process.js';
import type { ForkedProcess, ForkedRegion } from '../../lib/api/forked-process.js';
import { LinuxBackend } from '../../lib/machine/linux/backend.js';
import { FrameSnapshot, countFrames, readFrames, seesFrames } from '../../lib/proc/frames.js';
import { countPages } from '../../lib/proc/pagemap.js';
import { readSmaps } from '../../lib/proc/smaps.js';
import { FeatureUnavailableError } from '../../lib/errors.js';
import { countStates } from '../../lib/schema/state-runs.js';

const PAGES = 1000;

let root: ForkedProcess | undefined;
afterEach(async () => {
  await root?.close();
});

async function written(): Promise<{ parent: ForkedProcess; region: ForkedRegion }> {
  root = fork();
  const region = await root.map({ pages: PAGES });
  await root.write(region);
  return { parent: root, region };
}

function holders(region: ForkedRegion, ...processes: ForkedProcess[]) {
  return processes.map((process) => ({ pid: process.pid, ...process.placement(region) }));
}

function pssKb(region: ForkedRegion, ...processes: ForkedProcess[]): number {
  return processes.reduce((total, process) => {
    const { address } = process.placement(region);
    return total + (readSmaps(process.pid).find(({ start }) => start === address)?.fieldsKb['Pss'] ?? NaN);
  }, 0);
}

describe.runIf(seesFrames())('with CAP_SYS_ADMIN', () => {
  test('a tree takes the frames that the sum of Pss says, whoever writes', async () => {
    const { parent, region } = await written();
    const child = await parent.fork();
    const grandchild = await child.fork();
    const all = [parent, child, grandchild];
    const agree = (frames: number): void => {
      expect(countFrames(holders(region, ...all))).toBe(frames);
      // Of three mappers each has 1365 + 1/3 bytes of a page, rounded down, and each Pss is whole kB.
      const pss = pssKb(region, ...all);
      expect(pss).toBeLessThanOrEqual(frames * 4);
      expect(pss).toBeGreaterThanOrEqual(frames * 4 - 2 * all.length);
    };
    agree(PAGES);
    await grandchild.write(region, { pages: 100 });
    agree(PAGES + 100);
    await parent.write(region, { first: 50, pages: 100 });
    agree(PAGES + 200);
    await child.write(region, { first: 0, pages: 150 });
    // The first 50 it shared with the parent; of the next 50 it was the last; the last 50 it shared with the grandchild.
    agree(PAGES + 300);
  });

  test('who has broken the sharing of which page is told, and a takeover is no copy', async () => {
    const { parent, region } = await written();
    // On one CPU: pages that wait in another's list of new pages are copied although nobody else has them.
    await parent.restrict();
    const child = await parent.fork();
    const before = FrameSnapshot.read(holders(region, parent, child));
    await child.write(region, { first: 10, pages: 30 });
    await parent.write(region, { first: 20, pages: 5 });
    const [ofParent, ofChild] = FrameSnapshot.read(holders(region, parent, child)).since(before);
    expect(ofChild?.runs).toEqual([
      [10, 'kept'],
      [30, 'copied'],
      [PAGES - 40, 'kept'],
    ]);
    // Nobody else had these five any more.
    expect(ofParent?.runs).toEqual([[PAGES, 'kept']]);
    await child.exit();
    const { minorFaults } = await parent.write(region);
    const [alone] = FrameSnapshot.read(holders(region, parent)).since(before);
    expect([minorFaults, alone?.counts.copied]).toEqual([PAGES - 5, 0]);
  });

  test('pages that came, went, or are others without having been shared are told apart', async () => {
    root = fork();
    const region = await root.map({ pages: 40 });
    await root.write(region, { pages: 20 });
    const before = FrameSnapshot.read(holders(region, root));
    // Taken by another in between, so that the same frame cannot come back.
    await root.advise(region, 'dontneed', { first: 5, pages: 10 });
    const other = await root.map({ pages: 4000 });
    await root.write(other);
    await root.write(region, { first: 5, pages: 5 });
    await root.write(region, { first: 30, pages: 3 });
    const now = FrameSnapshot.read(holders(region, root));
    expect(now.frames).toBe(18);
    expect(now.since(before)[0]?.counts).toEqual({ kept: 10, copied: 0, replaced: 5, new: 3, gone: 5, none: 17 });
  });

  test('a child that was born in between has copied what is another frame than all had', async () => {
    const { parent, region } = await written();
    const before = FrameSnapshot.read(holders(region, parent));
    const child = await parent.fork();
    await child.write(region, { pages: 7 });
    const fates = FrameSnapshot.read(holders(region, parent, child)).since(before);
    expect(fates.map(({ counts }) => counts.copied)).toEqual([0, 7]);
  });

  test("the zero page, small or huge, is nobody's frame", async () => {
    root = fork();
    const region = await root.map({ pages: 100 });
    await root.read(region);
    const { zero } = countPages(root.pid, root.placement(region));
    expect(countFrames(holders(region, root))).toBe(100 - zero);
  });

  test('states, zero page and frames of an observation are of one reading, whatever is written meanwhile', async () => {
    const backend = await LinuxBackend.open('forked');
    try {
      const place = { process: 'root', region: 'memory' };
      const range = { first: 0, pages: 2 ** 15 };
      const selection = { ...range, from: 0, to: range.pages, stride: 1, pattern: 'random', seed: 7 } as const;
      const how = { sharing: 'private', backing: 'anonymous', protection: 'rw' } as const;
      await backend.execute({ op: 'map', ...place, ...how, ...range, populate: false, noreserve: false, offset: 0 });
      let inBetween = 0;
      for (let round = 0; round < 3; round++) {
        const writer = { goesOn: true };
        const written = Promise.all([
          backend.execute({ op: 'advise', ...place, ...range, advice: 'dontneed' }),
          backend.execute({ op: 'read', ...place, selection }),
          backend.execute({ op: 'write', ...place, selection }),
        ]).finally(() => (writer.goesOn = false));
        while (writer.goesOn) {
          const { observation } = await backend.execute({ op: 'observe', label: 'meanwhile' });
          const { exclusive, shared, unknown } = countStates(observation?.processes[0]?.regions[0]?.states ?? []);
          // Nobody else maps this memory: what looked shared was the zero page, whatever is in its place by now.
          expect([shared, unknown]).toEqual([0, 0]);
          expect(observation?.frames).toEqual({ memory: exclusive });
          if (exclusive > 0 && exclusive < range.pages) inBetween++;
        }
        await written;
      }
      expect(inBetween).toBeGreaterThan(0);
    } finally {
      await backend.close();
    }
  });

  test('a process that has ended is an error', async () => {
    const { parent, region } = await written();
    const [holder] = holders(region, parent);
    await parent.exit();
    if (!holder) expect.unreachable('there was one');
    expect(() => readFrames(holder.pid, holder)).toThrow(/ESRCH/);
  });
});

test.runIf(!seesFrames())('without CAP_SYS_ADMIN frames are refused, and not taken for 0', async () => {
  const { parent, region } = await written();
  expect(() => countFrames(holders(region, parent))).toThrow(FeatureUnavailableError);
});
