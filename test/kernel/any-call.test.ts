import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createMemfd } from '../../lib/api/file-object.js';
import { fork } from '../../lib/api/forked-process.js';
import type { ForkedProcess, ForkedRegion } from '../../lib/api/forked-process.js';
import { mmap } from '../../lib/api/mapping.js';
import { countPages, readPagemap } from '../../lib/proc/pagemap.js';
import { readSmaps } from '../../lib/proc/smaps.js';

const HOSTILE = fileURLToPath(new URL('any-call.mjs', import.meta.url));
const NATIVE = new URL('../../dist/native.js', import.meta.url).href;
const SEEDS = [1, 20261122, Date.now() % 2 ** 31];
const CALLS = 6000;

interface Summary {
  returned: number;
  threw: number;
  forked: number;
  sum: number;
  leaked: number;
  children: string;
  missing: string[];
}

/** Its output goes to a file: a pipe of Node's is a socket, to which hostile calls would send. */
async function runHostile(seed: number) {
  const directory = mkdtempSync(join(tmpdir(), 'cowlab-hostile-'));
  const file = join(directory, 'output');
  const fd = openSync(file, 'w');
  try {
    const child = spawn(process.execPath, [HOSTILE, String(seed), String(CALLS)], {
      stdio: ['ignore', fd, fd],
      env: { ...process.env, COWLAB_NATIVE: NATIVE },
    });
    const [code, signal] = (await once(child, 'exit')) as [number | null, string | null];
    return { code, signal, output: readFileSync(file, 'utf8') };
  } finally {
    closeSync(fd);
    rmSync(directory, { recursive: true });
  }
}

describe('the native interface', () => {
  test.each(SEEDS)(`survives ${String(CALLS)} calls with anything JavaScript can pass, seed %i`, async (seed) => {
    const { code, signal, output } = await runHostile(seed);
    expect({ code, signal }, output).toEqual({ code: 0, signal: null });
    const summary = JSON.parse(output) as Summary;
    // Nothing is left of it all, and what is asked rightly works as before.
    expect(summary).toMatchObject({ sum: 28, leaked: 0, children: '', missing: [] });
    // Both kinds of call were there in numbers: those that came through and those that did not.
    expect(summary.returned).toBeGreaterThan(CALLS / 10);
    expect(summary.threw).toBeGreaterThan(CALLS / 10);
    expect(summary.forked).toBeGreaterThan(10);
  });
});

/** Values that are right nowhere. */
const JUNK: unknown[] = [
  ...[-1, 0.5, 2 ** 53, NaN, Infinity, -Infinity, 1e308, -(2 ** 31)],
  ...[null, 'x', '', '4', true, 4n, [], {}, () => 1, Symbol('s'), new Date()],
];
const junk = fc.constantFrom(...JUNK);
const loose = (value: unknown) => value as never;

/** What a call that must fail says, and that it says it as a TypeError or RangeError. */
async function complaint(call: () => unknown): Promise<string> {
  try {
    await call();
  } catch (error) {
    if (error instanceof TypeError || error instanceof RangeError) return error.message;
    throw new Error('it failed in another way', { cause: error });
  }
  throw new Error('it was accepted');
}

async function expectComplaint(call: () => unknown, argument: RegExp): Promise<void> {
  expect(await complaint(call)).toMatch(argument);
}

