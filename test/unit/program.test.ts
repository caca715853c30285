import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { FeatureUnavailableError, ProcessEndedError, SystemError } from '../../lib/errors.js';
import type { Machine, Region } from '../../lib/machine/machine.js';
import { modelMachine, replayOnModel } from '../../lib/machine/open.js';
import { testFacts } from '../facts.js';

let machine: Machine;
let region: Region;

beforeEach(async () => {
  machine = modelMachine(testFacts);
  region = await machine.root.map({ pages: 10 });
});
afterEach(async () => {
  await machine.close();
});

/** A call that must be refused by its arguments alone: with the name of the argument, and without any effect. */
async function refuses(call: () => Promise<unknown>, type: new (...args: never[]) => Error, message: RegExp) {
  const before = JSON.stringify(machine.trace);
  await expect(call()).rejects.toThrow(message);
  await expect(call()).rejects.toBeInstanceOf(type);
  expect(JSON.stringify(machine.trace)).toBe(before);
}

describe('bad input is refused before anything happens', () => {
  const loose = (value: unknown) => value as never;

  test.each([
    [{ pages: 0 }, RangeError, /^pages must be a whole number from 1/],
    [{ pages: -1 }, RangeError, /^pages /],
    [{ pages: 1.5 }, RangeError, /^pages /],
    [{ pages: NaN }, RangeError, /^pages /],
    [{ pages: 2 ** 53 }, RangeError, /^pages /],
    [{ pages: '10' }, TypeError, /^pages must be a number, not "10"/],
    [{ size: 4097 }, RangeError, /^size must be a multiple of the page size/],
    [{ size: 2 ** 60 }, RangeError, /^size /],
    [{}, TypeError, /either size or pages/],
    [{ pages: 1, size: 4096 }, TypeError, /either size or pages/],
    [{ pages: 1, sharing: 'both' }, RangeError, /^sharing must be one of private, shared/],
    [{ pages: 1, protection: 'rwx' }, RangeError, /^protection /],
    [{ pages: 1, backing: 'memfd' }, TypeError, /^backing /],
    [{ pages: 1, offset: 3 }, RangeError, /^offset /],
    [{ pages: 1, populate: 1 }, TypeError, /^populate must be true or false/],
    [{ pages: 1, onFork: 'wipe' }, RangeError, /^onFork /],
    [undefined, TypeError, /^spec must be an object/],
    [null, TypeError, /^spec must be an object/],
  ])('map(%j)', async (spec, type, message) => {
    await refuses(() => machine.root.map(loose(spec)), type, message);
  });

  test.each([
    [{ first: 11 }, RangeError, /^first /],
    [{ first: 5, pages: 6 }, RangeError, /pages 5 to 11 do not lie inside the region's 10 pages/],
    [{ pages: -1 }, RangeError, /^pages /],
    [{ to: 11 }, RangeError, /^to /],
    [{ from: 3, to: 2 }, RangeError, /^from /],
    [{ pattern: 'zigzag' }, RangeError, /^pattern /],
    [{ pattern: 'random', seed: -1 }, RangeError, /^seed /],
    [{ pattern: 'stride', stride: 0 }, RangeError, /^stride /],
    ['everything', TypeError, /^range must be an object/],
  ])('write(region, %j)', async (choice, type, message) => {
    await refuses(() => machine.root.write(region, loose(choice)), type, message);
  });

  test('a region of another machine, or what is no region, or one with the right name', async () => {
    const other = modelMachine(testFacts);
    const foreign = await other.root.map({ pages: 1 });
    for (const wrong of [foreign, {}, { name: region.name }]) {
      await refuses(() => machine.root.write(loose(wrong)), TypeError, /region is not a region of this machine/);
    }
    await refuses(() => machine.root.write(loose(undefined)), TypeError, /region must be an object/);
  });

  test('a region that the process does not have', async () => {
    const child = await machine.root.fork();
    const later = await machine.root.map({ pages: 1 });
    await refuses(() => child.read(later), TypeError, /region r2 is not mapped in root\.1/);
    await machine.root.unmap(region);
    await refuses(() => machine.root.read(region), TypeError, /region r1 is not mapped in root$/);
  });

  test('pages that have been unmapped, and pages that MADV_DONTFORK has kept from the child', async () => {
    await machine.root.advise(region, 'dontfork', { first: 8 });
    const child = await machine.root.fork();
    await refuses(() => child.read(region), RangeError, /pages 0 to 9 of region r1 are not all mapped in root\.1/);
    await machine.root.unmap(region, { first: 0, pages: 2 });
    await refuses(() => machine.root.protect(region, 'r', { pages: 3 }), RangeError, /are not all mapped in root/);
    await machine.root.read(region, { first: 2 });
  });

  test('a process that has ended', async () => {
    const child = await machine.root.fork();
    await child.exit(3);
    await refuses(() => child.read(region), ProcessEndedError, /root\.1 has exited with code 3/);
    await refuses(() => child.fork(), ProcessEndedError, /root\.1/);
    await refuses(() => child.kill(), ProcessEndedError, /root\.1/);
  });

  test('codes, signals, lengths and labels', async () => {
    expect(() => machine.root.exit(256)).toThrow(RangeError);
    expect(() => machine.root.kill('SIGCONT')).toThrow(/signal must be one of/);
    await refuses(() => machine.root.grow(region, 10), RangeError, /^pages must be a whole number from 11/);
    await refuses(() => machine.observe(loose(7)), TypeError, /label/);
    expect(() => machine.createMemfd(0)).toThrow(RangeError);
  });

  test('everything, once the machine is closed', async () => {
    await machine.close();
    await expect(machine.root.read(region)).rejects.toThrow('the machine has been closed');
  });
});

describe('a trace', () => {
  test('records steps in the order they were called, also when nobody waits between them', async () => {
    const calls = [machine.root.write(region), machine.root.fork(), machine.observe('both')];
    await Promise.all(calls);
    expect(machine.trace.map(({ step }) => step.op)).toEqual(['map', 'write', 'fork', 'observe']);
  });

  test('replayed on the model gives the same trace', async () => {
    await machine.root.write(region, { pattern: 'random', seed: 3, to: 7 });
    const child = await machine.root.fork();
    await child.write(region, { pattern: 'stride', stride: 4 });
    await machine.observe('end');
    expect(await replayOnModel(machine.trace, testFacts)).toEqual(machine.trace);
  });

  test('holds a death by signal as an outcome', async () => {
    await machine.root.protect(region, 'r');
    const child = await machine.root.fork();
    await expect(child.write(region)).rejects.toThrow('root.1 was ended by SIGSEGV');
    expect(machine.trace.at(-1)?.outcome).toEqual({ ended: { signal: 'SIGSEGV' } });
    expect(child.alive).toBe(false);
  });

  test('holds a refused fork, which tryFork gives as a value and fork throws', async () => {
    const big = await machine.root.map({ pages: testFacts.memTotalPages });
    await machine.root.grow(big, testFacts.memTotalPages + 1);
    const refusal = await machine.root.tryFork();
    expect(refusal).toMatchObject({
      refused: {
        code: 'ENOMEM',
        syscall: 'fork',
        vmaPages: testFacts.memTotalPages + 1,
        allowedPages: testFacts.memTotalPages,
      },
    });
    await expect(machine.root.fork()).rejects.toBeInstanceOf(SystemError);
    await expect(machine.root.fork()).rejects.toMatchObject({ code: 'ENOMEM', errno: -12, syscall: 'fork' });
    expect(machine.processes).toHaveLength(1);
  });
});

test('an error of a missing feature says what would help', () => {
  const error = new FeatureUnavailableError('PAGEMAP_SCAN', 'this is Linux 6.1', 'Linux 6.7 has it.');
  expect(error.message).toBe('PAGEMAP_SCAN is not available: this is Linux 6.1. Linux 6.7 has it.');
  expect(error.code).toBe('COWLAB_FEATURE_UNAVAILABLE');
});
