import { Value } from 'typebox/value';
import { describe, expect, test } from 'vitest';
import { parseParams } from '../../lib/experiments/define.js';
import { runExperiment } from '../../lib/experiments/run.js';
import { tree } from '../../lib/experiments/tree.js';
import { readHostFacts } from '../../lib/proc/host.js';
import { ResultSchema } from '../../lib/schema/result.js';
import type { ResultDocument } from '../../lib/schema/result.js';
import { failedBases, isRedWith, withChildren } from './red.js';

const PAGES = 300;
const SMALL = { size: PAGES * 4096, descendants: 3 };

function run(given: Record<string, unknown> = {}, experiment = tree): Promise<ResultDocument> {
  return runExperiment(experiment, parseParams(tree, { ...SMALL, ...given }));
}

describe('tree', () => {
  test.each([{}, { first: 'last' }, { descendants: 2 }, { descendants: 12 }, { size: 4096 }])(
    'every figure equals the model, and what is worked out by hand, with %o',
    async (given) => {
      const result = await run(given);
      expect(result.reason).toMatch(/checks agree/);
      expect(result.verdict).toBe('pass');
      const { descendants } = { ...SMALL, ...given };
      // Two trees in which all write, and two writes of the third; faults and growth of each.
      expect(result.checks.filter(({ basis }) => basis === 'anchor')).toHaveLength(2 * (2 * (descendants + 1) + 2));
      expect([...Value.Errors(ResultSchema, JSON.parse(JSON.stringify(result)))]).toEqual([]);
    },
  );

  test.each(['root', 'last'])('whoever writes last pays faults alone, when the %s writes first', async (first) => {
    const { measurement } = await run({ first });
    const copied = (tree: string) =>
      measurement?.figures.find(({ name }) => name === `${tree}: taken when all have written`)?.value;
    // The sums of Pss begin and end without a remainder to lose but for the four floors at the fork.
    expect(Number(copied('fan'))).toBeGreaterThanOrEqual(3 * PAGES * 4);
    expect(Number(copied('fan'))).toBeLessThanOrEqual(3 * PAGES * 4 + 4);
    expect(copied('chain')).toBe(copied('fan'));
    const lastToWrite = first === 'root' ? 'process 3' : 'root';
    expect(measurement?.tables[0]?.rows.filter(([, , , , amount]) => amount === '0 B')).toEqual([
      ['fan', 'all write', lastToWrite, '300', '0 B', '1.17 MiB'],
      ['chain', 'all write', lastToWrite, '300', '0 B', '1.17 MiB'],
      ['chain', 'the last has ended', 'root', '300', '0 B', '1.17 MiB'],
    ]);
  });

  test('sizes that are no pages are refused', () => {
    const needs = () => tree.needs(parseParams(tree, { size: 4097 }), readHostFacts(process.pid));
    expect(needs).toThrow(/size must be a multiple of the page size/);
  });
});

describe('its checks can fail', () => {
  test.each(['fork-keeps-write', 'reuse-of-shared-pages'] as const)(
    'it goes red when the model believes in %s',
    async (mutation) => {
      expect(await isRedWith(mutation, await run())).toBe(true);
    },
  );

  test('a writer that leaves a page out is found by hand, although the model goes with it', async () => {
    const lazy = withChildren(tree, (child) => {
      const write = child.write.bind(child);
      child.write = (region) => write(region, { from: 1 });
    });
    const result = await run({}, lazy);
    expect(result.verdict).toBe('fail');
    expect(failedBases(result)).toEqual(['anchor']);
  });
});
