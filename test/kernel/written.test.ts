/** Which pages a process has written since a mark, by every method that this kernel has, against what was written. */
import { execFile } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, describe, expect, test } from 'vitest';
import { createMemfd, createTemporaryFile } from '../../lib/api/file-object.js';
import { fork } from '../../lib/api/forked-process.js';
import type { ForkedProcess, ForkedRegion } from '../../lib/api/forked-process.js';
import { mmap } from '../../lib/api/mapping.js';
import type { RawMapSpec } from '../../lib/api/map-spec.js';
import type { WriteMethod, WrittenPages } from '../../lib/api/written.js';
import { FeatureUnavailableError, ProcessEndedError } from '../../lib/errors.js';
import { native } from '../../lib/native.js';
import { countPages, readPageStates } from '../../lib/proc/pagemap.js';
import { readHostFacts } from '../../lib/proc/host.js';
import { readSmaps } from '../../lib/proc/smaps.js';
import type { PageChoice } from '../../lib/schema/arguments.js';
import { PageSet } from '../../lib/schema/page-set.js';
import { selectedRuns } from '../../lib/schema/selection.js';
import type { PageRun } from '../../lib/schema/selection.js';
import { requireSelection } from '../../lib/schema/arguments.js';
import { whyNoFile } from './disk.js';

const { softDirty, userfaultfdWpAsync, pagemapScan } = native().probe();
const has: Record<WriteMethod, boolean> = {
  userfaultfd: userfaultfdWpAsync === 0 && pagemapScan === 0,
  'soft-dirty': softDirty === 0,
  pagemap: true,
};
const METHODS = Object.keys(has) as WriteMethod[];
const exactMethods = METHODS.filter((method) => method !== 'pagemap' && has[method]);
const { forbidsZeroPage } = readHostFacts(process.pid);
const byUserfaultfd = describe.skipIf(!has.userfaultfd);

const closing: { close(): unknown }[] = [];
afterEach(async () => {
  for (const one of closing.splice(0).reverse()) await one.close();
});

function forkNode(): ForkedProcess {
  const child = fork();
  closing.push(child);
  return child;
}

const noFile = await whyNoFile();
const ON_DISK = 'a private file';
const KINDS: Record<string, () => RawMapSpec | Promise<RawMapSpec>> = {
  'private anonymous memory': () => ({ pages: 4096 }),
  'shared anonymous memory': () => ({ pages: 4096, sharing: 'shared' }),
  'a shared memfd': () => ({ pages: 4096, sharing: 'shared', object: memfd() }),
  'a private memfd': () => ({ pages: 4096, object: memfd() }),
  [ON_DISK]: async () => ({ pages: 4096, object: await file() }),
};

function memfd() {
  const object = createMemfd(4096);
  closing.push(object);
  return object;
}

async function file() {
  const object = await createTemporaryFile(4096);
  closing.push(object);
  return object;
}

/** A random half of the pages is written before the mark, a quarter read, and 400 are written after it. */
async function prepare(spec: RawMapSpec): Promise<{ child: ForkedProcess; region: ForkedRegion }> {
  const child = forkNode();
  const region = await child.map(spec);
  await child.write(region, { pattern: 'random', seed: 3, to: 2048 });
  await child.read(region, { pattern: 'random', seed: 4, to: 1024 });
  return { child, region };
}

function truthOf(...choices: PageChoice[]): PageSet {
  return new PageSet(choices.flatMap((choice) => selectedRuns(requireSelection(choice, 4096))));
}

function sizeOf(runs: readonly PageRun[]): number {
  return new PageSet(runs).size;
}

/** No page is called written that was not, and none that was is missing. */
function expectBounds(found: WrittenPages, truth: PageSet): void {
  expect(sizeOf(found.writtenRuns)).toBe(found.written);
  expect(sizeOf(found.doubtfulRuns)).toBe(found.doubtful);
  for (const run of found.writtenRuns) expect(truth.covers(run)).toBe(true);
  const candidates = new PageSet([...found.writtenRuns, ...found.doubtfulRuns]);
  expect(candidates.size).toBe(found.written + found.doubtful);
  for (const run of truth.runs) expect(candidates.covers(run)).toBe(true);
}

function expectExactly(found: WrittenPages, truth: PageSet): void {
  expect(found).toEqual({
    written: truth.size,
    doubtful: 0,
    writtenRuns: truth.runs,
    doubtfulRuns: [],
  });
}

