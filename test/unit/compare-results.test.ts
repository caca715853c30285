/** Two results side by side: every difference is found, and what is the same is not called different. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { comparisonText, runCompare } from '../../lib/cli/compare.js';
import { experiments } from '../../lib/experiments/catalogue.js';
import { compareResults, pairResults } from '../../lib/experiments/compare-results.js';
import { cowGrowth } from '../../lib/experiments/cow-growth.js';
import { parseParams } from '../../lib/experiments/define.js';
import type { AnyExperiment } from '../../lib/experiments/define.js';
import { readOnly } from '../../lib/experiments/read-only.js';
import { predictExperiment } from '../../lib/experiments/run.js';
import type { HostFacts } from '../../lib/schema/facts.js';
import type { ResultDocument } from '../../lib/schema/result.js';
import { testFacts } from '../facts.js';

const SMALL = { size: 2 ** 20, children: 2 };

/** A result of a kernel that did exactly as predicted. */
async function resultOf(experiment: AnyExperiment, given: Record<string, unknown> = {}, facts: HostFacts = testFacts) {
  const document = await predictExperiment(experiment, parseParams(experiment, given), facts);
  return { ...document, measurement: structuredClone(document.prediction) } as ResultDocument;
}

/** The steps of a comparison, which must be comparable. */
function stepsOf(comparison: Awaited<ReturnType<typeof compareResults>>) {
  if ('incomparable' in comparison.steps) expect.unreachable(comparison.steps.incomparable);
  return comparison.steps;
}

function changeFigure({ measurement }: ResultDocument, name: string, value: number): void {
  const figure = measurement?.figures.find((one) => one.name === name);
  if (!figure) expect.unreachable(`there is no ${name}`);
  figure.value = value;
}

describe('a comparison of results', () => {
  test('of the same program in the same conditions finds nothing', async () => {
    const comparison = await compareResults(await resultOf(cowGrowth, SMALL), await resultOf(cowGrowth, SMALL));
    expect(comparison).toMatchObject({ params: [], conditions: [] });
    expect(comparison.figures.differences).toEqual([]);
    expect(comparison.figures.compared).toBeGreaterThan(10);
    expect(stepsOf(comparison).differences).toEqual([]);
    expect(stepsOf(comparison).compared).toBeGreaterThan(100);
  });

  test('of other parameters names them, and the figures that differ as foretold; steps are not compared', async () => {
    const [a, b] = [await resultOf(cowGrowth, SMALL), await resultOf(cowGrowth, { ...SMALL, size: 2 ** 21 })];
    const { params, figures, steps } = await compareResults(a, b);
    expect(params).toEqual([{ name: 'size', a: 2 ** 20, b: 2 ** 21 }]);
    expect(figures.differences.find(({ name }) => name === 'written: minor faults')).toEqual({
      name: 'written: minor faults',
      unit: 'faults',
      a: 256,
      b: 512,
      difference: 256,
      foretold: true,
    });
    expect(steps).toEqual({ incomparable: 'from step 1 on they are not the same' });
  });

  test('of other hosts names the conditions, and each step that the rules explain', async () => {
    const facts: HostFacts = { ...testFacts, kernelRelease: '6.1.0', faultAroundPages: 4, committedPages: 5 };
    const [a, b] = [await resultOf(readOnly, SMALL), await resultOf(readOnly, SMALL, facts)];
    const comparison = await compareResults(a, b);
    expect(comparison.conditions).toEqual([
      { name: 'kernel', a: '6.18.0', b: '6.1.0' },
      { name: 'faultAroundPages', a: 16, b: 4 },
    ]);
    const { differences } = stepsOf(comparison);
    expect(differences.length).toBeGreaterThan(0);
    for (const { name, foretold } of differences) {
      expect(name).toMatch(/minor faults/);
      expect(foretold).toBe(true);
    }
  });

  test('a figure that no model foretold is marked, in the summary and in a step', async () => {
    const [a, b] = [await resultOf(cowGrowth, SMALL), await resultOf(cowGrowth, SMALL)];
    changeFigure(b, 'written: minor faults', 300);
    const region = b.trace.findLast(({ outcome }) => outcome.observation)?.outcome.observation?.processes[1]
      ?.regions[0];
    if (!region) expect.unreachable('there is an observation');
    region.smapsKb['Pss'] = 7;
    const comparison = await compareResults(a, b);
    expect(comparison.figures.differences).toEqual([
      { name: 'written: minor faults', unit: 'faults', a: 256, b: 300, difference: 44, foretold: false },
    ]);
    expect(stepsOf(comparison).differences).toMatchObject([
      { name: expect.stringMatching(/root\.1 r1: Pss$/) as string, b: 7, foretold: false },
    ]);
  });

  test('a figure that one alone has, or does not know, differs; two unknown ones do not', async () => {
    const [a, b] = [await resultOf(cowGrowth, SMALL), await resultOf(cowGrowth, SMALL)];
    const unknown = { unit: 'us', headline: false, value: { unknown: 'not measured' } };
    a.measurement?.figures.push({ name: 'both unknown', ...unknown }, { name: 'a alone', ...unknown, value: 1 });
    b.measurement?.figures.push({ name: 'both unknown', ...unknown }, { name: 'b alone', ...unknown, value: 2 });
    const { differences } = (await compareResults(a, b)).figures;
    expect(differences.map(({ name, a: x, b: y, foretold }) => [name, x, y, foretold])).toEqual([
      ['a alone', 1, null, null],
      ['b alone', null, 2, null],
    ]);
  });

  test('results are paired by experiment, those with the same parameters first', async () => {
    const small = await resultOf(cowGrowth, SMALL);
    const large = await resultOf(cowGrowth, { ...SMALL, size: 2 ** 21 });
    const other = await resultOf(readOnly, SMALL);
    const { pairs, onlyA, onlyB } = pairResults([small, other], [large, small, large]);
    expect(pairs).toEqual([[small, small]]);
    expect(onlyA).toEqual(['read-only']);
    expect(onlyB).toEqual(['cow-growth', 'cow-growth']);
    expect(pairResults([small], [large]).pairs).toEqual([[small, large]]);
  });
});

