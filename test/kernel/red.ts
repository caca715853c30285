/** How tests see that the checks of an experiment can fail. */
import { expect } from 'vitest';
import { compareTraces } from '../../lib/machine/compare.js';
import { replayOnModel } from '../../lib/machine/open.js';
import type { Mutation } from '../../lib/machine/model/mutation.js';
import type { ResultDocument } from '../../lib/schema/result.js';

/** Whether a model with a wrong rule contradicts what was measured. */
export async function isRedWith(mutation: Mutation, { trace, facts }: ResultDocument): Promise<boolean> {
  if (!facts) expect.unreachable('it ran');
  const checks = compareTraces(await replayOnModel(trace, facts, { mutation }), trace);
  return checks.some(({ pass }) => pass === false);
}

/** What the checks that failed rest on, each once. */
export function failedBases({ checks }: ResultDocument): string[] {
  return [...new Set(checks.filter(({ pass }) => pass === false).map(({ basis }) => basis))];
}
