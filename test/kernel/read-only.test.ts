import { Value } from 'typebox/value';
import { describe, expect, test } from 'vitest';
import { parseParams } from '../../lib/experiments/define.js';
import { readOnly } from '../../lib/experiments/read-only.js';
import { predictExperiment, runExperiment } from '../../lib/experiments/run.js';
import type { Machine, Process } from '../../lib/machine/machine.js';
import { mutations } from '../../lib/machine/model/mutation.js';
import { readHostFacts } from '../../lib/proc/host.js';
import { isAtLeast } from '../../lib/proc/system.js';
import { ResultSchema } from '../../lib/schema/result.js';
import type { ResultDocument } from '../../lib/schema/result.js';
import { failedBases, isRedWith } from './red.js';

const PAGES = 600;
const SMALL = { size: PAGES * 4096, children: 3, rounds: 3 };
type Context = Parameters<typeof readOnly.run>[0];

function run(given: Record<string, unknown> = {}, experiment = readOnly): Promise<ResultDocument> {
  return runExperiment(experiment, parseParams(readOnly, { ...SMALL, ...given }));
}

function figure({ measurement }: ResultDocument, name: string): unknown {
  return measurement?.figures.find((one) => one.name === name)?.value;
}

describe('read-only', () => {
  test.each([
    {},
    { seed: 7, stride: 5 },
    { seed: 2 ** 32 - 1, stride: 2 ** 20 },
    { children: 1, rounds: 1 },
    { children: 8 },
    { rounds: 7 },
    { object: 16 },
    { object: 4096 },
    { object: 3 * 4096 },
    { object: PAGES * 4096 },
    { size: 4096 },
    { size: 17 * 4096 },
  ])('every figure equals the model, and what is worked out by hand, with %o', async (given) => {
    const result = await run(given);
    expect(result.reason).toMatch(/checks agree/);
    expect(result.verdict).toBe('pass');
    expect(result.checks.filter(({ basis }) => basis === 'anchor')).toHaveLength(15);
    // KSM came to smaps with Linux 6.8.
    const shown = isAtLeast(result.facts?.kernelVersion ?? [0, 0], [6, 8]);
    const unknown = shown ? / Referenced$/ : / (Referenced|KSM)$/;
    const unchecked = result.checks.filter(({ pass }) => pass === null).map(({ name }) => name);
    expect(unchecked.filter((name) => !unknown.test(name))).toEqual([]);
  });

  test('reading copies nothing in any order, and no read of private memory faults', async () => {
    const result = await run();
    expect(figure(result, 'data: pages copied')).toBe(0);
    expect(figure(result, 'data: growth of the sum of Pss')).toBe(0);
    const reads = result.samples.filter(({ data }) => data === 'data, private memory');
    // Three children, three rounds, and each child has read in each of the three orders.
    expect(new Set(reads.map((row) => `${String(row['process'])} ${String(row['order'])}`)).size).toBe(9);
    expect(reads.map((row) => row['minor faults of the step'])).toEqual(reads.map(() => 0));
  });

  test.each(['shared data', 'mapped file'])(
    'the first read of %s faults once for 16 pages, no later one does, and none copies',
    async (kind) => {
      const result = await run();
      // 600 pages are 37.5 windows of 16.
      expect(figure(result, `${kind}: faults of the first round`)).toBe(3 * 38);
      expect(figure(result, `${kind}: faults of later rounds`)).toBe(0);
      expect(figure(result, `${kind}: pages copied`)).toBe(0);
    },
  );

  test('counts inside the objects make each child copy everything, and counts apart the table alone', async () => {
    const result = await run();
    expect(figure(result, 'counts inside: pages copied')).toBe(3 * 600);
    expect(figure(result, 'counts inside: growth of the sum of Pss')).toBe(3 * 600 * 4);
    // 600 pages of 64 objects, each with a count of 8 bytes: 75 pages of counts.
    expect(figure(result, 'counts apart: pages copied')).toBe(3 * 75);
    expect(result.claim.inShort).toMatch(/^Reading copies nothing, .* written by being read, and 7 MiB were copied/);
  });

  test('objects larger than a page have one page each copied, the one with the count', async () => {
    const result = await run({ object: 3 * 4096 });
    expect(figure(result, 'counts inside: pages copied')).toBe(3 * 200);
    expect(figure(result, 'counts apart: pages copied')).toBe(3 * 1);
  });

  test('the prediction alone is what the kernel then does', async () => {
    const facts = readHostFacts(process.pid);
    const predicted = await predictExperiment(readOnly, parseParams(readOnly, SMALL), facts);
    const measured = await run();
    expect(predicted.prediction?.tables).toEqual(measured.measurement?.tables);
    expect(predicted.claim.inShort).toBe(measured.claim.inShort);
  });

  test('its result is of the published schema', async () => {
    const again: unknown = JSON.parse(JSON.stringify(await run()));
    expect([...Value.Errors(ResultSchema, again)]).toEqual([]);
  });

  test('it is refused, with the reason, when the memory is not there', async () => {
    const result = await run({ size: 2 ** 41, children: 8 });
    expect(result.verdict).toBe('skip');
    expect(result.reason).toMatch(/needs 22 TiB of memory/);
  });

  test.each([
    [{ size: 4097 }, /size must be a multiple of the page size, 4096, not 4097/],
    [{ object: 48 }, /object must divide the page size, 4096, or be a multiple of it, .* not 48/],
    [{ object: 6000 }, /object must divide/],
    [{ size: 8192, object: 3 * 4096 }, /size must be a multiple of object, 12288, so that objects fill it/],
  ])('%o makes no sense, and the error says why', (given, why) => {
    const params = parseParams(readOnly, { ...SMALL, ...given });
    const needs = () => readOnly.needs(params, readHostFacts(process.pid));
    expect(needs).toThrow(RangeError);
    expect(needs).toThrow(why);
  });
});

