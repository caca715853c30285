/** The JSON Schemas that the package ships hold for what it writes, judged by a validator that is not ours. */
import { Ajv } from 'ajv';
import { describe, expect, test } from 'vitest';
import { findExperiment } from '../../lib/experiments/catalogue.js';
import { parseParams } from '../../lib/experiments/define.js';
import { predictExperiment } from '../../lib/experiments/run.js';
import { PUBLISHED_SCHEMAS } from '../../lib/schema/published.js';
import { assumedFacts } from '../../lib/schema/assumed-facts.js';
import { testFacts } from '../facts.js';

const ajv = new Ajv({ allowUnionTypes: true });
const asWritten = (value: unknown): unknown => JSON.parse(JSON.stringify(value));
const check = {
  result: ajv.compile(asWritten(PUBLISHED_SCHEMAS.result) as object),
  trace: ajv.compile(asWritten(PUBLISHED_SCHEMAS.trace) as object),
  facts: ajv.compile(asWritten(PUBLISHED_SCHEMAS.facts) as object),
};

async function aResult() {
  const experiment = findExperiment('cow-growth');
  if (!experiment) throw new Error('there is no cow-growth');
  return predictExperiment(experiment, parseParams(experiment, { size: '1MiB' }), testFacts);
}

describe('a result', () => {
  test('names the schema that it fits, with its trace and its facts', async () => {
    const result = await aResult();
    expect(result.$schema).toBe((PUBLISHED_SCHEMAS.result as { $id: string }).$id);
    const written = asWritten(result) as typeof result;
    expect(check.result(written), ajv.errorsText(check.result.errors)).toBe(true);
    expect(check.trace(written.trace)).toBe(true);
    expect(check.facts(written.facts)).toBe(true);
  });

  test('of another form does not fit', async () => {
    const result = await aResult();
    expect(check.result(asWritten({ ...result, verdict: 'maybe' }))).toBe(false);
    expect(check.result(asWritten({ ...result, trace: [{ step: { op: 'fly' }, outcome: {} }] }))).toBe(false);
    expect(check.facts(asWritten({ ...testFacts, pageSizeBytes: '4096' }))).toBe(false);
    expect(check.facts(asWritten({ ...testFacts, kernelVersion: [6, 18, 1] }))).toBe(false);
  });
});

test('the facts that are assumed where there is no Linux are facts', () => {
  expect(check.facts(asWritten(assumedFacts(8 * 2 ** 30)))).toBe(true);
  expect(check.facts(asWritten(assumedFacts(2 ** 28)))).toBe(true);
  expect(() => assumedFacts(0)).toThrow(/memoryBytes/);
});
