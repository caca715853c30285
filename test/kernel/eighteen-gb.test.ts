import { Value } from 'typebox/value';
import { describe, expect, test } from 'vitest';
import { parseParams } from '../../lib/experiments/define.js';
import { eighteenGb } from '../../lib/experiments/eighteen-gb.js';
import { predictExperiment, runExperiment } from '../../lib/experiments/run.js';
import { mutations } from '../../lib/machine/model/mutation.js';
import { readHostFacts } from '../../lib/proc/host.js';
import { isAtLeast } from '../../lib/proc/system.js';
import { ResultSchema } from '../../lib/schema/result.js';
import type { ResultDocument } from '../../lib/schema/result.js';
import { isRedWith } from './red.js';

const PAGES = 600;
const KB = PAGES * 4;
const SMALL = { size: PAGES * 4096, children: 3, steps: 4 };

function run(given: Record<string, unknown>): Promise<ResultDocument> {
  return runExperiment(eighteenGb, parseParams(eighteenGb, { ...SMALL, ...given }));
}

function kb({ measurement }: ResultDocument, name: string): unknown {
  return measurement?.figures.find((figure) => figure.name === name)?.value;
}

const variants = [{ pattern: 'sequential' }, { pattern: 'random', seed: 7 }, { pattern: 'stride', stride: 3 }].flatMap(
  (order) =>
    ['same', 'disjoint'].flatMap((overlap) =>
      ['children', 'parent', 'both'].map((writer) => ({ ...order, overlap, writer })),
    ),
);

/** Where each takes long, as in an emulated machine, every fifth: each value of each parameter is among them. */
const chosen = process.env['COWLAB_SHORT'] === '1' ? variants.filter((_, index) => index % 5 === 0) : variants;

describe('eighteen-gb', () => {
  test.each([...chosen, { children: 1 }, { children: 8, steps: 1 }, { steps: 30 }])(
    'every figure equals the model, and what is worked out by hand, with %o',
    async (variant) => {
      const result = await run(variant);
      expect(result.reason).toMatch(/checks agree/);
      expect(result.verdict).toBe('pass');
      expect(result.checks.filter(({ basis }) => basis === 'anchor')).toHaveLength(6);
      // KSM came to smaps with Linux 6.8.
      const shown = isAtLeast(result.facts?.kernelVersion ?? [0, 0], [6, 8]);
      const unknown = shown ? / Referenced$/ : / (Referenced|KSM)$/;
      const unchecked = result.checks.filter(({ pass }) => pass === null).map(({ name }) => name);
      expect(unchecked.filter((name) => !unknown.test(name))).toEqual([]);
    },
  );

  test('9 times the data are promised by eight forks, once they are used, and 9 times once all have written', async () => {
    const result = await run({ children: 8 });
    for (const moment of ['forked', 'all read', '25%', '100%']) {
      expect(kb(result, `${moment}: promised`)).toBe(9 * KB);
      expect(kb(result, `${moment}: sum of Rss`)).toBe(9 * KB);
    }
    // Each of nine has 1/9 of 600 pages: 266.66 kB, shown as 266.
    expect(kb(result, 'forked: sum of Pss')).toBe(9 * 266);
    expect(kb(result, 'all read: taken')).toBe(9 * 266 - KB);
    // A quarter written by all: each has 600 kB of its own, and a ninth of nothing but what nobody wrote (200 kB).
    expect(kb(result, '25%: sum of Pss')).toBe(9 * (KB / 4 + 200 - 1));
    expect(kb(result, '100%: sum of Pss')).toBe(9 * KB);
    expect(result.claim.inShort).toMatch(/^With 2 GB in the parent and 8 children, 18 GB are promised at the fork/);
    expect(result.claim.inShort).toMatch(/but 2 GB used, .*; 18 GB only once every child has written every page/);
  });

  test.each([
    ['nine that write everything take eight copies, and not nine', { writer: 'both', children: 8 }, 9, 9 * PAGES],
    ['a parent that writes everything takes one copy', { writer: 'parent', children: 8 }, 2, PAGES],
    ['eight that write a part each take one copy', { overlap: 'disjoint', children: 8 }, 2, PAGES],
  ])('%s', async (_, given, times, writes) => {
    const result = await run({ ...given, steps: 1 });
    const pss = Number(kb(result, '100%: sum of Pss'));
    // Nine processes, each rounded down to a whole kB.
    expect(pss).toBeGreaterThan(times * KB - 9);
    expect(pss).toBeLessThanOrEqual(times * KB);
    expect(kb(result, '100%: minor faults')).toBe(writes);
  });

  test('MemAvailable is measured, and nothing is claimed of it', async () => {
    const result = await run({});
    expect(kb(result, '100%: MemAvailable fell by')).toBeTypeOf('number');
    expect(result.checks.filter(({ name }) => name.includes('MemAvailable'))).toEqual([]);
    const named = (name: string) => result.prediction?.figures.find((figure) => figure.name === name)?.value;
    expect(named('100%: MemAvailable fell by')).toHaveProperty('unknown');
  });

  test('the prediction alone says the same in one sentence, at the size of the question too', async () => {
    const facts = readHostFacts(process.pid);
    const small = await predictExperiment(eighteenGb, parseParams(eighteenGb, SMALL), facts);
    expect(small.claim.inShort).toBe((await run({})).claim.inShort);
    const literal = await predictExperiment(eighteenGb, parseParams(eighteenGb, { size: '2GiB' }), facts);
    expect(literal.claim.inShort).toMatch(/18 GB are promised at the fork, but 2 GB used/);
    expect(literal.claim.inShort).not.toMatch(/measured with/);
  });

  test('its result is of the published schema', async () => {
    const again: unknown = JSON.parse(JSON.stringify(await run({})));
    expect([...Value.Errors(ResultSchema, again)]).toEqual([]);
  });
});

