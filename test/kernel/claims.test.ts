/** The claims that are programs against Machine alone: eighteen-gb and read-only. */
import { describe, expect, test } from 'vitest';
import { parseParams } from '../../lib/experiments/define.js';
import type { AnyExperiment } from '../../lib/experiments/define.js';
import { eighteenGb } from '../../lib/experiments/eighteen-gb.js';
import { readOnly } from '../../lib/experiments/read-only.js';
import { predictExperiment, runExperiment } from '../../lib/experiments/run.js';
import { compareTraces } from '../../lib/machine/compare.js';
import type { Mutation } from '../../lib/machine/model/mutation.js';
import { replayOnLinux, replayOnModel } from '../../lib/machine/open.js';
import { readHostFacts } from '../../lib/proc/host.js';
import type { ResultDocument } from '../../lib/schema/result.js';

function run(experiment: AnyExperiment, given: Record<string, unknown>): Promise<ResultDocument> {
  return runExperiment(experiment, parseParams(experiment, given));
}

function figure({ measurement }: ResultDocument, name: string): unknown {
  const found = measurement?.figures.find((one) => one.name === name);
  if (!found) expect.unreachable(`there is no figure ${name}`);
  return found.value;
}

async function failsWith(mutation: Mutation, { trace, facts }: ResultDocument): Promise<boolean> {
  if (!facts) expect.unreachable('it ran');
  const checks = compareTraces(await replayOnModel(trace, facts, { mutation }), trace);
  return checks.some(({ pass }) => pass === false);
}

describe('eighteen-gb', () => {
  // 900 pages in nine processes: the literal case at 1/582.
  const SMALL = { size: 900 * 4096 };

  test.each([
    { pattern: 'sequential' },
    { pattern: 'random', seed: 9 },
    { children: 1, steps: 1 },
    { children: 3, steps: 7 },
  ])('every figure equals the model with %o', async (variant) => {
    const result = await run(eighteenGb, { ...SMALL, ...variant });
    expect(result.reason).toMatch(/checks agree/);
    expect(result.verdict).toBe('pass');
  });

  test('nine times the data is promised from the fork on, and used only when all is written by all', async () => {
    const result = await run(eighteenGb, SMALL);
    // By hand, 3600 kB a process. A ninth of a page is 455 and a fraction of 4096 bytes: 900 of them are 399 kB.
    expect(figure(result, '0% written: commit charge')).toBe(9 * 3600);
    expect(figure(result, '0% written: sum of Rss')).toBe(9 * 3600);
    expect(figure(result, '0% written: sum of Pss (memory used)')).toBe(9 * 399);
    expect(figure(result, '50% written: commit charge')).toBe(9 * 3600);
    // Each child has half of it for itself; a page that all eight copied is the parent's alone, the others are ninths.
    expect(figure(result, '50% written: sum of Pss (memory used)')).toBe(9 * (1800 + 199));
    expect(figure(result, '100% written: sum of Pss (memory used)')).toBe(9 * 3600);
    expect(result.claim).toMatchObject({ outcome: 'holds only if' });
    expect(result.claim.inShort).toMatch(/^9 x 3.52 MiB = 31.6 MiB are promised at the fork, but 3.51 MiB are used/);
  });

  test('what the whole machine has available is shown, and decides nothing', async () => {
    const result = await run(eighteenGb, SMALL);
    expect(figure(result, '100% written: MemAvailable fell by')).toEqual(expect.any(Number));
    const judged = result.checks.filter(({ name, pass }) => name.includes('MemAvailable') && pass !== null);
    expect(judged).toEqual([]);
  });

  test('the literal case is refused, with the reason, where there is no room for it', async () => {
    const result = await run(eighteenGb, { size: 2 ** 41 });
    expect(result.verdict).toBe('skip');
    expect(result.reason).toMatch(/needs 18 TiB of memory and a tenth to spare.*choose a smaller size/);
  });

  test('a size that is no whole number of pages is refused', () => {
    const facts = readHostFacts(process.pid);
    const params = parseParams(eighteenGb, { size: 5000 });
    expect(() => eighteenGb.needs(params, facts)).toThrow(/multiple of the page size/);
  });

  test.each<Mutation>(['reuse-of-shared-pages'])('goes red when the model believes in %s', async (m) => {
    expect(await failsWith(m, await run(eighteenGb, { ...SMALL, children: 2 }))).toBe(true);
  });
});