describe('the plain API', () => {
  let root: ForkedProcess;
  let region: ForkedRegion;
  const memory = mmap({ pages: 8, sharing: 'shared' });
  const PAGES = 8;

  beforeAll(async () => {
    root = fork();
    region = await root.map({ pages: PAGES });
    await root.write(region, {}, 7n);
    memory.write({}, 7n);
  });

  afterAll(async () => {
    await root.close();
    memory.unmap();
  });

  const layout = () => readSmaps(root.pid).map(({ start, end, perms, vmFlags }) => [start, end, perms, vmFlags.join()]);

  /** Runs hostile calls; afterwards the process lives, its memory lies and holds what it did. */
  async function expectNothingChanged(calls: () => Promise<void>): Promise<void> {
    const before = layout();
    const placement = root.placement(region);
    await calls();
    expect(layout()).toEqual(before);
    expect(root.placement(region)).toEqual(placement);
    expect(await root.read(region)).toMatchObject({ sum: BigInt(7 * PAGES), minorFaults: 0 });
    expect(memory.read().sum).toBe(BigInt(7 * PAGES));
    expect(root.status).toBeUndefined();
  }

  test.each(['first', 'pages', 'from', 'to', 'seed', 'stride', 'pattern'])(
    'names %s when that is what is wrong with a choice of pages',
    async (field) => {
      const pattern = field === 'stride' ? 'stride' : 'random';
      await expectNothingChanged(async () => {
        await fc.assert(
          fc.asyncProperty(junk, async (value) => {
            const choice = loose({ pattern, [field]: value });
            // A length may also be right in itself, and too long for what it is of.
            const argument = field === 'first' || field === 'pages' ? /^(first|pages) / : new RegExp(`^${field} `);
            if (value === null) return;
            await expectComplaint(() => root.write(region, choice), argument);
            await expectComplaint(() => root.read(region, choice), argument);
            await expectComplaint(() => memory.write(choice), argument);
            if (field !== 'first' && field !== 'pages') return;
            await expectComplaint(() => root.protect(region, 'none', choice), argument);
            await expectComplaint(() => root.advise(region, 'dontneed', choice), argument);
            await expectComplaint(() => root.unmap(region, choice), argument);
            await expectComplaint(() => {
              memory.advise('dontneed', choice);
            }, argument);
          }),
          { numRuns: JUNK.length * 4 },
        );
      });
    },
  );

  test.each(['length', 'pages', 'sharing', 'protection', 'populate', 'noreserve', 'object', 'offset'])(
    'names %s when that is what is wrong with a mapping',
    async (field) => {
      const object = createMemfd(4);
      const rest = {
        ...(field === 'length' || field === 'pages' ? {} : { pages: 1 }),
        ...(field === 'offset' && { object }),
      };
      await expectNothingChanged(async () => {
        for (const value of JUNK) {
          const isRight = (field === 'populate' || field === 'noreserve') && value === true;
          if (isRight || (value === null && field !== 'object')) continue;
          const spec = loose({ ...rest, [field]: value });
          await expectComplaint(() => root.map(spec), new RegExp(`^${field} `));
          await expectComplaint(() => mmap(spec), new RegExp(`^${field} `));
        }
      });
      object.close();
    },
  );

  test('names what is wrong with any other argument', async () => {
    await expectNothingChanged(async () => {
      for (const value of JUNK) {
        await expectComplaint(() => root.write(loose(value)), /^region /);
        await expectComplaint(() => root.unmap(loose(value)), /^region /);
        await expectComplaint(() => root.protect(region, loose(value)), /^protection /);
        await expectComplaint(() => root.advise(region, loose(value)), /^advice /);
        await expectComplaint(() => root.grow(region, loose(value)), /^pages /);
        await expectComplaint(() => root.kill(loose(value)), /^signal /);
        await expectComplaint(() => root.exit(loose(value)), /^code /);
        await expectComplaint(() => createMemfd(loose(value)), /^pages /);
        if (typeof value !== 'bigint') {
          await expectComplaint(() => root.write(region, {}, loose(value)), /^value /);
          await expectComplaint(() => memory.write({}, loose(value)), /^value /);
          await expectComplaint(() => readPagemap(process.pid, loose({ address: value, pages: 1 })), /^address /);
        }
        await expectComplaint(() => countPages(loose(value), { address: 0n, pages: 1 }), /^pid /);
        if (typeof value !== 'object' || value === null) {
          await expectComplaint(() => root.map(loose(value)), /^spec /);
          await expectComplaint(() => countPages(process.pid, loose(value)), /^range /);
        }
      }
      await expectComplaint(() => root.grow(loose(memory), 16), /^region /);
      await expectComplaint(() => root.grow(region, PAGES), /^pages /);
      await expectComplaint(() => root.map({ pages: 2 ** 34 + 1 }), /^pages /);
      await expectComplaint(() => root.map({ pages: 1, length: 4096 }), /^give either length/);
      await expectComplaint(() => root.map({ length: 4097 }), /^length /);
    });
  });

  test('refuses regions of other processes, of regions unmapped, and of a tree that is not its own', async () => {
    const other = fork();
    const foreign = await other.map({ pages: 1 });
    const gone = await root.map({ pages: 1 });
    await root.unmap(gone);
    await expectNothingChanged(async () => {
      await expectComplaint(() => root.read(foreign), /^region is not mapped in process/);
      await expectComplaint(() => root.write(gone), /^region is not mapped in process/);
    });
    await other.close();
  });

  test('asks an object for a field once, and its getters cannot make it answer differently later', async () => {
    let asked = 0;
    const range = {
      get first() {
        return asked++ === 0 ? 0 : 2 ** 40;
      },
      pages: 2,
    };
    await root.advise(region, 'keeponfork', range);
    expect(asked).toBe(1);
    const failing = {
      get pages(): number {
        throw new Error('mine');
      },
    };
    await expect(root.write(region, failing)).rejects.toThrow('mine');
  });

  test('a region that is being grown cannot be touched before it is known where it lies', async () => {
    const growing = await root.map({ pages: 2 });
    const grown = root.grow(growing, 600);
    await expect(root.write(growing)).rejects.toThrow(/^region is being grown/);
    await grown;
    expect((await root.write(growing)).minorFaults).toBe(600);
    await root.unmap(growing);
  });
});
