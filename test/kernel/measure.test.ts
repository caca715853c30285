import { describe, expect, test } from 'vitest';
import { defineExperiment, parseParams } from '../../lib/experiments/define.js';
import type { Measurement } from '../../lib/experiments/define.js';
import { predictExperiment, runExperiment } from '../../lib/experiments/run.js';
import { check } from '../../lib/machine/compare.js';
import { readHostFacts } from '../../lib/proc/host.js';

const closed: string[] = [];

/** One page is modelled, and `found` is measured beside it. */
function experimentWith(found: number, measure?: () => Promise<Measurement>) {
  return defineExperiment({
    name: 'beside',
    title: 'Is what no model predicts joined to what one does?',
    claim: { text: 'it is', source: 'test/kernel/measure.test.ts' },
    params: {},
    needs: () => ({ memoryBytes: 4096 }),
    async run({ machine }) {
      const region = await machine.root.map({ pages: 1 });
      await machine.root.write(region);
      await machine.observe('written');
      const figure = { name: 'modelled', unit: 'pages', value: 1, headline: true };
      return { figures: [figure], tables: [], plots: [], notes: ['of run'] };
    },
    async measure({ machine, findings, sample, closeLater }) {
      closeLater(() => void closed.push('beside'));
      // The root is still there, and what it does now is not replayed.
      await machine.root.map({ pages: 7 });
      sample({ seen: findings.figures.length });
      if (measure) return measure();
      const figure = { name: 'measured', unit: 'us', value: found, headline: true };
      const checks = [check('the two', 'us', 'comparison', 5, found)];
      return { figures: [figure], tables: [], plots: [], notes: ['of measure'], checks };
    },
    conclude: (_findings, agreed) => ({ outcome: agreed ? 'holds' : 'undecided', inShort: 'So it is.' }),
  });
}

describe('what is measured beside the model', () => {
  test('is joined to what run() found, and its checks count', async () => {
    closed.length = 0;
    const experiment = experimentWith(5);
    const result = await runExperiment(experiment, parseParams(experiment, {}));
    expect(result.verdict).toBe('pass');
    expect(result.measurement?.figures.map(({ name }) => name)).toEqual(['modelled', 'measured']);
    expect(result.prediction?.figures.map(({ name }) => name)).toEqual(['modelled']);
    expect(result.measurement?.notes).toEqual(['of run', 'of measure']);
    expect(result.checks.filter(({ basis }) => basis === 'comparison')).toHaveLength(1);
    expect(result.trace.filter(({ step }) => step.op === 'map')).toHaveLength(1);
    expect(result.samples).toEqual([{ seen: 1 }]);
    expect(closed).toEqual(['beside']);
  });

  test('makes the experiment fail when its check does', async () => {
    const experiment = experimentWith(6);
    const result = await runExperiment(experiment, parseParams(experiment, {}));
    expect(result.verdict).toBe('fail');
    expect(result.reason).toBe('the two: expected 5 us, measured 6');
  });

  test('has closed what it opened when it throws', async () => {
    closed.length = 0;
    const experiment = experimentWith(5, () => Promise.reject(new Error('in the middle')));
    await expect(runExperiment(experiment, parseParams(experiment, {}))).rejects.toThrow('in the middle');
    expect(closed).toEqual(['beside']);
  });

  test('is not part of a prediction, which says so', async () => {
    const experiment = experimentWith(5);
    const result = await predictExperiment(experiment, parseParams(experiment, {}), readHostFacts(process.pid));
    expect(result.prediction?.figures.map(({ name }) => name)).toEqual(['modelled']);
    expect(result.prediction?.notes.at(-1)).toMatch(/left out/);
  });
});
