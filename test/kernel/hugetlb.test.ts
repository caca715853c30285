/** Regions of hugetlb pages in the plain API: what readers say of them, and what mmap and the pool do. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { fork } from '../../lib/api/forked-process.js';
import type { ForkedProcess, ForkedRegion } from '../../lib/api/forked-process.js';
import { mmap } from '../../lib/api/mapping.js';
import { findLeftBehind } from '../../lib/api/system-changes.js';
import type { SystemChanges } from '../../lib/api/system-changes.js';
import { readHugetlbPool } from '../../lib/proc/hugetlb.js';
import { PAGE_STATES, countPages, readPageStates } from '../../lib/proc/pagemap.js';
import { readSmaps } from '../../lib/proc/smaps.js';
import { CAP_SYS_ADMIN, hasCapability, readStatus } from '../../lib/proc/status.js';
import { mappedStates } from './map-counts.js';
import { takePool, whyNoHugetlb } from '../hugetlb-pool.js';

const HUGE = 512;
const POOL = 16;
const why = whyNoHugetlb(POOL);
const readPoolSize = () => (why === undefined ? readFileSync('/proc/sys/vm/nr_hugepages', 'utf8') : '');
const before = readPoolSize();
let changes: SystemChanges | undefined;

beforeAll(async () => {
  if (why === undefined) changes = await takePool(POOL);
});
afterAll(async () => {
  await changes?.restore();
  expect(readPoolSize()).toBe(before);
});

function requirePool(skip: (why: string) => never): void {
  if (why !== undefined) skip(why);
  if (!changes) skip('memory is too scattered for a pool');
}

function compareReaders(process: ForkedProcess, region: ForkedRegion, when: string): void {
  const range = process.placement(region);
  const truth = mappedStates(process.pid, range);
  const pagesOf = (state: string) => truth.filter((one) => one === state).length;
  const [exclusive, shared] = [pagesOf('exclusive'), pagesOf('shared')];
  const where = `${when}: ${String(process.pid)}`;
  const counts = { exclusive, shared, zero: 0, unknown: 0, 'not-present': range.pages - exclusive - shared };
  expect(countPages(process.pid, range), where).toMatchObject(counts);
  expect(countPages(process.pid, range, { checkHuge: false }), where).toMatchObject(counts);
  const states = Array.from(readPageStates(process.pid, range), (state) => PAGE_STATES[state]);
  expect(states, where).toEqual(truth);
  const vma = readSmaps(process.pid).find(({ start }) => start === range.address);
  expect(vma?.fieldsKb, where).toMatchObject({ Rss: 0, Private_Hugetlb: exclusive * 4, Shared_Hugetlb: shared * 4 });
}

test.for(['private', 'shared'] as const)(
  'readers agree with kpagecount on hugetlb memory: %s',
  async (sharing, { skip }) => {
    requirePool(skip);
    if (hasCapability(readStatus('self'), CAP_SYS_ADMIN) !== true) skip('kpagecount wants CAP_SYS_ADMIN');
    const root = fork();
    try {
      const region = await root.map({ pages: 4 * HUGE, hugetlb: true, sharing });
      await root.write(region, { pages: 3 * HUGE });
      compareReaders(root, region, 'alone');
      const child = await root.fork();
      compareReaders(root, region, 'forked');
      compareReaders(child, region, 'forked');
      await child.write(region, { first: HUGE, pages: 1 });
      compareReaders(root, region, 'a child has written');
      compareReaders(child, region, 'it has written');
      const range = { ...child.placement(region), pages: HUGE + 5 };
      expect(countPages(child.pid, range).unknown, 'a part of a huge page').toBe(0);
      await child.exit();
      compareReaders(root, region, 'it has ended');
    } finally {
      await root.close();
    }
  },
);

test('mmap reserves all pages of a region or fails with ENOMEM; noreserve reserves none', async ({ skip }) => {
  requirePool(skip);
  const root = fork();
  try {
    await root.map({ pages: 10 * HUGE, hugetlb: true });
    expect(readHugetlbPool()).toMatchObject({ totalPages: POOL, freePages: POOL, reservedPages: 10 });
    const more = root.map({ pages: 7 * HUGE, hugetlb: true });
    await expect(more).rejects.toMatchObject({ code: 'ENOMEM', syscall: 'mmap' });
    const free = await root.map({ pages: 7 * HUGE, hugetlb: true, noreserve: true });
    expect(readHugetlbPool()).toMatchObject({ reservedPages: 10 });
    await root.write(free, { pages: 6 * HUGE });
    await expect(root.write(free, { first: 6 * HUGE, pages: 1 })).rejects.toMatchObject({
      status: { signal: 'SIGBUS' },
    });
    expect(readHugetlbPool()).toMatchObject({ freePages: POOL, reservedPages: 0 });
  } finally {
    await root.close();
  }
});

test('the pool is put back when the process that set it is killed', async ({ skip }) => {
  if (why !== undefined) skip(why);
  await changes?.restore();
  const script = `const { openMachine } = await import(process.env.COWLAB_LIBRARY);
    const machine = await openMachine({ allow: ['hugetlb'], purpose: 'a test' });
    await machine.setHugetlbPages(2);
    const region = await machine.root.map({ pages: ${String(HUGE)}, hugetlb: true });
    await machine.root.write(region);
    console.log('set');`;
  const env = { ...process.env, COWLAB_LIBRARY: new URL('../../dist/index.js', import.meta.url).href };
  const options = { env, stdio: ['ignore', 'pipe', 'ignore'] as ['ignore', 'pipe', 'ignore'] };
  const changer = spawn(
    process.execPath,
    ['--input-type=module', '-e', `${script} setInterval(() => {}, 1e6)`],
    options,
  );
  const exited = once(changer, 'exit');
  await once(changer.stdout, 'data');
  expect(readHugetlbPool()).toMatchObject({ totalPages: 2 });
  changer.kill('SIGKILL');
  await exited;
  changer.stdout.destroy();
  while (findLeftBehind().state !== 'nothing') await new Promise(setImmediate);
  expect(readPoolSize()).toBe(before);
  // The page of the root stays, as a surplus, until that has ended, which nobody here can wait for.
  await expect.poll(() => readHugetlbPool(), { timeout: 20_000 }).toMatchObject({ totalPages: 0 });
});

test('a length that is no whole number of huge pages, an object, and Node itself are refused', async ({ skip }) => {
  if (!readHugetlbPool()) skip('this kernel has no hugetlb memory');
  const root = fork();
  try {
    await expect(root.map({ pages: HUGE + 1, hugetlb: true })).rejects.toThrow(/must have a multiple of 512 pages/);
    await expect(root.map({ pages: HUGE, hugetlb: true, hugePages: true })).rejects.toThrow(RangeError);
    expect(() => mmap({ pages: HUGE, hugetlb: true })).toThrow(/not for Node's own process/);
  } finally {
    await root.close();
  }
});