describe('read-only', () => {
  const SMALL = { size: 512 * 4096, children: 3 };

  test.each([
    {},
    { rounds: 1, object: 16 },
    { object: 4096, stride: 7, seed: 5 },
    { object: 16384 },
    { object: 2 ** 21, children: 1 },
    { size: 7 * 4096, object: 512 },
  ])('every figure equals the model with %o', async (variant) => {
    const result = await run(readOnly, { ...SMALL, ...variant });
    expect(result.reason).toMatch(/checks agree/);
    expect(result.verdict).toBe('pass');
  });

  test('reading copies no page and faults not, and a count in each object copies every page', async () => {
    const result = await run(readOnly, { ...SMALL, object: 256 });
    expect(figure(result, 'read, private: minor faults')).toBe(0);
    expect(figure(result, 'read, private: growth of the sum of Pss')).toBe(0);
    expect(figure(result, 'read, private: pages copied by a child')).toBe(0);
    // One fault maps the 16 pages of a window; each of the three children needs all 32 windows.
    expect(figure(result, 'read, MAP_SHARED: minor faults')).toBe(3 * 32);
    expect(figure(result, 'count in each object: pages copied by a child')).toBe(512);
    expect(figure(result, 'count in each object: minor faults')).toBe(3 * 512);
    // 8192 objects of 256 bytes have 8192 counts of 8 bytes: 16 pages.
    expect(figure(result, 'counts kept apart: pages copied by a child')).toBe(16);
    expect(figure(result, 'counts kept apart: growth of the sum of Pss')).toBe(3 * 16 * 4);
  });

  test('objects larger than a page are counted on their first page alone', async () => {
    const result = await run(readOnly, { ...SMALL, object: 4 * 4096 });
    expect(figure(result, 'count in each object: pages copied by a child')).toBe(512 / 4);
  });

  test('a child that writes one page where it should read is found out', async () => {
    const honest = await run(readOnly, SMALL);
    if (!honest.facts) expect.unreachable('it ran');
    const at = honest.trace.findIndex(({ step }) => step.op === 'read');
    const cheating = honest.trace.map(({ step, outcome }, index) => {
      if (index !== at || step.op !== 'read') return { step, outcome };
      return { step: { ...step, op: 'write' as const, selection: { ...step.selection, from: 0, to: 1 } }, outcome };
    });
    const { trace } = await replayOnLinux(cheating);
    // It says that it has read.
    const claimed = trace.map(({ step, outcome }, index) => ({ step: honest.trace[index]?.step ?? step, outcome }));
    const predicted = await replayOnModel(honest.trace, honest.facts);
    const failed = compareTraces(predicted, claimed).filter(({ pass }) => pass === false);
    expect(failed.map(({ name }) => name).join('\n')).toMatch(/exclusive/);
  });

  test.each<Mutation>(['reuse-of-shared-pages', 'no-fault-around'])(
    'goes red when the model believes in %s',
    async (mutation) => {
      expect(await failsWith(mutation, await run(readOnly, SMALL))).toBe(true);
    },
  );

  test.each([
    [{ size: 5000 }, /multiple of the page size/],
    [{ object: 24 }, /power of two/],
    [{ size: 4096, object: 8192 }, /must not be larger than size/],
  ])('%o is refused', (given, message) => {
    const facts = readHostFacts(process.pid);
    expect(() => readOnly.needs(parseParams(readOnly, given), facts)).toThrow(message);
  });
});

test.each([eighteenGb, readOnly])('the prediction of $name alone is what the kernel then does', async (experiment) => {
  const given = { size: 64 * 4096, children: 2 };
  const { facts, measurement } = await run(experiment, given);
  if (!facts) expect.unreachable('it ran');
  const predicted = await predictExperiment(experiment, parseParams(experiment, given), facts);
  const known = predicted.prediction?.figures.filter(({ value }) => typeof value === 'number') ?? [];
  expect(known.length).toBeGreaterThan(5);
  for (const { name, value } of known) {
    expect(measurement?.figures.find((one) => one.name === name)?.value, name).toEqual(value);
  }
  expect(predicted.claim.inShort.length).toBeGreaterThan(50);
});
