/** Random programs with transparent huge pages, on the kernel and on the model. */
import fc from 'fast-check';
import { beforeAll, expect, test } from 'vitest';
import { describeCheck } from '../../lib/machine/compare.js';
import { hugeMutations } from '../../lib/machine/model/mutation.js';
import { whyNoHugePages } from '../../lib/proc/huge-pages.js';
import { compareWithModel, mismatchesOf } from './property.js';
import type { Comparison } from './property.js';
import { programs } from './programs.js';

const SEED = Number(process.env['COWLAB_SEED'] ?? 7);
const PROGRAMS = Number(process.env['COWLAB_PROGRAMS'] ?? 300);
const TIMEOUT_MS = 1_200_000;

const why = whyNoHugePages();
/** Those during which no huge page was refused, made or taken apart behind our back. */
const quiet: Comparison[] = [];

beforeAll(async () => {
  if (why !== undefined) return;
  for (const steps of fc.sample(programs, { seed: SEED, numRuns: PROGRAMS })) {
    const run = await compareWithModel(steps, true);
    if (run.disturbed.length === 0) quiet.push(run);
  }
}, TIMEOUT_MS);

test(`kernel and model agree on every figure and fault of ${String(PROGRAMS)} programs with huge pages`, ({ skip }) => {
  if (why !== undefined) skip(why);
  for (const { mismatches, trace } of quiet) {
    const steps = trace.map(({ step }, index) => `${String(index + 1)} ${JSON.stringify(step)}`);
    expect(mismatches.map(describeCheck).slice(0, 8), steps.join('\n')).toEqual([]);
  }
});

test('most of them were undisturbed, and had huge pages', ({ skip }) => {
  if (why !== undefined) skip(why);
  expect(quiet.length).toBeGreaterThan(PROGRAMS / 2);
  const huge = quiet.filter(({ trace }) => /"AnonHugePages":[1-9]/.exec(JSON.stringify(trace)));
  expect(huge.length).toBeGreaterThan(PROGRAMS / 4);
});

test.for(hugeMutations)('a model with one wrong rule is caught by such programs: %s', async (mutation, { skip }) => {
  if (why !== undefined) skip(why);
  for (const run of quiet) if ((await mismatchesOf(run, { mutation })).length > 0) return;
  expect.unreachable(`no program noticed the wrong rule ${mutation}`);
});