describe('its text', () => {
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'cowlab-compare-'));
  });
  afterAll(() => {
    rmSync(folder, { recursive: true });
  });

  function save(name: string, content: unknown): string {
    const path = join(folder, name);
    writeFileSync(path, JSON.stringify(content));
    return path;
  }

  test.each(experiments.map((experiment) => [experiment.name, experiment] as const))(
    'of %s fits into 80 columns',
    async (_name, experiment) => {
      const a = await resultOf(experiment);
      const b = await resultOf(experiment, {}, { ...testFacts, kernelRelease: '6.1.0-56-cloud-amd64', cpus: 2 });
      for (const figure of b.measurement?.figures ?? []) {
        if (typeof figure.value === 'number') figure.value += 123_456_789;
      }
      const text = comparisonText(['/a/long/path/of/some/result.json', 'b.json'], await compareResults(a, b), {});
      for (const line of text.split('\n')) expect(Array.from(line).length).toBeLessThanOrEqual(80);
    },
  );

  test('says what differs and by how much, and what is the same', async () => {
    const [a, b] = [await resultOf(cowGrowth, SMALL), await resultOf(cowGrowth, { ...SMALL, size: 2 ** 21 })];
    const { text, exitCode } = await runCompare(save('a.json', a), save('b.json', [b]));
    expect(exitCode).toBe(0);
    expect(text).toMatch(/│ size +│ 1,048,576 │ 2,097,152 │/);
    expect(text).toMatch(/│ written: minor faults +│ +256 │ +512 │ +256 │ faults │ yes/);
    expect(text).toMatch(/The steps cannot be compared: from step 1/);
    const same = await runCompare(save('a.json', a), save('a.json', a));
    expect(same.text).toMatch(
      /Parameters and conditions are the same\.\n\nWhat was measured: \d+ figures, all the same/,
    );
    expect(same.text).toMatch(/Step by step: [\d,]+ figures, all the same/);
  });

  test('files with nothing in common, or that are no results, are refused', async () => {
    const [a, b] = [save('a.json', await resultOf(cowGrowth, SMALL)), save('b.json', await resultOf(readOnly, SMALL))];
    await expect(runCompare(a, b)).rejects.toThrow(/have no experiment in common: cow-growth .* read-only/);
    await expect(runCompare(a, save('c.json', { x: 1 }))).rejects.toThrow(/is not a result of cowlab run --json/);
    await expect(runCompare(a, join(folder, 'nowhere'))).rejects.toThrow(/cannot be read as JSON/);
  });
});
