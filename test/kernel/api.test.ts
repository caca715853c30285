import { afterEach, describe, expect, test } from 'vitest';
import { ProcessEndedError, SystemError } from '../../lib/errors.js';
import { createMemfd, createTemporaryFile } from '../../lib/api/file-object.js';
import { fork } from '../../lib/api/forked-process.js';
import type { ForkedProcess, RegionHandle } from '../../lib/api/forked-process.js';
import { mmap } from '../../lib/api/mapping.js';
import { pageSizeBytes, readHostFacts } from '../../lib/proc/host.js';
import { countPages, readPageStates, readPagemap } from '../../lib/proc/pagemap.js';
import { readSmaps, readSmapsRollup } from '../../lib/proc/smaps.js';
import { readStat } from '../../lib/proc/stat.js';
import { whyNoFile } from './disk.js';

const opened: { close(): Promise<void> | void }[] = [];

function root(): ForkedProcess {
  const process = fork();
  opened.push(process);
  return process;
}

afterEach(async () => {
  for (const one of opened.splice(0).reverse()) await one.close();
});

function vmaOf(process: ForkedProcess, region: RegionHandle) {
  const { address, pages } = process.placement(region);
  const end = address + BigInt(pages * pageSizeBytes());
  const found = readSmaps(process.pid).filter((vma) => vma.start >= address && vma.end <= end);
  const [vma] = found;
  if (!vma || found.length !== 1) throw new Error(`the region is ${String(found.length)} VMAs`);
  return vma;
}

describe('fork from Node', () => {
  test('the child has what Node wrote, and neither sees what the other writes afterwards', async () => {
    const memory = mmap({ pages: 10 });
    opened.push({
      close: () => {
        memory.unmap();
      },
    });
    memory.write({}, 5n);
    const child = root();
    expect((await child.read(memory)).sum).toBe(50n);
    await child.write(memory, { pages: 4 }, 7n);
    memory.write({ first: 9 }, 100n);
    expect((await child.read(memory)).sum).toBe(4n * 7n + 6n * 5n);
    expect(memory.read().sum).toBe(9n * 5n + 100n);
  });

  test('shared memory is one memory, also as an ArrayBuffer, both ways', async () => {
    const shared = mmap({ pages: 3, sharing: 'shared' });
    opened.push({
      close: () => {
        shared.unmap();
      },
    });
    const words = new BigUint64Array(shared.buffer);
    const child = root();
    await child.write(shared, {}, 2n ** 64n - 1n);
    expect(words[pageSizeBytes() / 8]).toBe(2n ** 64n - 1n);
    words.fill(3n);
    expect((await child.read(shared)).sum).toBe(9n);
  });

  test('a memfd mapped by Node and by a child is one memory; a private mapping of it is not', async () => {
    const object = createMemfd(4);
    const mine = mmap({ pages: 2, object, offset: 2, sharing: 'shared' });
    opened.push(object, {
      close: () => {
        mine.unmap();
      },
    });
    mine.write({}, 11n);
    const child = root();
    const theirs = await child.map({ pages: 4, object, sharing: 'shared' });
    const copy = await child.map({ pages: 4, object });
    expect((await child.read(theirs)).sum).toBe(22n);
    await child.write(copy, {}, 9n);
    await child.write(theirs, { first: 3 }, 1n);
    expect(mine.read().sum).toBe(12n);
    expect((await child.read(copy)).sum).toBe(36n);
  });

  test('a mapping that is MADV_DONTFORK throughout is not in the child, which says so', async () => {
    const memory = mmap({ pages: 4 });
    opened.push({
      close: () => {
        memory.unmap();
      },
    });
    memory.write();
    memory.advise('dontfork');
    await expect(root().read(memory)).rejects.toThrow(/region is not mapped in process/);
    memory.advise('dofork');
    expect((await root().read(memory)).sum).toBe(4n);
  });

  test('a file is never mapped where JavaScript could see it vanish', async ({ skip }) => {
    const why = await whyNoFile();
    if (why !== undefined) skip(why);
    const file = await createTemporaryFile(2);
    opened.push(file);
    expect(() => mmap({ pages: 2, object: file })).toThrow(/object must be a memfd/);
    const region = await root().map({ pages: 2, object: file });
    expect(region).toBeDefined();
  });
});

