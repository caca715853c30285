import fc from 'fast-check';
import { beforeAll, describe, expect, test } from 'vitest';
import { describeCheck } from '../../lib/machine/compare.js';
import { mutations } from '../../lib/machine/model/mutation.js';
import type { Mutation } from '../../lib/machine/model/mutation.js';
import { whyNoFile } from './disk.js';
import { compareWithModel, mismatchesOf, runOnKernel } from './property.js';
import { programs } from './programs.js';

const SEED = 7;
const TIMEOUT_MS = 1_200_000;
/** Fewer where each takes its time, as under emulation: the first 64 notice every wrong rule, without files too. */
const PROGRAMS = Number(process.env['COWLAB_PROGRAMS'] ?? 600);

/** Wrong rules that differ from the right ones only where reads map the zero page. */
const ABOUT_ZERO_PAGES = new Set<Mutation>(['av-set-by-reads', 'zero-page-counts-in-rss']);

/** Wrong rules about advice that not every kernel knows. */
const ABOUT_KSM = new Set<Mutation>(['mergeable-is-not-inherited', 'shared-memory-is-mergeable']);

/** What the kernel did, for the comparisons with wrong models. */
const recorded: Awaited<ReturnType<typeof runOnKernel>>[] = [];

function stepsOf(trace: Awaited<ReturnType<typeof compareWithModel>>['trace']): string {
  return trace.map(({ step }, index) => `${String(index + 1)} ${JSON.stringify(step)}`).join('\n');
}

async function agreeOn(steps: Parameters<typeof compareWithModel>[0]): Promise<void> {
  const { mismatches, trace, facts, disturbed } = await compareWithModel(steps);
  recorded.push({ trace, facts, disturbed });
  if (mismatches.length === 0 || disturbed.length > 0) return;
  throw new Error(`${mismatches.slice(0, 8).map(describeCheck).join('\n')}\n\n${stepsOf(trace)}`);
}

if (process.env['COWLAB_SOAK'] === '1') {
  test('kernel and model agree on random programs until stopped', async () => {
    let [count, checks, pages, mismatched] = [0, 0, 0, 0];
    let seed = Number(process.env['COWLAB_SEED'] ?? Date.now() % 2 ** 31);
    console.log(`first seed ${String(seed)}`);
    for (;;) {
      for (const steps of fc.sample(programs, { seed: seed++, numRuns: 50 })) {
        const result = await compareWithModel(steps);
        count++;
        checks += result.checks.length;
        pages += result.pages;
        if (result.mismatches.length > 0 && result.disturbed.length === 0) {
          mismatched += result.mismatches.length;
          console.log(result.mismatches.slice(0, 4).map(describeCheck).join('\n'));
          console.log(stepsOf(result.trace));
        }
      }
      const figures = `${String(checks)} figures and ${String(pages)} pages checked`;
      console.log(`${String(count)} programs, ${figures}, ${String(mismatched)} mismatches`);
    }
  });
} else {
  test(
    `kernel and model agree on every page, figure and fault of ${String(PROGRAMS)} random programs`,
    { timeout: TIMEOUT_MS },
    async () => {
      await fc.assert(fc.asyncProperty(programs, agreeOn), { seed: SEED, numRuns: PROGRAMS, endOnFailure: false });
    },
  );

  test('some of the programs map a file of a disk', async ({ skip }) => {
    const why = await whyNoFile();
    if (why !== undefined) skip(why);
    const files = recorded.filter(({ trace }) =>
      trace.some(({ step }) => step.op === 'create-object' && step.backing === 'file'),
    );
    expect(files.length).toBeGreaterThan(PROGRAMS / 100);
  });

  describe('a model with one wrong rule is caught by such programs', () => {
    beforeAll(async () => {
      if (recorded.length > 0) return;
      for (const steps of fc.sample(programs, { seed: SEED, numRuns: PROGRAMS })) {
        recorded.push(await runOnKernel(steps));
      }
    }, TIMEOUT_MS);

    test.for(mutations)('%s', async (mutation, { skip }) => {
      const forbidsZeroPage = recorded[0]?.facts.forbidsZeroPage === true;
      if (forbidsZeroPage && ABOUT_ZERO_PAGES.has(mutation)) skip('this kernel forbids the zero page');
      if (recorded[0]?.facts.hasKsm === false && ABOUT_KSM.has(mutation)) skip('this kernel has no KSM');
      for (const run of recorded) {
        if ((await mismatchesOf(run, { mutation })).length > 0) return;
      }
      expect.unreachable(`no program noticed the wrong rule ${mutation}`);
    });
  });
}
