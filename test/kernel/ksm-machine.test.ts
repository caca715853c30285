/** Pages that KSM has merged, on the kernel: the anchors, and random programs beside the model. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { FeatureUnavailableError } from '../../lib/errors.js';
import type { Machine, Region } from '../../lib/machine/machine.js';
import { mergeMutations } from '../../lib/machine/model/mutation.js';
import { openMachine, replayOnModel } from '../../lib/machine/open.js';
import { bounds } from '../../lib/schema/figure.js';
import type { HostFacts } from '../../lib/schema/facts.js';
import type { Trace } from '../../lib/schema/step.js';
import { mergeAnchors } from '../ksm-merge-anchors.js';
import { whyNoKsmd } from '../ksm-settings.js';
import { describeMismatches, showSteps, tolerate as tolerateAlso } from './property.js';

const SEED = Number(process.env['COWLAB_SEED'] ?? 5);
const PROGRAMS = Number(process.env['COWLAB_PROGRAMS'] ?? 100);
const why = whyNoKsmd();

test.for(mergeAnchors)('on the kernel: $name', async ({ run }, { skip }) => {
  if (why !== undefined) skip(why);
  const machine = await openMachine({ allow: ['ksm'], purpose: 'a test' });
  try {
    await run(machine);
    expect(machine.disturbances()).toEqual([]);
    expect(await describeMismatches({ trace: machine.trace, facts: machine.facts })).toEqual([]);
  } finally {
    await machine.close();
  }
});

test('without leave nothing is merged', async () => {
  const machine = await openMachine();
  try {
    await expect(machine.mergePages()).rejects.toThrow(FeatureUnavailableError);
  } finally {
    await machine.close();
  }
});

interface Run {
  trace: Trace;
  facts: HostFacts;
}

/** Numbers choose among the processes and regions that there are. */
interface AbstractStep {
  act: 'map' | 'write' | 'read' | 'fork' | 'merge' | 'advise' | 'protect' | 'grow' | 'unmap' | 'exit';
  who: number;
  what: number;
  first: number;
  pages: number;
  kind: number;
}

const ACTS = [
  'map',
  'write',
  'write',
  'write',
  'read',
  'fork',
  'merge',
  'merge',
  'advise',
  'advise',
  'advise',
] as const;
const RARE = ['protect', 'grow', 'unmap', 'exit'] as const;
const ADVICE = [
  'mergeable',
  'mergeable',
  'mergeable',
  'populate-write',
  'unmergeable',
  'dontneed',
  'dontfork',
] as const;

const programs = fc.array(
  fc.record({
    act: fc.constantFrom<AbstractStep['act'][]>(...ACTS, ...ACTS, ...RARE),
    who: fc.nat(9),
    what: fc.nat(9),
    first: fc.nat(40),
    pages: fc.integer({ min: 1, max: 60 }),
    kind: fc.nat(99),
  }),
  { minLength: 25, maxLength: 40 },
);

/** What is not there any more is refused before. */
const tolerate = (step: Promise<unknown>): Promise<void> => tolerateAlso(step, [RangeError]);

async function takeStep(machine: Machine, { act, who, what, first, pages, kind }: AbstractStep): Promise<void> {
  if (act === 'merge') return machine.mergePages();
  // All others end with the root, which therefore has no memory that could fail it.
  const living = machine.processes.filter((process) => process.alive && process !== machine.root);
  const process = living[who % living.length];
  if (!process) return tolerate(machine.root.fork());
  if (act === 'fork') return living.length < 4 ? tolerate(process.fork()) : undefined;
  if (act === 'exit') return tolerate(process.exit());
  if (act === 'map') {
    const region = await process.map({ pages, hugePages: false, populate: kind % 5 === 0 });
    return tolerate(process.advise(region, kind % 4 === 0 ? 'wipeonfork' : 'mergeable'));
  }
  const regions: [Region, number][] = [...process.regions];
  const [region, length] = regions[what % Math.max(1, regions.length)] ?? [];
  if (!region || length === undefined) return undefined;
  const from = kind % 3 === 0 ? 0 : first % length;
  const range = { first: from, pages: kind % 3 === 0 ? length : Math.min(pages, length - from) };
  if (act === 'advise') return tolerate(process.advise(region, ADVICE[kind % 7] ?? 'mergeable', range));
  if (act === 'protect')
    return tolerate(process.protect(region, (['r', 'rw', 'none'] as const)[kind % 3] ?? 'r', range));
  if (act === 'grow') return tolerate(process.grow(region, length + pages));
  if (act === 'unmap') return tolerate(process.unmap(region, range));
  return tolerate(process[act](region, range));
}

async function runOnKernel(steps: readonly AbstractStep[]): Promise<Run> {
  const machine = await openMachine({ allow: ['ksm'], purpose: 'a test' });
  try {
    for (const step of steps) {
      await takeStep(machine, step);
      await machine.observe('after it');
    }
    await machine.mergePages();
    await machine.observe('merged');
    return { trace: machine.trace, facts: machine.facts };
  } finally {
    await machine.close();
  }
}

describe('random programs', () => {
  const runs: Run[] = [];

  test(
    `kernel and model agree on every figure of ${String(PROGRAMS)} of them`,
    { timeout: 1_200_000 },
    async ({ skip }) => {
      if (why !== undefined) skip(why);
      for (const steps of fc.sample(programs, { seed: SEED, numRuns: PROGRAMS })) {
        const run = await runOnKernel(steps);
        runs.push(run);
        expect((await describeMismatches(run)).slice(0, 8), showSteps(run.trace)).toEqual([]);
      }
      const merges = runs.flatMap(({ trace }) => trace.map(({ outcome }) => outcome.merged));
      const some = merges.filter((merged) => bounds(merged?.sharingPages ?? 0).min > 10);
      expect(some.length, 'merges of many pages').toBeGreaterThan(PROGRAMS);
      const known = (await Promise.all(runs.map(({ trace, facts }) => replayOnModel(trace, facts)))).filter((trace) =>
        trace.every(({ outcome }) => typeof (outcome.merged?.sharingPages ?? 0) === 'number'),
      );
      expect(known.length, 'known to the end').toBeGreaterThan(PROGRAMS / 3);
    },
  );

  test.for(mergeMutations)('notice the wrong rule %s', async (mutation, { skip }) => {
    if (runs.length === 0) skip(why ?? 'there are no programs');
    for (const run of runs) if ((await describeMismatches(run, mutation)).length > 0) return;
    expect.unreachable(`no program noticed the wrong rule ${mutation}`);
  });
});
