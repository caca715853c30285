/** Results to make reports of: one as the model predicts it, one measured and made up, one that wants to do harm. */
import { cowGrowth } from '../lib/experiments/cow-growth.js';
import { parseParams } from '../lib/experiments/define.js';
import { predictExperiment } from '../lib/experiments/run.js';
import { compareTraces } from '../lib/machine/compare.js';
import type { ResultDocument } from '../lib/schema/result.js';
import { testFacts } from './facts.js';

/** What the model says of a small parent and two children. */
export function predictedResult(params: Record<string, string> = {}): Promise<ResultDocument> {
  const given = { size: '8MiB', children: '2', steps: '2', ...params };
  return predictExperiment(cowGrowth, parseParams(cowGrowth, given), testFacts);
}

/** The same as if it had been measured just so, but for what `alter` changes. */
export async function measuredResult(
  alter: (result: ResultDocument) => void = () => undefined,
  params: Record<string, string> = {},
): Promise<ResultDocument> {
  const predicted = await predictedResult(params);
  const result = structuredClone(predicted);
  if (predicted.prediction) result.measurement = structuredClone(predicted.prediction);
  alter(result);
  const checks = compareTraces(predicted.trace, result.trace);
  const verdict = checks.some(({ pass }) => pass === false) ? ('fail' as const) : ('pass' as const);
  return { ...result, checks, verdict, reason: verdict === 'fail' ? 'a page was not as predicted' : '' };
}

export const HOSTILE_TEXT = '"><script>document.title = "harmed"</script><img src=x onerror=alert(1)> ]]> ` | @someone';

/** A valid result whose every free text is hostile, and whose source is a script. */
export async function hostileResult(): Promise<ResultDocument> {
  const result = await measuredResult();
  const poison = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(poison);
    if (typeof value !== 'object' || value === null) return value;
    return Object.fromEntries(
      Object.entries(value).map(([key, inner]) => [key, FREE.has(key) ? HOSTILE_TEXT : poison(inner)]),
    );
  };
  const poisoned = poison(result) as ResultDocument;
  const table = { title: HOSTILE_TEXT, columns: [HOSTILE_TEXT], rows: [[HOSTILE_TEXT]] };
  const plot = {
    title: HOSTILE_TEXT,
    xLabel: HOSTILE_TEXT,
    yLabel: HOSTILE_TEXT,
    x: [1],
    series: [{ name: HOSTILE_TEXT, y: [1] }],
  };
  return {
    ...poisoned,
    params: { [HOSTILE_TEXT]: HOSTILE_TEXT },
    claim: { ...poisoned.claim, source: 'javascript:document.title="harmed"' },
    measurement: { figures: [], tables: [table], plots: [plot], notes: [HOSTILE_TEXT] },
    samples: [{ [HOSTILE_TEXT]: HOSTILE_TEXT }],
  };
}

const FREE = new Set([
  ...['experiment', 'title', 'text', 'inShort', 'reason', 'kernel', 'arch', 'node', 'cowlab', 'overcommit', 'thp'],
  ...['platform', 'startedAt', 'label', 'why'],
]);