describe('processes', () => {
  test('fork to any depth, and each has its own memory', async () => {
    let process = root();
    const region = await process.map({ pages: 5 });
    await process.write(region, {}, 1n);
    for (let depth = 2n; depth <= 12n; depth++) {
      process = await process.fork();
      expect((await process.read(region)).sum).toBe(5n * (depth - 1n));
      await process.write(region, {}, depth);
    }
  });

  test('live on when their parent has gone, and how they end is still known', async () => {
    const top = root();
    const middle = await top.fork();
    const orphan = await middle.fork();
    const region = await orphan.map({ pages: 2 });
    expect(await middle.kill()).toMatchObject({ signal: 'SIGKILL' });
    expect((await orphan.write(region)).minorFaults).toBe(2);
    expect(readStat(orphan.pid).ppid).toBe(top.pid);
    expect(await orphan.exit(7)).toMatchObject({ code: 7 });
  });

  test('all end when the root is killed from outside, and every promise settles', async () => {
    const top = root();
    const child = await top.fork();
    const grandchild = await child.fork();
    process.kill(top.pid, 'SIGKILL');
    expect(await top.ended).toMatchObject({ signal: 'SIGKILL' });
    await Promise.all([child.ended, grandchild.ended]);
    await expect(grandchild.fork()).rejects.toBeInstanceOf(ProcessEndedError);
  });

  test('orphans end with their root when it is closed', async () => {
    const top = root();
    const middle = await top.fork();
    const orphan = await (await middle.fork()).fork();
    await middle.kill();
    await top.close();
    expect(orphan.status).toMatchObject({ signal: 'SIGKILL' });
  });

  test.each([0, 1, 42, 255])('exit with code %i', async (code) => {
    expect(await root().exit(code)).toMatchObject({ code });
  });

  test.each(['SIGKILL', 'SIGTERM', 'SIGINT', 'SIGSEGV', 'SIGBUS', 'SIGABRT', 'SIGUSR1', 'SIGXCPU'] as const)(
    'are ended by %s, which is reported by its name',
    async (signal) => {
      const status = await (await root().fork()).kill(signal);
      expect(status.signal).toBe(signal);
      expect(status.code).toBeUndefined();
    },
  );

  test('a write to protected memory is SIGSEGV, and touching beyond the end of a memfd is SIGBUS', async () => {
    const top = root();
    const protectedRegion = await top.map({ pages: 2, protection: 'r' });
    const object = createMemfd(1);
    opened.push(object);
    const beyond = await top.map({ pages: 2, object, sharing: 'shared' });
    for (const [region, signal] of [
      [protectedRegion, 'SIGSEGV'],
      [beyond, 'SIGBUS'],
    ] as const) {
      const child = await top.fork();
      const death = child.write(region);
      await expect(death).rejects.toMatchObject({ name: 'ProcessEndedError', status: { signal } });
      expect(child.status?.signal).toBe(signal);
      await expect(child.read(region)).rejects.toBeInstanceOf(ProcessEndedError);
    }
    expect(top.status).toBeUndefined();
  });

  test('rusage comes with the end of each: its faults and its peak of memory', async () => {
    const child = await root().fork();
    const region = await child.map({ pages: 5000 });
    await child.write(region);
    const { minorFaults, maxRssBytes, userMicroseconds, systemMicroseconds } = await child.exit();
    expect(minorFaults).toBeGreaterThanOrEqual(5000);
    expect(maxRssBytes).toBeGreaterThan(5000 * pageSizeBytes());
    expect((userMicroseconds ?? 0) + (systemMicroseconds ?? 0)).toBeGreaterThan(0);
  });

  test('commands may be given all at once: they are carried out in order', async () => {
    const child = root();
    const region = await child.map({ pages: 200 });
    const writes = Array.from({ length: 200 }, (_, first) => child.write(region, { first, pages: 1 }, BigInt(first)));
    const [sums] = await Promise.all([child.read(region), ...writes]);
    expect(sums.sum).toBe((199n * 200n) / 2n);
  });

  test('a fork that the kernel refuses is a SystemError, and changes nothing', async () => {
    const top = root();
    const region = await top.map({ pages: 1, noreserve: true });
    await expect(top.map({ pages: 2 ** 33 })).rejects.toBeInstanceOf(SystemError);
    expect((await top.write(region)).minorFaults).toBe(1);
  });
});

