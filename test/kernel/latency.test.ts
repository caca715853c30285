import { Value } from 'typebox/value';
import { beforeAll, describe, expect, test } from 'vitest';
import { parseParams } from '../../lib/experiments/define.js';
import { latency } from '../../lib/experiments/latency.js';
import { runExperiment } from '../../lib/experiments/run.js';
import { readHostFacts } from '../../lib/proc/host.js';
import { whyNoHugePages } from '../../lib/proc/huge-pages.js';
import { ResultSchema } from '../../lib/schema/result.js';
import type { ResultDocument } from '../../lib/schema/result.js';
import { failedBases, isRedWith, withRoot } from './red.js';

/** More than one table of page table entries, and no whole number of them. */
const PAGES = 1300;
const KINDS = 5;
/** Two huge pages, and 276 base pages beyond them, where there are huge pages. */
const HUGE = whyNoHugePages() === undefined ? 1 : 0;
const SMALL = { size: PAGES * 4096, rounds: 3 };

function run(given: Record<string, unknown> = {}, experiment = latency): Promise<ResultDocument> {
  return runExperiment(experiment, parseParams(latency, { ...SMALL, ...given }));
}

describe('latency', () => {
  let result: ResultDocument;
  beforeAll(async () => {
    result = await run();
  });

  test('all that is exact agrees with the model, and with what is worked out by hand', () => {
    expect(result.reason).toMatch(/checks agree/);
    expect(result.verdict).toBe('pass');
    // Entries and memory of each kind, and its page tables; those of private memory have bounds.
    const bases = result.checks.map(({ basis }) => basis).filter((basis) => basis !== 'model');
    expect(bases.filter((basis) => basis === 'anchor')).toHaveLength((KINDS + HUGE) * 2 + 4);
    expect(bases.filter((basis) => basis === 'bound')).toHaveLength(1 + HUGE);
    expect([...Value.Errors(ResultSchema, JSON.parse(JSON.stringify(result)))]).toEqual([]);
  });

  test('page table entries are copied of written private memory alone, and memory of none', () => {
    const huge = HUGE === 0 ? [] : [['huge pages', '1,300', String(2 + 276), '0 B']];
    expect(result.measurement?.tables[0]?.rows).toEqual([
      ['private', '1,300', '1,300', '0 B'],
      ...huge,
      ['shared (memfd)', '1,300', '0', '0 B'],
      ['file, only read', '1,300', '0', '0 B'],
      ['DONTFORK', '1,300', '0', '0 B'],
      ['never touched', '0', '0', '0 B'],
    ]);
  });

  test('times are there for each kind and size, and none is checked or predicted', () => {
    const [times] = result.measurement?.tables.slice(1) ?? [];
    expect(times?.columns).toEqual(['memory', '0 B', '1.27 MiB', '2.54 MiB', '5.08 MiB']);
    expect(times?.rows).toHaveLength(KINDS + HUGE);
    for (const cell of times?.rows.flatMap((row) => row.slice(1)) ?? [])
      expect(cell).toMatch(/^\d+\.\d\d ± \d+\.\d\d$/);
    expect(new Set(result.checks.map(({ unit }) => unit))).not.toContain('ns');
    expect(result.prediction?.figures.filter(({ unit }) => unit === 'ns')).toEqual([]);
  });

  test('sizes that are no pages are refused, and all memory is asked for that is there at once', () => {
    const needs = (size: number) => latency.needs(parseParams(latency, { size }), readHostFacts(process.pid));
    expect(() => needs(2 ** 20 + 1)).toThrow(/size must be a multiple of the page size/);
    expect(needs(2 ** 20)).toEqual({ memoryBytes: (4 + HUGE) * 2 ** 20 });
  });
});

describe('its checks can fail', () => {
  test('it goes red when the model believes that a fork copies the page tables of all private memory', async () => {
    expect(await isRedWith('fork-copies-all', await run())).toBe(true);
  });

  test('memory that is not kept from the child is found by hand, although the model goes with it', async () => {
    const everything = withRoot(latency, (root) => {
      const map = root.map.bind(root);
      root.map = (spec) => map({ ...spec, onFork: 'copy' });
    });
    const result = await run({}, everything);
    expect(result.verdict).toBe('fail');
    expect(failedBases(result)).toEqual(['anchor']);
  });
});