const WRITES: PageChoice = { pattern: 'random', seed: 5, to: 400 };

describe.each(METHODS.map((method) => [method] as const))('by %s', (by) => {
  describe.skipIf(!has[by])('(where the kernel has it)', () => {
    test.for(Object.keys(KINDS))('the truth lies within the bounds, for %s', async (kind, context) => {
      if (kind === ON_DISK && noFile !== undefined) context.skip(noFile);
      const { child, region } = await prepare((await KINDS[kind]?.()) ?? {});
      const mark = await child.markWritten(region, {}, { by });
      expect(mark.method).toBe(by);
      expectBounds(await mark.read(), truthOf({ to: 0 }));
      await child.write(region, WRITES);
      await child.read(region, { pattern: 'random', seed: 6, to: 800 });
      expectBounds(await mark.read(), truthOf(WRITES));
      await mark.reset();
      const others: PageChoice = { pattern: 'stride', stride: 7, to: 500 };
      await child.write(region, others);
      expectBounds(await mark.read(), truthOf(others));
      await mark.close();
      await mark.close();
      await expect(mark.read()).rejects.toThrow('the mark has been closed');
    });

    test('forks and writes of others leave the bounds true', async () => {
      const { child, region } = await prepare({ pages: 4096 });
      const mark = await child.markWritten(region, {}, { by });
      const before = await child.fork();
      await before.write(region, { first: 0, pages: 100 });
      await child.write(region, { first: 50, pages: 100 });
      const after = await child.fork();
      await after.write(region, { first: 300, pages: 10 });
      await after.close();
      expectBounds(await mark.read(), truthOf({ first: 50, pages: 100 }));
    });

    test('a mark of a range counts by the pages of the region, and what lies outside does not', async () => {
      const { child, region } = await prepare({ pages: 4096 });
      const mark = await child.markWritten(region, { first: 1000, pages: 500 }, { by });
      await child.write(region, { first: 900, pages: 200 });
      const found = await mark.read();
      expectBounds(found, truthOf({ first: 1000, pages: 100 }));
      expect(found.written + found.doubtful).toBeLessThanOrEqual(500);
    });

    test('it ends with the process, and no descriptor is left', async () => {
      const descriptors = readdirSync('/proc/self/fd').length;
      const child = fork();
      const region = await child.map({ pages: 16 });
      const marks = [];
      for (let i = 0; i < 3; i++) {
        const mark = await child.markWritten(region, {}, { by });
        marks.push(mark);
        if (i < 2) await mark.close();
      }
      await child.kill();
      await expect(marks[2]?.read()).rejects.toThrow(ProcessEndedError);
      await expect(marks[2]?.reset()).rejects.toThrow(ProcessEndedError);
      await marks[2]?.close();
      expect(readdirSync('/proc/self/fd')).toHaveLength(descriptors);
    });

    test('memory that has moved or is gone is told', async () => {
      const child = forkNode();
      const region = await child.map({ pages: 16 });
      const mark = await child.markWritten(region, {}, { by });
      await child.grow(region, 32);
      await expect(mark.read()).rejects.toThrow('the region has moved');
      await mark.close();
      const again = await child.markWritten(region, {}, { by });
      await child.unmap(region);
      await expect(again.read()).rejects.toThrow(/^region is not mapped/);
      await again.close();
    });
  });
});

test.skipIf(has['soft-dirty'])('a method that the kernel lacks is refused with what would help', async () => {
  const child = forkNode();
  const region = await child.map({ pages: 1 });
  const refused = child.markWritten(region, {}, { by: 'soft-dirty' });
  await expect(refused).rejects.toThrow(FeatureUnavailableError);
  await expect(refused).rejects.toThrow('CONFIG_MEM_SOFT_DIRTY');
});

test('misuse is told by the name of the argument, and nothing is marked', async () => {
  const loose = (value: unknown) => value as never;
  const child = forkNode();
  const other = forkNode();
  const region = await child.map({ pages: 4 });
  const foreign = await other.map({ pages: 4 });
  await expect(child.markWritten(foreign)).rejects.toThrow(/^region is not mapped/);
  await expect(child.markWritten(loose(1))).rejects.toThrow(/^region must be an object/);
  await expect(child.markWritten(region, { first: 3, pages: 2 })).rejects.toThrow(RangeError);
  await expect(child.markWritten(region, {}, loose({ by: 'luck' }))).rejects.toThrow(/^by must be one of/);
  await expect(child.markWritten(region, {}, loose(null))).rejects.toThrow(/^options must be an object/);
  const mark = await child.markWritten(region);
  expectExactly(await mark.read(), new PageSet());
});

