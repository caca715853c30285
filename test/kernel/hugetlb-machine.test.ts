/** Regions of hugetlb pages on the kernel: the anchors, and random programs beside the model. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { FeatureUnavailableError } from '../../lib/errors.js';
import type { Machine, Region } from '../../lib/machine/machine.js';
import { kernelRules } from '../../lib/machine/model/kernel-rules.js';
import { hugetlbMutations } from '../../lib/machine/model/mutation.js';
import { openMachine } from '../../lib/machine/open.js';
import type { HostFacts } from '../../lib/schema/facts.js';
import type { Trace } from '../../lib/schema/step.js';
import { hugetlbAnchors, NoPoolError } from '../hugetlb-anchors.js';
import { whyNoHugetlb } from '../hugetlb-pool.js';
import { describeMismatches, showSteps, tolerate } from './property.js';

const HUGE = 512;
const POOL = 12;
const SEED = Number(process.env['COWLAB_SEED'] ?? 11);
const PROGRAMS = Number(process.env['COWLAB_PROGRAMS'] ?? 100);
const why = whyNoHugetlb(POOL);

test.for(hugetlbAnchors)('on the kernel: $name', async ({ run }, { skip }) => {
  if (why !== undefined) skip(why);
  const machine = await openMachine({ allow: ['hugetlb'], purpose: 'a test' });
  try {
    await run(machine);
  } catch (error) {
    if (error instanceof NoPoolError) skip('memory is too scattered for a pool');
    throw error;
  } finally {
    await machine.close();
  }
});

test('without leave the pool is not set', async () => {
  const machine = await openMachine();
  try {
    await expect(machine.setHugetlbPages(1)).rejects.toThrow(FeatureUnavailableError);
  } finally {
    await machine.close();
  }
});

/** Numbers choose among the processes and regions that there are. */
interface AbstractStep {
  act: 'map' | 'write' | 'read' | 'fork' | 'unmap' | 'exit';
  who: number;
  what: number;
  huge: number;
  flags: number;
}

const programs = fc.array(
  fc.record({
    act: fc.constantFrom<AbstractStep['act'][]>(
      ...(['map', 'map', 'write', 'write', 'write', 'write', 'read', 'fork', 'fork', 'unmap', 'exit'] as const),
    ),
    who: fc.nat(9),
    what: fc.nat(9),
    huge: fc.integer({ min: 1, max: 8 }),
    flags: fc.nat(15),
  }),
  { minLength: 30, maxLength: 50 },
);

async function takeStep(machine: Machine, { act, who, what, huge, flags }: AbstractStep): Promise<void> {
  // All others end with the root, which therefore has no memory that could fail it.
  const living = machine.processes.filter((process) => process.alive && process !== machine.root);
  const process = living[who % living.length];
  if (!process) return tolerate(machine.root.fork());
  if (act === 'map') {
    const [sharing, noreserve, populate] = [
      flags < 4 ? 'shared' : 'private',
      flags % 3 === 2,
      flags % 5 === 4,
    ] as const;
    return tolerate(process.map({ pages: huge * HUGE, hugetlb: true, sharing, noreserve, populate }));
  }
  if (act === 'fork') return living.length < 5 ? tolerate(process.fork()) : undefined;
  if (act === 'exit') return tolerate(process.exit());
  const regions: [Region, number][] = [...process.regions];
  const [region, pages] = regions[what % Math.max(1, regions.length)] ?? [];
  if (!region || !pages) return undefined;
  if (act === 'unmap') return flags < 6 ? tolerate(process.unmap(region)) : undefined;
  const first = (flags * 97 + huge * HUGE) % pages;
  return tolerate(process[act](region, { first, pages: Math.min(huge * 300, pages - first) }));
}

interface Run {
  trace: Trace;
  facts: HostFacts;
}

async function runOnKernel(steps: readonly AbstractStep[]): Promise<Run | undefined> {
  const machine = await openMachine({ allow: ['hugetlb'], purpose: 'a test' });
  try {
    if ((await machine.setHugetlbPages(POOL)) < POOL) return undefined;
    for (const step of steps) {
      await takeStep(machine, step);
      await machine.observe('after it');
    }
    return { trace: machine.trace, facts: machine.facts };
  } finally {
    await machine.close();
  }
}

describe('random programs', () => {
  const runs: Run[] = [];

  test(
    `kernel and model agree on every figure of ${String(PROGRAMS)} of them`,
    { timeout: 600_000 },
    async ({ skip }) => {
      if (why !== undefined) skip(why);
      for (const steps of fc.sample(programs, { seed: SEED, numRuns: PROGRAMS })) {
        const run = await runOnKernel(steps);
        if (!run) return skip('memory is too scattered for a pool');
        runs.push(run);
        const mismatches = (await describeMismatches(run)).slice(0, 8);
        expect(mismatches, showSteps(run.trace)).toEqual([]);
      }
      const text = JSON.stringify(runs);
      expect(text.split('"signal":"SIGBUS"').length, 'deaths by SIGBUS').toBeGreaterThan(PROGRAMS / 10);
      expect(text.split('"code":"ENOMEM"').length, 'refusals').toBeGreaterThan(PROGRAMS / 4);
    },
  );

  // That no page comes to a robbed child needs a pool that is empty and then not: an anchor has it, few programs do.
  const rare = 'hugetlb-robbed-child-lives';
  test.for(hugetlbMutations.filter((mutation) => mutation !== rare))(
    'notice the wrong rule %s',
    async (mutation, { skip }) => {
      const [first] = runs;
      if (!first) return skip(why ?? 'there are no programs');
      if (mutation === 'hugetlb-owes-nothing' && !kernelRules(first.facts).owesReservations) {
        skip('this kernel owes none');
      }
      for (const run of runs) if ((await describeMismatches(run, mutation)).length > 0) return;
      expect.unreachable(`no program noticed the wrong rule ${mutation}`);
    },
  );
});
