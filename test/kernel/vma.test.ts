/** The one VMA that holds an address: PROCMAP_QUERY and the text of maps say the same. */
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { createMemfd } from '../../lib/api/file-object.js';
import { fork } from '../../lib/api/forked-process.js';
import type { SystemError } from '../../lib/errors.js';
import { FeatureUnavailableError } from '../../lib/errors.js';
import { native } from '../../lib/native.js';
import { readPidFile } from '../../lib/proc/read.js';
import type { Pid } from '../../lib/proc/read.js';
import type { MapsVma } from '../../lib/proc/smaps.js';
import { parseMaps, readVma } from '../../lib/proc/vma.js';
import { KERNEL_THREAD, whyNoKernelThread } from './kernel-thread.js';

const canQuery = native().probe().procmapQuery === 0;

const cleanups: (() => Promise<unknown> | undefined)[] = [];
afterEach(async () => {
  for (const clean of cleanups.splice(0).reverse()) await clean();
});

function mapsOf(pid: Pid): MapsVma[] {
  return parseMaps(readPidFile(pid, 'maps'));
}

/** Both ways, at the first, a middle and the last byte of every VMA of a process that stands still. */
function expectAgreement(pid: number): MapsVma[] {
  const vmas = mapsOf(pid);
  expect(vmas.length).toBeGreaterThan(5);
  for (const vma of vmas) {
    for (const address of [vma.start, (vma.start + vma.end) / 2n + 1n, vma.end - 1n]) {
      expect(readVma(pid, address, { by: 'maps' })).toEqual(vma);
      expect(readVma(pid, address)).toEqual(vma);
      if (canQuery) expect(readVma(pid, address, { by: 'query' })).toEqual(vma);
    }
  }
  return vmas;
}

/** A Python that maps a file of this name, deletes it if asked, and then stands still. */
async function mapperOf(path: Buffer, deleted: boolean): Promise<number> {
  const program = `
import mmap, os, sys
path = bytes.fromhex(sys.argv[1])
with open(path, 'rb') as file: kept = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
if sys.argv[2] == '1': os.unlink(path)
print('ready', flush=True)
sys.stdin.read()`;
  const child = spawn('python3', ['-c', program, path.toString('hex'), deleted ? '1' : '0'], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const exited = new Promise((resolve) => child.once('exit', resolve));
  cleanups.push(() => {
    child.kill('SIGKILL');
    return exited;
  });
  await new Promise((resolve, reject) => {
    child.stdout.once('data', resolve);
    child.once('error', reject);
  });
  return child.pid ?? 0;
}

function folder(): string {
  const path = mkdtempSync(join(tmpdir(), 'cowlab vma-'));
  cleanups.push(() => {
    rmSync(path, { recursive: true });
    return undefined;
  });
  return path;
}

describe('a query and the text of maps give the same of every VMA', () => {
  test('of a forked process, with a heap as a rule, a memfd, a stack and a vdso', async () => {
    const child = fork();
    cleanups.push(() => child.close());
    const object = createMemfd(8);
    const region = await child.map({ pages: 4, sharing: 'shared', object, offset: 2 });
    object.close();
    const vmas = expectAgreement(child.pid);
    const paths = vmas.map(({ path }) => path);
    // Not the heap, which AddressSanitizer does without.
    for (const special of ['[stack]', '[vdso]']) expect(paths).toContain(special);
    const { address } = child.placement(region);
    expect(readVma(child.pid, address)).toMatchObject({
      start: address,
      perms: 'rw-s',
      offset: 8192n,
      path: '/memfd:cowlab (deleted)',
    });
  });

  test.each([
    ['with spaces', Buffer.from('a file  of spaces '), ''],
    ['with a newline, and a backslash', Buffer.from('one\ntwo\\012'), ''],
    ['that is no UTF-8', Buffer.from([0x61, 0xff, 0xc3, 0x62]), ''],
    ['that has been deleted', Buffer.from('gone'), ' (deleted)'],
  ])('of a process that maps a file %s', async (_, name, suffix) => {
    const path = Buffer.concat([Buffer.from(`${folder()}/`), name]);
    writeFileSync(path, 'content');
    const pid = await mapperOf(path, suffix !== '');
    const vmas = expectAgreement(pid);
    const expected = `${path.toString().replaceAll('\n', '\\012')}${suffix}`;
    const found = vmas.find((vma) => vma.path === expected);
    expect(found).toMatchObject({ perms: 'r--s', offset: 0n });
    expect(found?.inode).toBeGreaterThan(0n);
    expect(found?.device).toMatch(/^[0-9a-f]{2,}:[0-9a-f]{2,}$/);
  });

  test('of the vsyscall page, where maps shows it: no query finds it', (context) => {
    const gate = mapsOf('self').find(({ path }) => path === '[vsyscall]');
    if (!gate) {
      context.skip('this kernel shows no vsyscall page');
      return;
    }
    expect(readVma('self', gate.start + 1n)).toEqual(gate);
    if (canQuery) expect(readVma('self', gate.start, { by: 'query' })).toEqual(gate);
    expect(readVma('self', gate.end)).toBeUndefined();
  });
});

describe('where there is no VMA', () => {
  test('both ways find none between two of them, below all and above all', async () => {
    const child = fork();
    cleanups.push(() => child.close());
    await child.read(await child.map({ pages: 1 }));
    const vmas = mapsOf(child.pid);
    const gaps = vmas.filter(({ end }, index) => vmas[index + 1]?.start !== end).map(({ end }) => end);
    for (const address of [0n, ...gaps, 2n ** 64n - 1n]) {
      expect(readVma(child.pid, address, { by: 'maps' })).toBeUndefined();
      expect(readVma(child.pid, address)).toBeUndefined();
    }
  });

  test('nor in a kernel thread', (context) => {
    const lacking = whyNoKernelThread();
    if (lacking !== undefined) context.skip(lacking);
    expect(readVma(KERNEL_THREAD, 4096n, { by: 'maps' })).toBeUndefined();
    expect(readVma(KERNEL_THREAD, 4096n)).toBeUndefined();
  });

  test('a process that has ended is told as ESRCH by both', async () => {
    const child = fork();
    await child.exit();
    for (const by of canQuery ? (['maps', 'query'] as const) : (['maps'] as const)) {
      expect(() => readVma(child.pid, 4096n, { by })).toThrow(
        expect.objectContaining({ code: 'ESRCH', errno: -3, syscall: 'open' }) as SystemError,
      );
    }
  });
});

test('misuse is told by the name of the argument', () => {
  const loose = (value: unknown) => value as never;
  expect(() => readVma('self', loose(1))).toThrow('address must be a bigint');
  expect(() => readVma('self', -1n)).toThrow(RangeError);
  expect(() => readVma('self', 2n ** 64n)).toThrow(RangeError);
  expect(() => readVma(loose('1'), 0n)).toThrow(/^pid must be/);
  expect(() => readVma(-1, 0n)).toThrow(/^pid must be/);
  expect(() => readVma('self', 0n, loose({ by: 'smaps' }))).toThrow(/^by must be one of/);
  expect(() => readVma('self', 0n, loose(null))).toThrow(/^options must be an object/);
});

test.skipIf(canQuery)('a kernel without the query says so where it is forced', () => {
  expect(() => readVma('self', 4096n, { by: 'query' })).toThrow(FeatureUnavailableError);
  expect(readVma('self', 4096n)).toBeUndefined();
});