describe('eighteen-gb is refused', () => {
  test('where the memory is not there, with what it needs', async () => {
    const result = await run({ size: 2 ** 41, children: 8 });
    expect(result.verdict).toBe('skip');
    expect(result.reason).toMatch(
      /needs 18 TiB of memory and a tenth to spare, and .* are available: choose a smaller/,
    );
    expect(result.trace).toEqual([]);
  });

  test('where strict overcommit would refuse the forks', () => {
    const facts = readHostFacts(process.pid);
    const params = parseParams(eighteenGb, SMALL);
    const limit = (pages: number) => ({
      ...facts,
      overcommitMode: 2 as const,
      committedPages: 0,
      commitLimitPages: pages,
    });
    expect(eighteenGb.needs(params, limit(4 * PAGES)).lacking).toMatch(/strict.* choose a smaller size/);
    expect(eighteenGb.needs(params, limit(4 * PAGES + 1)).lacking).toBeUndefined();
  });

  test.each([
    [{ size: 4097 }, /size must be a multiple of the page size, 4096, not 4097/],
    [{ size: 3 * 4096, steps: 4 }, /size is too small: in 4 steps each writer would write less than a page/],
    [{ size: 15 * 4096, overlap: 'disjoint', steps: 4 }, /size is too small/],
  ])('where %o makes no sense, with the reason', (given, why) => {
    const params = parseParams(eighteenGb, { ...SMALL, ...given });
    const needs = () => eighteenGb.needs(params, readHostFacts(process.pid));
    expect(needs).toThrow(RangeError);
    expect(needs).toThrow(why);
  });
});

describe('the checks of eighteen-gb can fail', () => {
  const noticed = new Set(['fork-keeps-write', 'reuse-of-shared-pages']);
  test.each(mutations.filter((mutation) => noticed.has(mutation)))(
    'it goes red when the model believes in %s',
    async (mutation) => {
      expect(await isRedWith(mutation, await run({ writer: 'both' }))).toBe(true);
    },
  );

  test('a program that lets one child be without the last page is noticed by hand, since the model goes with it', async () => {
    const short = {
      ...eighteenGb,
      run: (context: Parameters<typeof eighteenGb.run>[0]) => {
        const { size } = context.params;
        return eighteenGb.run({ ...context, params: { ...context.params, size: Number(size) - 4096 } });
      },
    };
    const result = await runExperiment(short, parseParams(eighteenGb, SMALL));
    expect(result.verdict).toBe('fail');
    const failed = result.checks.filter(({ pass }) => pass === false);
    expect(failed.map(({ basis }) => basis)).toEqual(failed.map(() => 'anchor'));
    expect(result.claim.outcome).toBe('undecided');
  });
});