describe.each(exactMethods.map((method) => [method] as const))('by %s, exactly', (by) => {
  test.each([
    ['random pages', WRITES],
    ['every other page, in more runs than the kernel gives at a time', { pattern: 'stride', stride: 2, to: 2048 }],
    ['every page', {}],
    ['none', { to: 0 }],
  ] as [string, PageChoice][])('%s of memory that was written, read or never touched', async (_, choice) => {
    const { child, region } = await prepare({ pages: 4096 });
    const mark = await child.markWritten(region, {}, { by });
    await child.write(region, choice);
    await child.read(region);
    expectExactly(await mark.read(), truthOf(choice));
    await mark.reset();
    expectExactly(await mark.read(), new PageSet());
  });

  test('by the parent and by the child of a fork, each for itself', async () => {
    const { child: parent, region } = await prepare({ pages: 4096 });
    const ofParent = await parent.markWritten(region, {}, { by });
    await parent.write(region, { first: 10, pages: 5 });
    const child = await parent.fork();
    const ofChild = await child.markWritten(region, {}, { by });
    await child.write(region, { first: 0, pages: 100 });
    await parent.write(region, { first: 50, pages: 200 });
    expectExactly(await ofParent.read(), truthOf({ first: 10, pages: 5 }, { first: 50, pages: 200 }));
    expectExactly(await ofChild.read(), truthOf({ first: 0, pages: 100 }));
    await child.close();
    await parent.write(region, { first: 0, pages: 3 });
    expectExactly(
      await ofParent.read(),
      truthOf({ first: 10, pages: 5 }, { first: 50, pages: 200 }, { first: 0, pages: 3 }),
    );
  });

  test('what was given back counts when it is written again, and not when it is read', async () => {
    const { child, region } = await prepare({ pages: 4096 });
    const mark = await child.markWritten(region, {}, { by });
    await child.write(region, { first: 0, pages: 100 });
    await child.advise(region, 'dontneed', { first: 50, pages: 100 });
    expectExactly(await mark.read(), truthOf({ first: 0, pages: 50 }));
    if (!forbidsZeroPage) {
      await child.read(region, { first: 50, pages: 100 });
      expectExactly(await mark.read(), truthOf({ first: 0, pages: 50 }));
    }
    await child.write(region, { first: 60, pages: 10 });
    await child.unmap(region, { first: 20, pages: 10 });
    const truth = truthOf({ first: 0, pages: 50 }, { first: 60, pages: 10 });
    truth.remove({ first: 20, pages: 10 });
    expectExactly(await mark.read(), truth);
    await mark.reset();
    await child.write(region, { first: 0, pages: 10 });
    expectExactly(await mark.read(), truthOf({ first: 0, pages: 10 }));
  });

  test('a mapping of Node that the process has inherited', async () => {
    const mapping = mmap({ pages: 4096 });
    closing.push({
      close: () => {
        mapping.unmap();
      },
    });
    mapping.write({ to: 2000 });
    const child = forkNode();
    const mark = await child.markWritten(mapping, {}, { by });
    mapping.write();
    await child.write(mapping, WRITES);
    expectExactly(await mark.read(), truthOf(WRITES));
  });
});

