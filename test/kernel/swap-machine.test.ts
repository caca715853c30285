/** Pages in swap on the kernel: the anchors, and random programs beside the model. */
import fc from 'fast-check';
import { beforeAll, describe, expect, test } from 'vitest';
import { FeatureUnavailableError } from '../../lib/errors.js';
import type { Machine, Region } from '../../lib/machine/machine.js';
import { swapMutations } from '../../lib/machine/model/mutation.js';
import { openMachine } from '../../lib/machine/open.js';
import type { HostFacts } from '../../lib/schema/facts.js';
import type { Trace } from '../../lib/schema/step.js';
import { swapAnchors } from '../swap-anchors.js';
import { whyNoExactSwap } from '../swap.js';
import { describeMismatches, showSteps, tolerate } from './property.js';

const SWAP_PAGES = 8192;
const SEED = Number(process.env['COWLAB_SEED'] ?? 13);
const PROGRAMS = Number(process.env['COWLAB_PROGRAMS'] ?? 60);

let why: string | undefined;
beforeAll(async () => {
  why = await whyNoExactSwap();
});

test.for(swapAnchors)('on the kernel: $name', async ({ run }, { skip }) => {
  if (why !== undefined) skip(why);
  const machine = await openMachine({ allow: ['swap'], purpose: 'a test' });
  try {
    await run(machine);
    expect(machine.disturbances()).toEqual([]);
  } finally {
    await machine.close();
  }
});

test('without leave no swap is added', async ({ skip }) => {
  if (why !== undefined) skip(why);
  const machine = await openMachine();
  try {
    await expect(machine.addSwap(100)).rejects.toThrow(FeatureUnavailableError);
  } finally {
    await machine.close();
  }
});

test('without swap pageout leaves anonymous memory as it is, as the model says', async ({ skip }) => {
  const machine = await openMachine();
  try {
    if (machine.facts.swapTotalPages > 0) skip('there is swap');
    const region = await machine.root.map({ pages: 100 });
    await machine.root.write(region);
    await machine.root.advise(region, 'pageout');
    await machine.observe('after it');
    expect(await describeMismatches({ trace: machine.trace, facts: machine.facts })).toEqual([]);
  } finally {
    await machine.close();
  }
});

const ACTS = [
  ...(['map', 'write', 'write', 'write', 'read', 'read', 'read', 'pageout', 'pageout', 'pageout', 'pageout'] as const),
  ...(['fork', 'fork', 'exit', 'unmap', 'dontneed', 'protect', 'protect', 'grow', 'populate'] as const),
];

/** Numbers choose among the processes and regions that there are. */
interface AbstractStep {
  act: (typeof ACTS)[number];
  who: number;
  what: number;
  first: number;
  pages: number;
  flags: number;
}

const programs = fc.array(
  fc.record({
    act: fc.constantFrom<AbstractStep['act'][]>(...ACTS),
    who: fc.nat(9),
    what: fc.nat(9),
    first: fc.nat(149),
    pages: fc.integer({ min: 1, max: 150 }),
    flags: fc.nat(15),
  }),
  { minLength: 40, maxLength: 70 },
);

async function takeStep(machine: Machine, { act, who, what, first, pages, flags }: AbstractStep): Promise<void> {
  // All others end with the root, which therefore has no memory that could fail it.
  const living = machine.processes.filter((process) => process.alive && process !== machine.root);
  const process = living[who % living.length];
  if (!process) return tolerate(machine.root.fork());
  if (act === 'fork') return living.length < 5 ? tolerate(process.fork()) : undefined;
  if (act === 'exit') return flags < 8 ? tolerate(process.exit()) : undefined;
  const regions: [Region, number][] = [...process.regions];
  const [region, length] = regions[what % Math.max(1, regions.length)] ?? [];
  if (!region || !length || act === 'map') return tolerate(process.map({ pages: 150 }));
  const range = { first, pages: Math.min(pages, length - first) };
  switch (act) {
    case 'write':
    case 'read':
      return tolerate(process[act](region, { ...range, pattern: flags < 8 ? 'sequential' : 'random', seed: flags }));
    case 'pageout':
    case 'dontneed':
      return tolerate(process.advise(region, act, range));
    case 'populate': {
      const kind = flags < 8 ? 'populate-read' : 'populate-write';
      return tolerate(process.advise(region, kind, range));
    }
    case 'protect':
      return tolerate(process.protect(region, flags < 4 ? 'none' : flags < 9 ? 'r' : 'rw', range));
    case 'grow':
      return length < 400 && flags < 6 ? tolerate(process.grow(region, length + 50)) : undefined;
    case 'unmap':
      return flags < 3 ? tolerate(process.unmap(region)) : undefined;
  }
}

interface Run {
  trace: Trace;
  facts: HostFacts;
  disturbed: string[];
}

async function runOnKernel(steps: readonly AbstractStep[]): Promise<Run> {
  const machine = await openMachine({ allow: ['swap'], purpose: 'a test' });
  try {
    await machine.addSwap(SWAP_PAGES);
    for (const step of steps) {
      await takeStep(machine, step);
      await machine.observe('after it');
    }
    return { trace: machine.trace, facts: machine.facts, disturbed: machine.disturbances() };
  } finally {
    await machine.close();
  }
}

describe('random programs', () => {
  const quiet: Run[] = [];

  test(
    `kernel and model agree on every figure of ${String(PROGRAMS)} of them`,
    { timeout: 600_000 },
    async ({ skip }) => {
      if (why !== undefined) skip(why);
      for (const steps of fc.sample(programs, { seed: SEED, numRuns: PROGRAMS })) {
        const run = await runOnKernel(steps);
        if (run.disturbed.length > 0) continue;
        quiet.push(run);
        const mismatches = (await describeMismatches(run)).slice(0, 8);
        expect(mismatches, showSteps(run.trace)).toEqual([]);
      }
      expect(quiet.length).toBeGreaterThan(PROGRAMS / 2);
      const pagesShared = JSON.stringify(quiet).split('"swapped"').length;
      expect(pagesShared, 'runs of pages in swap').toBeGreaterThan(10 * PROGRAMS);
    },
  );

  test.for(swapMutations)('notice the wrong rule %s', async (mutation, { skip }) => {
    if (quiet.length === 0) skip(why ?? 'there are no programs');
    for (const run of quiet) if ((await describeMismatches(run, mutation)).length > 0) return;
    expect.unreachable(`no program noticed the wrong rule ${mutation}`);
  });
});