describe('regions', () => {
  test('are one VMA of their own, of base pages, whatever stands beside them', async () => {
    const process = root();
    const regions = [];
    for (let i = 0; i < 5; i++) regions.push(await process.map({ pages: 3 }));
    for (const region of regions) {
      const vma = vmaOf(process, region);
      expect(vma.fieldsKb['Size']).toBe(12);
      expect(vma.vmFlags).toContain('nh');
    }
  });

  test('populate maps every page at once, and at 4K', async () => {
    const process = root();
    const region = await process.map({ pages: 2048, populate: true });
    expect((await process.write(region)).minorFaults).toBe(0);
    expect(vmaOf(process, region).fieldsKb).toMatchObject({ Rss: 8192, AnonHugePages: 0 });
  });

  test('noreserve, dontfork and wipeonfork are flags of the VMA', async () => {
    const process = root();
    const region = await process.map({ pages: 2, noreserve: true });
    expect(vmaOf(process, region).vmFlags).toContain('nr');
    await process.advise(region, 'wipeonfork');
    expect(vmaOf(process, region).vmFlags).toContain('wf');
    await process.advise(region, 'dontfork');
    expect(vmaOf(process, region).vmFlags).toContain('dc');
    expect((await process.fork()).has(region)).toBe(false);
  });

  test('wipeonfork leaves the child zeros', async () => {
    const process = root();
    const region = await process.map({ pages: 3 });
    await process.write(region, {}, 4n);
    await process.advise(region, 'wipeonfork');
    expect((await (await process.fork()).read(region)).sum).toBe(0n);
  });

  test('dontneed gives the pages back, and they read as zeros', async () => {
    const process = root();
    const region = await process.map({ pages: 3 });
    await process.write(region, {}, 4n);
    await process.advise(region, 'dontneed', { first: 1, pages: 1 });
    expect((await process.read(region)).sum).toBe(8n);
  });

  test('grow moves the region and keeps what it holds', async () => {
    const process = root();
    const region = await process.map({ pages: 3 });
    await process.write(region, {}, 4n);
    const before = process.placement(region).address;
    await process.grow(region, 1000);
    expect(process.placement(region)).toMatchObject({ pages: 1000 });
    expect(process.placement(region).address).not.toBe(before);
    expect(await process.read(region)).toMatchObject({ sum: 12n, minorFaults: 997 });
  });

  test('unmap takes the guards away too, and a part of a region stays a hole', async () => {
    const process = root();
    const before = readSmaps(process.pid).length;
    const region = await process.map({ pages: 9 });
    await process.unmap(region, { first: 3, pages: 3 });
    const inside = await process.map({ pages: 3 });
    const { address } = process.placement(region);
    const { address: other } = process.placement(inside);
    expect(other >= address && other < address + BigInt(9 * pageSizeBytes())).toBe(false);
    await process.unmap(region);
    await process.unmap(inside);
    expect(readSmaps(process.pid)).toHaveLength(before);
  });

  test('more memory than there is is refused before a page of it is touched', async () => {
    const process = root();
    const pages = 2 ** 32;
    const region = await process.map({ pages, noreserve: true });
    const memory = mmap({ pages, noreserve: true });
    opened.push({
      close: () => {
        memory.unmap();
      },
    });
    for (const attempt of [
      () => process.write(region),
      () => process.advise(region, 'populate-write'),
      () => process.map({ pages, populate: true, noreserve: true }),
      () => Promise.resolve().then(() => memory.write()),
      () => Promise.resolve().then(() => mmap({ pages, populate: true, noreserve: true })),
    ]) {
      await expect(attempt()).rejects.toMatchObject({ name: 'FeatureUnavailableError', feature: '16 TiB' });
    }
    expect(vmaOf(process, region).fieldsKb['Rss']).toBe(0);
  });

  test('sizes beyond 4 GiB work: the last page of 40 GiB', async () => {
    const process = root();
    const pages = (40 * 2 ** 30) / pageSizeBytes();
    const region = await process.map({ pages, noreserve: true });
    expect((await process.write(region, { first: pages - 1 })).minorFaults).toBe(1);
    expect(vmaOf(process, region).fieldsKb).toMatchObject({ Size: 40 * 2 ** 20, Rss: pageSizeBytes() / 1024 });
  });
});