byUserfaultfd('by userfaultfd', () => {
  test.for(Object.keys(KINDS))('exactly, for %s', async (kind, context) => {
    if (kind === ON_DISK && noFile !== undefined) context.skip(noFile);
    const { child, region } = await prepare((await KINDS[kind]?.()) ?? {});
    const mark = await child.markWritten(region);
    expect(mark.method).toBe('userfaultfd');
    await child.write(region, WRITES);
    await child.read(region);
    expectExactly(await mark.read(), truthOf(WRITES));
  });

  test('a shared page that was written and taken out of the page table still counts', async () => {
    const { child, region } = await prepare({ pages: 4096, sharing: 'shared', object: memfd() });
    const mark = await child.markWritten(region);
    await child.write(region, { first: 0, pages: 700 });
    await child.advise(region, 'dontneed', { first: 600, pages: 1000 });
    expectExactly(await mark.read(), truthOf({ first: 0, pages: 700 }));
    await child.read(region);
    expectExactly(await mark.read(), truthOf({ first: 0, pages: 700 }));
  });

  test('a write through another mapping of the same memory is not counted here', async () => {
    const object = memfd();
    const child = forkNode();
    const region = await child.map({ pages: 64, sharing: 'shared', object });
    const other = await child.map({ pages: 64, sharing: 'shared', object });
    const mark = await child.markWritten(region);
    await child.write(other);
    expectExactly(await mark.read(), new PageSet());
  });

  test('marks of ranges stand side by side, and the region is one VMA again when they are closed', async () => {
    const child = forkNode();
    const region = await child.map({ pages: 100 });
    await child.write(region);
    const { address } = child.placement(region);
    const descriptors = () => readdirSync(`/proc/${String(child.pid)}/fd`).length;
    const vmas = () => readSmaps(child.pid).filter(({ start }) => start >= address && start < address + 100n * 4096n);
    const first = await child.markWritten(region, { pages: 50 });
    const second = await child.markWritten(region, { first: 50 });
    await expect(child.markWritten(region, { first: 49, pages: 1 })).rejects.toThrow('these pages have a mark');
    await child.write(region, { first: 45, pages: 10 });
    expectExactly(await first.read(), truthOf({ first: 45, pages: 5 }));
    expectExactly(await second.read(), truthOf({ first: 50, pages: 5 }));
    expect(vmas().every(({ vmFlags }) => vmFlags.includes('uw'))).toBe(true);
    await first.close();
    expect(descriptors()).toBe(5);
    await second.close();
    expect(descriptors()).toBe(4);
    expect(vmas()).toHaveLength(1);
    expect(vmas()[0]?.vmFlags).not.toContain('uw');
    await (await child.markWritten(region)).close();
  });

  test('the child of a marked process is not marked, and has none of its descriptors', async () => {
    const { child: parent, region } = await prepare({ pages: 4096 });
    await parent.markWritten(region);
    const child = await parent.fork();
    const { address, pages } = child.placement(region);
    expect(readSmaps(child.pid).find(({ start }) => start === address)?.vmFlags).not.toContain('uw');
    const { minorFaults } = await child.write(region);
    expect(minorFaults).toBe(pages);
    expect(readdirSync(`/proc/${String(child.pid)}/fd`)).toHaveLength(4);
    expect(readdirSync(`/proc/${String(parent.pid)}/fd`)).toHaveLength(5);
  });

  test('the first write to each page costs one soft fault, and a read of what is there none', async () => {
    const child = forkNode();
    const region = await child.map({ pages: 512 });
    await child.write(region);
    await child.markWritten(region);
    expect((await child.read(region)).minorFaults).toBe(0);
    expect((await child.write(region)).minorFaults).toBe(512);
    expect((await child.write(region)).minorFaults).toBe(0);
  });
});

byUserfaultfd('the states of marked pages', () => {
  test('are told without CAP_SYS_ADMIN too, which alone sees kinds of swap entries', async () => {
    const program = [process.execPath, join(import.meta.dirname, 'marked-states.mjs')];
    const unprivileged = ['setpriv', '--bounding-set=-sys_admin', '--inh-caps=-sys_admin', ...program];
    const [file = '', ...args] = process.getuid?.() === 0 ? unprivileged : program;
    const { stdout } = await promisify(execFile)(file, args);
    const { framesVisible, unmarked, marked } = JSON.parse(stdout) as Record<string, unknown>;
    expect(framesVisible).toBe(false);
    expect(marked).toEqual(unmarked);
  });

  test.each([
    ['private', {}],
    ['shared', { sharing: 'shared' as const }],
  ])('of %s memory are as without the mark: what is not there is not in swap', async (_, sharing) => {
    const { child, region } = await prepare({ pages: 4096, ...sharing });
    const range = child.placement(region);
    const [counts, states] = [countPages(child.pid, range), readPageStates(child.pid, range)];
    expect(counts['not-present']).toBeGreaterThan(1000);
    const mark = await child.markWritten(region);
    expect(countPages(child.pid, range)).toEqual(counts);
    expect(readPageStates(child.pid, range)).toEqual(states);
    await mark.close();
    expect(countPages(child.pid, range)).toEqual(counts);
  });
});
