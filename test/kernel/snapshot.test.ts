import { Value } from 'typebox/value';
import { describe, expect, test } from 'vitest';
import { parseParams } from '../../lib/experiments/define.js';
import { KeyStore } from '../../lib/experiments/key-writes.js';
import { runExperiment } from '../../lib/experiments/run.js';
import { snapshot } from '../../lib/experiments/snapshot.js';
import { readHostFacts } from '../../lib/proc/host.js';
import { ResultSchema } from '../../lib/schema/result.js';
import type { ResultDocument } from '../../lib/schema/result.js';
import { failedBases, isRedWith, withRoot } from './red.js';

const PAGES = 301;
const SMALL = { size: PAGES * 4096, rounds: 3 };

function run(given: Record<string, unknown> = {}, experiment = snapshot): Promise<ResultDocument> {
  return runExperiment(experiment, parseParams(snapshot, { ...SMALL, ...given }));
}

function figure({ measurement }: ResultDocument, name: string): unknown {
  return measurement?.figures.find((one) => one.name === name)?.value;
}

describe('snapshot', () => {
  test.each([{}, { keys: 1, skew: 200 }, { seed: 9, writes: 37 }, { size: 4096 }, { rounds: 8, writes: 1 }])(
    'every figure equals the model, and what the choice of keys says by hand, with %o',
    async (given) => {
      const result = await run(given);
      expect(result.reason).toMatch(/checks agree/);
      expect(result.verdict).toBe('pass');
      const { rounds } = { ...SMALL, ...given };
      // Two laws, and six figures of each snapshot.
      expect(result.checks.filter(({ basis }) => basis === 'anchor')).toHaveLength(2 * rounds * 6);
      expect([...Value.Errors(ResultSchema, JSON.parse(JSON.stringify(result)))]).toEqual([]);
    },
  );

  test('pages that are written while the child lives are copied, and later ones are not', async () => {
    const result = await run();
    for (const [law, exponent] of [
      ['uniform', 0],
      ['skewed', 0.99],
    ] as const) {
      const store = new KeyStore({ pages: PAGES, keysPerPage: 16, exponent, seed: 1 });
      const distinct = new Set(store.pagesOfWrites(PAGES * 2)).size;
      const name = `${law} keys, 200%`;
      expect(figure(result, `${name}: copied`)).toBe(distinct * 4);
      expect(figure(result, `${name}: peak`)).toBe((PAGES + distinct) * 4);
      expect(figure(result, `${name}: faults after the child has ended`)).toBe(PAGES - distinct);
      expect(figure(result, `${name}: taken after the child has ended`)).toBe(0);
    }
  });

  test('twice the memory is the bound, which writes everywhere come to', async () => {
    const result = await run({ rounds: 1, writes: 10_000 });
    expect(figure(result, 'uniform keys, 10000%: peak')).toBe(2 * PAGES * 4);
    expect(result.claim.outcome).toBe('holds only if');
    expect(result.claim.inShort).toContain('2.00 times the data if keys are uniform');
  });

  test('sizes that are no pages, and more keys than have a place, are refused', () => {
    const needs = (given: Record<string, unknown>) => () =>
      snapshot.needs(parseParams(snapshot, given), readHostFacts(process.pid));
    expect(needs({ size: 4097 })).toThrow(/size must be a multiple of the page size/);
    expect(needs({ size: 2 ** 36, keys: 17 })).toThrow(/keys: 285,212,672 are in the data/);
  });
});

describe('its checks can fail', () => {
  test.each(['fork-keeps-write', 'reuse-of-shared-pages'] as const)(
    'it goes red when the model believes in %s',
    async (mutation) => {
      expect(await isRedWith(mutation, await run())).toBe(true);
    },
  );

  test('a parent that leaves a page out is found by hand, although the model goes with it', async () => {
    const lazy = withRoot(snapshot, (root) => {
      let left = false;
      const write = root.write.bind(root);
      root.write = (region, choice) => {
        if (left || choice === undefined) return write(region, choice);
        left = true;
        return write(region, { ...choice, from: 1 });
      };
    });
    const result = await run({}, lazy);
    expect(result.verdict).toBe('fail');
    expect(failedBases(result)).toEqual(['anchor']);
  });
});
