import { Value } from 'typebox/value';
import { describe, expect, test } from 'vitest';
import { advice } from '../../lib/experiments/advice.js';
import { parseParams } from '../../lib/experiments/define.js';
import { predictExperiment, runExperiment } from '../../lib/experiments/run.js';
import { readHostFacts } from '../../lib/proc/host.js';
import { ResultSchema } from '../../lib/schema/result.js';
import type { ResultDocument } from '../../lib/schema/result.js';
import { testFacts } from '../facts.js';
import { whyNoKsmd } from '../ksm-settings.js';
import { whyNoExactSwap } from '../swap.js';
import { failedBases, isRedWith, withChildren, withRoot } from './red.js';

const PAGES = 300;

function run(size = PAGES * 4096, experiment = advice): Promise<ResultDocument> {
  return runExperiment(experiment, parseParams(advice, { size }));
}

describe('advice', () => {
  test.each([PAGES * 4096, 4096, 2 * 2 ** 20])(
    'every figure equals the model, and what is worked out by hand, with %d bytes',
    async (size) => {
      const result = await run(size);
      expect(result.reason).toMatch(/checks agree/);
      expect(result.verdict).toBe('pass');
      expect(result.checks.filter(({ basis }) => basis === 'anchor')).toHaveLength(6 * 5);
      expect([...Value.Errors(ResultSchema, JSON.parse(JSON.stringify(result)))]).toEqual([]);
    },
  );

  test('only DONTFORK is not charged, and only populating for writing spares the writes their faults', async () => {
    const { measurement } = await run();
    expect(measurement?.tables[0]?.rows).toEqual([
      ['none', '300', '300', '0', '300', '1.17 MiB'],
      ['DONTFORK', '0', '0', '0', '0', '0 B'],
      ['WIPEONFORK', '300', '0', '0', '300', '1.17 MiB'],
      ['MERGEABLE', '300', '300', '0', '300', '1.17 MiB'],
      ['child: POPULATE_READ', '300', '300', '0', '300', '1.17 MiB'],
      ['child: POPULATE_WRITE', '300', '300', '300', '0', '1.17 MiB'],
    ]);
  });

  test('sizes that are no pages are refused', () => {
    const needs = () => advice.needs(parseParams(advice, { size: 4097 }), readHostFacts(process.pid));
    expect(needs).toThrow(/size must be a multiple of the page size/);
  });
});

describe('advice with ksm=true', () => {
  test('what both have written alike is merged into one page, and each write copies it again', async ({ skip }) => {
    const why = whyNoKsmd();
    if (why !== undefined) skip(why);
    const params = parseParams(advice, { size: PAGES * 4096, ksm: true });
    const result = await runExperiment(advice, params, { allowSystemChanges: true });
    expect(result.reason).toMatch(/checks agree/);
    expect(result.verdict).toBe('pass');
    expect(result.measurement?.tables[1]?.rows).toEqual([['2.34 MiB', '2 KiB', '0', '300', '1.17 MiB']]);
    expect(result.claim.inShort).toMatch(/2.34 MiB became/);
    for (const mutation of ['merged-pages-are-clean', 'merged-counts-are-local'] as const) {
      expect(await isRedWith(mutation, result), mutation).toBe(true);
    }
  });

  test('it is skipped, with what would allow it, without leave to change the system', async ({ skip }) => {
    if (readHostFacts(process.pid).hasKsm === false) skip('this kernel has no KSM');
    const { verdict, reason } = await runExperiment(advice, parseParams(advice, { ksm: true }));
    expect([verdict, reason]).toEqual(['skip', expect.stringMatching(/ksmd.*--allow-system-changes/)]);
  });
});

describe('advice with swap=true', () => {
  test('what is in swap is shared by the fork, and copied where the child reads and then writes it', async ({
    skip,
  }) => {
    const why = await whyNoExactSwap();
    if (why !== undefined) skip(why);
    const params = parseParams(advice, { size: PAGES * 4096, swap: true });
    const result = await runExperiment(advice, params, { allowSystemChanges: true });
    expect(result.reason).toMatch(/checks agree/);
    expect(result.verdict).toBe('pass');
    expect(result.measurement?.tables[1]?.rows).toEqual([
      ['300', '0 B', '2.34 MiB', '1.17 MiB', '300', '300', '2.34 MiB'],
    ]);
    expect(result.claim.inShort).toMatch(/the sum of Swap is 2.34 MiB, and 1.17 MiB are taken/);
    for (const mutation of ['swap-entries-hold-nothing', 'swap-pss-is-whole'] as const) {
      expect(await isRedWith(mutation, result), mutation).toBe(true);
    }
  });

  test('it is predicted anywhere, and skipped without leave', async () => {
    const params = parseParams(advice, { size: PAGES * 4096, swap: true });
    const { prediction } = await predictExperiment(advice, params, testFacts);
    expect(prediction?.tables[1]?.rows[0]?.slice(0, 4)).toEqual(['300', '0 B', '2.34 MiB', '1.17 MiB']);
    const { verdict, reason } = await runExperiment(advice, params);
    expect([verdict, reason]).toEqual([
      'skip',
      expect.stringMatching(/--allow-system-changes|not been tried|swap already/),
    ]);
  });

  test('ksm beside it, and more than half of the largest swap, are refused; older kernels are told', () => {
    const needs = (params: object, facts = testFacts) => advice.needs(parseParams(advice, { ...params }), facts);
    expect(() => needs({ swap: true, ksm: true })).toThrow(/choose ksm or swap/);
    expect(() => needs({ swap: true, size: 2 ** 29 })).toThrow(/at most 512 MiB/);
    expect(needs({ swap: true }, { ...testFacts, kernelVersion: [6, 12] }).lacking).toMatch(
      /not been tried on Linux 6.12/,
    );
    expect(needs({ swap: true }, { ...testFacts, swapTotalPages: 10 }).lacking).toMatch(/swap already/);
  });
});

describe('its checks can fail', () => {
  test.each(['reuse-of-shared-pages', 'wipeonfork-is-not-inherited'] as const)(
    'it goes red when the model believes in %s',
    async (mutation) => {
      expect(await isRedWith(mutation, await run())).toBe(true);
    },
  );

  test('a child that leaves a page out is found by hand, although the model goes with it', async () => {
    const lazy = withChildren(advice, (child) => {
      const write = child.write.bind(child);
      child.write = (region) => write(region, { from: 1 });
    });
    const result = await run(PAGES * 4096, lazy);
    expect(result.verdict).toBe('fail');
    expect(failedBases(result)).toEqual(['anchor']);
  });

  test('advice that was not given is found by hand, although the model goes with it', async () => {
    const deaf = withRoot(advice, (root) => {
      const read = root.read.bind(root);
      root.advise = (region) => read(region, { to: 1 });
    });
    const result = await run(PAGES * 4096, deaf);
    expect(result.verdict).toBe('fail');
    expect(failedBases(result)).toEqual(['anchor']);
  });
});
