import { Value } from 'typebox/value';
import { describe, expect, test } from 'vitest';
import { parseParams } from '../../lib/experiments/define.js';
import { runExperiment } from '../../lib/experiments/run.js';
import { thp } from '../../lib/experiments/thp.js';
import { readHostFacts } from '../../lib/proc/host.js';
import { whyNoHugePages } from '../../lib/proc/huge-pages.js';
import { ResultSchema } from '../../lib/schema/result.js';
import type { ResultDocument } from '../../lib/schema/result.js';
import { failedBases, isRedWith, withChildren, withRoot } from './red.js';

const BLOCKS = 3;
const SMALL = { size: BLOCKS * 2 ** 21 };
const why = whyNoHugePages();

/** Huge pages may be refused, made or split behind our back: such a run decides nothing, and is made again. */
async function run(given: Record<string, unknown> = {}, experiment = thp): Promise<ResultDocument> {
  for (let attempt = 1; ; attempt++) {
    const result = await runExperiment(experiment, parseParams(thp, { ...SMALL, ...given }));
    if (result.verdict !== 'inconclusive' || attempt === 5) return result;
  }
}

describe.skipIf(why !== undefined)(`thp${why === undefined ? '' : `: ${why}`}`, () => {
  test.each(['child', 'parent'])(
    'every figure equals the model, and what is worked out by hand, when the %s writes',
    async (writer) => {
      const result = await run({ writer });
      expect(result.reason).toMatch(/checks agree/);
      expect(result.verdict).toBe('pass');
      expect(result.claim.outcome).toBe('refuted');
      // Three figures of five steps with each kind of page; what a takeover costs has bounds.
      const byHand = result.checks.filter(({ name }) => name.endsWith('by hand'));
      expect(byHand).toHaveLength(2 * 5 * 3);
      expect(byHand.filter(({ basis }) => basis === 'bound')).toHaveLength(writer === 'child' ? 1 : 0);
      expect([...Value.Errors(ResultSchema, JSON.parse(JSON.stringify(result)))]).toEqual([]);
    },
  );

  test('a byte in each huge page copies 4 KiB of each, and the writer alone loses its huge mappings', async () => {
    const { measurement } = await run({ writer: 'parent' });
    expect(measurement?.tables.map(({ rows }) => rows)).toEqual([
      [
        ['parent fills the memory', '1,536', '6 MiB', '0 B'],
        ['fork', '0', '0 B', '0 B'],
        ['a byte in each 2 MiB', '3', '12 KiB', '0 B'],
        ['everything', '1,533', '5.99 MiB', '0 B'],
        ['child ends, parent writes all', '0', '-6 MiB', '0 B'],
      ],
      [
        ['parent fills the memory', '3', '6 MiB', '6 MiB'],
        ['fork', '0', '0 B', '6 MiB'],
        ['a byte in each 2 MiB', '3', '12 KiB', '0 B'],
        ['everything', '1,533', '5.99 MiB', '0 B'],
        ['child ends, parent writes all', '0', '-6 MiB', '0 B'],
      ],
    ]);
  });

  test('sizes that are no whole huge pages are refused', () => {
    const needs = () => thp.needs(parseParams(thp, { size: 2 ** 21 + 4096 }), readHostFacts(process.pid));
    expect(needs).toThrow(/size must be a multiple of the size of a huge page, 2 MiB, not 2101248/);
  });

  test('a host without huge pages is told so, and nothing runs', () => {
    const facts = { ...readHostFacts(process.pid), noHugePages: 'They are turned off.' };
    expect(thp.needs(parseParams(thp, {}), facts).lacking).toBe('They are turned off.');
  });
});

describe.skipIf(why !== undefined)('its checks can fail', () => {
  test.each(['huge-page-is-copied-whole', 'huge-page-is-never-reused', 'reuse-of-shared-pages'] as const)(
    'it goes red when the model believes in %s',
    async (mutation) => {
      expect(await isRedWith(mutation, await run())).toBe(true);
    },
  );

  test('memory of base pages in the place of huge ones is found by hand, although the model goes with it', async () => {
    const small = withRoot(thp, (root) => {
      const map = root.map.bind(root);
      root.map = (spec) => map({ ...spec, hugePages: false });
    });
    const result = await run({}, small);
    expect(result.verdict).toBe('fail');
    expect(failedBases(result)).toContain('anchor');
  });

  test('a child that writes one page more is found by hand, although the model goes with it', async () => {
    const eager = withChildren(thp, (child) => {
      const write = child.write.bind(child);
      child.write = (region, choice) => write(region, choice?.to ? { ...choice, to: choice.to + 1 } : choice);
    });
    const result = await run({}, eager);
    expect(result.verdict).toBe('fail');
    expect(failedBases(result)).toEqual(['anchor']);
  });
});
