/** The rules that differ by kernel, played by facts of other versions. The anchors hold on each of them. */
import { describe, expect, it } from 'vitest';
import { kernelRules } from '../../lib/machine/model/kernel-rules.js';
import { modelMachine } from '../../lib/machine/open.js';
import type { HostFacts } from '../../lib/schema/facts.js';
import type { Machine } from '../../lib/machine/machine.js';
import { anchorsFor } from '../anchors.js';
import { testFacts } from '../facts.js';

type Version = HostFacts['kernelVersion'];

function on(kernelVersion: Version): Machine {
  return modelMachine({ ...testFacts, kernelVersion });
}

/** The versions about which a rule changed, and those the model is held against. */
const VERSIONS: Version[] = [
  [6, 1],
  [6, 2],
  [6, 6],
  [6, 7],
  [6, 12],
  [6, 13],
  [6, 14],
  [6, 15],
  [6, 16],
  [7, 0],
];

describe.each(VERSIONS)('the model of Linux %i.%i', (...version) => {
  it.each(anchorsFor(testFacts))('gives what was computed by hand: $name', async ({ run }) => {
    await using machine = on(version);
    await run(machine);
  });
});

it('each rule begins with the version that brought it', () => {
  const begins = (rule: keyof ReturnType<typeof kernelRules>) =>
    VERSIONS.find((kernelVersion) => kernelRules({ ...testFacts, kernelVersion })[rule]);
  expect(begins('unchargesUnwritten')).toEqual([6, 7]);
  expect(begins('mergesWithUnwrittenNeighbour')).toEqual([6, 16]);
  expect(begins('protectsHugeWritable')).toEqual([6, 2]);
  expect(begins('unsharesMerged')).toEqual([6, 2]);
  expect(begins('countsUnreadableHuge')).toEqual([6, 6]);
  expect(begins('replacesHugeZeroPage')).toEqual([6, 13]);
  expect(begins('reclaimsTables')).toEqual([6, 14]);
});

describe('memory made read-only before it was written', () => {
  async function chargeAtFork(version: Version): Promise<unknown> {
    await using machine = on(version);
    const region = await machine.root.map({ pages: 8 });
    await machine.root.protect(region, 'r');
    const { processes } = await machine.observe('read-only');
    return processes[0]?.regions[0]?.vmas;
  }

  it('is charged no more since Linux 6.7', async () => {
    expect(await chargeAtFork([6, 7])).toMatchObject([{ pages: 8, accounted: false }]);
  });

  it('stays charged before, and so does each child', async () => {
    expect(await chargeAtFork([6, 6])).toMatchObject([{ pages: 8, accounted: true }]);
  });
});

describe('a written half that becomes like the unwritten half beside it', () => {
  async function halves(version: Version, inherited: boolean): Promise<number | undefined> {
    await using machine = on(version);
    const { root } = machine;
    const region = await root.map({ pages: 8 });
    await root.advise(region, 'wipeonfork', { first: 4 });
    await root.write(region, { pages: 4 });
    // An inherited anon_vma has the parent's beside it in its chain.
    const process = inherited ? await root.fork() : root;
    await process.advise(region, 'wipeonfork', { pages: 4 });
    const { processes } = await machine.observe('alike');
    return processes.at(-1)?.regions[0]?.vmas.length;
  }

  it('is one VMA with it since Linux 6.16, and not before', async () => {
    expect(await halves([6, 16], false)).toBe(1);
    expect(await halves([6, 15], false)).toBe(2);
  });

  it('stays apart where it was inherited', async () => {
    expect(await halves([6, 16], true)).toBe(2);
    expect(await halves([6, 15], true)).toBe(2);
  });
});
