/** One random program on the kernel and on the model, every figure compared. */
import { ProcessEndedError, SystemError } from '../../lib/errors.js';
import { compareTraces, describeCheck } from '../../lib/machine/compare.js';
import { openMachine, replayOnModel } from '../../lib/machine/open.js';
import type { ModelOptions } from '../../lib/machine/model/backend.js';
import type { Mutation } from '../../lib/machine/model/mutation.js';
import type { HostFacts } from '../../lib/schema/facts.js';
import type { Check } from '../../lib/schema/result.js';
import type { Trace } from '../../lib/schema/step.js';
import { runProgram } from './programs.js';
import type { AbstractStep } from './programs.js';

export interface Comparison {
  trace: Trace;
  facts: HostFacts;
  checks: Check[];
  mismatches: Check[];
  /** Page states compared, one for each page of each region of each process of each observation. */
  pages: number;
  /** Swap and its like: the program's figures then prove nothing. */
  disturbed: string[];
}

export async function runOnKernel(
  steps: readonly AbstractStep[],
  hugePages = false,
): Promise<Pick<Comparison, 'trace' | 'facts' | 'disturbed'>> {
  const machine = await openMachine();
  try {
    await runProgram(machine, steps, hugePages);
    return { trace: machine.trace, facts: machine.facts, disturbed: machine.disturbances() };
  } finally {
    await machine.close();
  }
}

/** The figures of a recorded program in which model and kernel differ. */
export async function mismatchesOf({ trace, facts }: Pick<Comparison, 'trace' | 'facts'>, options?: ModelOptions) {
  const checks = compareTraces(await replayOnModel(trace, facts, options), trace);
  return checks.filter(({ pass }) => pass === false);
}

/** The same in words. @param mutation A wrong rule that the model is to believe in. */
export async function describeMismatches(
  run: Pick<Comparison, 'trace' | 'facts'>,
  mutation?: Mutation,
): Promise<string[]> {
  return (await mismatchesOf(run, mutation ? { mutation } : {})).map(describeCheck);
}

/** What a program did, a line each, without its observations. */
export function showSteps(trace: Trace): string {
  const lines = trace.map(({ step }, index) => `${String(index + 1)} ${JSON.stringify(step)}`);
  return lines.filter((line) => !line.includes('observe')).join('\n');
}

/** Refusals and deaths are outcomes, which are compared. @param also What may be thrown besides, before the kernel is asked. */
export async function tolerate(step: Promise<unknown>, also: readonly ErrorConstructor[] = []): Promise<void> {
  await step.catch((error: unknown) => {
    const expected = [SystemError, ProcessEndedError, ...also].some((kind) => error instanceof kind);
    if (!expected) throw error;
  });
}

export async function compareWithModel(steps: readonly AbstractStep[], hugePages = false): Promise<Comparison> {
  const run = await runOnKernel(steps, hugePages);
  const checks = compareTraces(await replayOnModel(run.trace, run.facts), run.trace);
  let pages = 0;
  for (const { outcome } of run.trace) {
    for (const process of outcome.observation?.processes ?? []) {
      for (const region of process.regions) pages += region.pages;
    }
  }
  return { ...run, checks, pages, mismatches: checks.filter(({ pass }) => pass === false) };
}