describe('readers', () => {
  test('pagemap and smaps agree on every kind of page, in parent and child', async () => {
    const parent = root();
    const region = await parent.map({ pages: 100 });
    await parent.write(region, { pages: 60 });
    const child = await parent.fork();
    await child.write(region, { pages: 20 });
    await child.read(region, { first: 70, pages: 10 });
    for (const process of [parent, child]) {
      const counts = countPages(process.pid, process.placement(region));
      const { fieldsKb } = vmaOf(process, region);
      const kb = pageSizeBytes() / 1024;
      expect(counts.exclusive * kb).toBe((fieldsKb['Private_Dirty'] ?? 0) + (fieldsKb['Private_Clean'] ?? 0));
      expect(counts.shared * kb).toBe((fieldsKb['Shared_Dirty'] ?? 0) + (fieldsKb['Shared_Clean'] ?? 0));
      expect((counts.exclusive + counts.shared) * kb).toBe(fieldsKb['Rss']);
    }
    const { address } = child.placement(region);
    // Where the zero page is forbidden, what was only read has pages of its own.
    const { forbidsZeroPage = false } = readHostFacts(child.pid);
    expect(countPages(child.pid, { address, pages: 100 })).toEqual({
      exclusive: forbidsZeroPage ? 30 : 20,
      shared: 40,
      zero: forbidsZeroPage ? 0 : 10,
      swapped: 0,
      'not-present': 30,
      unknown: 0,
    });
    const states = readPageStates(child.pid, { address, pages: 100 });
    const read = forbidsZeroPage ? 1 : 3;
    expect([0, 19, 20, 59, 60, 70, 79, 80].map((page) => states[page])).toEqual([1, 1, 2, 2, 0, read, read, 0]);
    // Bit 63: present; bit 56: exclusively mapped.
    const entries = readPagemap(child.pid, { address, pages: 100 });
    expect([entries[0], entries[20], entries[60]].map((entry) => (entry ?? 0n) >> 56n)).toEqual([0x81n, 0x80n, 0n]);
  });

  test('without the look for zero pages they count as shared, as the option says', async ({ skip }) => {
    const process = root();
    if (readHostFacts(process.pid).forbidsZeroPage) skip('this kernel forbids the zero page');
    const region = await process.map({ pages: 8 });
    await process.read(region);
    const placement = process.placement(region);
    expect(countPages(process.pid, placement)).toMatchObject({ zero: 8, shared: 0 });
    expect(countPages(process.pid, placement, { checkZero: false })).toMatchObject({ zero: 0, shared: 8 });
  });

  test('reading faults nothing in the target', async () => {
    const process = root();
    const region = await process.map({ pages: 300 });
    await process.write(region, { pages: 100 });
    const before = readStat(process.pid);
    for (let i = 0; i < 200; i++) {
      countPages(process.pid, process.placement(region));
      readSmapsRollup(process.pid);
      if (i % 20 === 0) readSmaps(process.pid);
    }
    const after = readStat(process.pid);
    expect([after.minflt, after.majflt]).toEqual([before.minflt, before.majflt]);
  });

  test('a process that is not there is ESRCH', () => {
    for (const read of [() => countPages(2 ** 22 + 1, { address: 0n, pages: 1 }), () => readSmaps(2 ** 22 + 1)]) {
      expect(read).toThrow(SystemError);
      expect(read).toThrow(expect.objectContaining({ code: 'ESRCH' }));
    }
  });

  test('bad input is refused by name', () => {
    const loose = (value: unknown) => value as never;
    expect(() => countPages(0, { address: 0n, pages: 1 })).toThrow(/^pid /);
    expect(() => countPages(1.5, { address: 0n, pages: 1 })).toThrow(/^pid /);
    expect(() => countPages(process.pid, loose({ address: 0, pages: 1 }))).toThrow(/^address must be a bigint/);
    expect(() => countPages(process.pid, { address: 1n, pages: 1 })).toThrow(/^address must be page-aligned/);
    expect(() => countPages(process.pid, { address: -4096n, pages: 1 })).toThrow(/^address /);
    expect(() => countPages(process.pid, { address: 0n, pages: -1 })).toThrow(/^pages /);
    expect(() => countPages(process.pid, loose(undefined))).toThrow(/^range /);
  });
});