/** The same object, but for the methods that are given; those of the object keep working on itself. */
function but<T extends object>(target: T, methods: Partial<T>): T {
  return new Proxy(target, {
    get: (_, key) => {
      if (key in methods) return methods[key as keyof T];
      const value: unknown = Reflect.get(target, key, target);
      return typeof value === 'function' ? (value.bind(target) as unknown) : value;
    },
  });
}

/** A machine whose children write one page of the first region, private data, when they read it. */
function cheating(machine: Machine): Machine {
  const cheat = (child: Process): Process =>
    but(child, {
      read: async (region, choice) => {
        if (region.name === 'r1') await child.write(region, { first: 0, pages: 1 });
        return child.read(region, choice);
      },
    });
  return but(machine, { root: but(machine.root, { fork: async () => cheat(await machine.root.fork()) }) });
}

describe('the checks of read-only can fail', () => {
  const noticed = new Set(['reuse-of-shared-pages', 'fork-copies-all', 'no-fault-around']);
  test.each(mutations.filter((mutation) => noticed.has(mutation)))(
    'it goes red when the model believes in %s',
    async (mutation) => {
      expect(await isRedWith(mutation, await run())).toBe(true);
    },
  );

  test('a child that writes one page while it reads is found by hand, although the model goes with it', async () => {
    const cheat = {
      ...readOnly,
      run: (context: Context) => readOnly.run({ ...context, machine: cheating(context.machine) }),
    };
    const result = await run({}, cheat);
    expect(result.verdict).toBe('fail');
    expect(figure(result, 'data: pages copied')).toBe(3);
    expect(failedBases(result)).toEqual(['anchor']);
    expect(result.reason).toMatch(/^data: pages copied, by hand: expected 0 pages, measured 3/);
    expect(result.claim.outcome).toBe('undecided');
  });

  test('a run that forgets the counts is found by hand', async () => {
    const idle = (child: Process): Process => but(child, { write: (region) => child.read(region) });
    const forgetful = (machine: Machine): Machine =>
      but(machine, { root: but(machine.root, { fork: async () => idle(await machine.root.fork()) }) });
    const forgets = {
      ...readOnly,
      run: (context: Context) => readOnly.run({ ...context, machine: forgetful(context.machine) }),
    };
    const result = await run({}, forgets);
    expect(failedBases(result)).toEqual(['anchor']);
    expect(result.reason).toMatch(/^counts inside: pages copied, by hand: expected 1800 pages, measured 0/);
  });
});
