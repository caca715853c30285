/** What the model says of mergeable memory where ksmd runs, and where the kernel has no KSM. The anchors say the rest. */
import { describe, expect, it } from 'vitest';
import { advice } from '../../lib/experiments/advice.js';
import { parseParams } from '../../lib/experiments/define.js';
import { predictExperiment } from '../../lib/experiments/run.js';
import type { Machine, Process, Region } from '../../lib/machine/machine.js';
import { mergeMutations } from '../../lib/machine/model/mutation.js';
import { modelMachine } from '../../lib/machine/open.js';
import { isUnknown } from '../../lib/schema/figure.js';
import { at } from '../anchor.js';
import { testFacts } from '../facts.js';
import { noticing } from '../noticing.js';
import { mergeAnchors } from '../ksm-merge-anchors.js';

const withoutKsm = { ...testFacts, hasKsm: false };
const whileRunning = { ...testFacts, ksmRuns: true };

function unknownNames(figures: Record<string, unknown>): string[] {
  return Object.entries(figures).flatMap(([name, figure]) => (isUnknown(figure as number) ? [name] : []));
}

async function mergeable(machine: Machine): Promise<{ root: Process; region: Region }> {
  const { root } = machine;
  const region = await root.map({ pages: 10 });
  await root.write(region, { pages: 8 });
  await root.advise(region, 'mergeable');
  return { root, region };
}

describe('where ksmd runs', () => {
  it('what is present and for how long a region is stays known, with whom its pages are shared does not', async () => {
    await using machine = modelMachine(whileRunning);
    const { root, region } = await mergeable(machine);
    const observation = await machine.observe('advised');
    const { states, counts, smapsKb, vmas } = at(observation, root, region);
    expect(states).toEqual([
      [8, 'unknown'],
      [2, 'not-present'],
    ]);
    expect(counts).toMatchObject({ 'not-present': 2, swapped: 0 });
    expect(unknownNames(counts)).toEqual(['exclusive', 'shared', 'zero']);
    expect(smapsKb['Size']).toBe(40);
    expect(unknownNames(smapsKb)).toEqual(expect.arrayContaining(['Rss', 'Pss', 'Private_Dirty', 'KSM']));
    expect(vmas).toMatchObject([{ pages: 10, mergeable: true }]);
    expect(unknownNames(observation.frames ?? {})).toEqual([region.name]);
  });

  it('so are the faults of accesses and of advice, also after the flag is taken back, and in a child', async () => {
    await using machine = modelMachine(whileRunning);
    const { root, region } = await mergeable(machine);
    const before = await machine.observe('before');
    expect(before.processes).toHaveLength(1);
    const { minorFaults } = await root.advise(region, 'unmergeable');
    expect(isUnknown(minorFaults)).toBe(true);
    const child = await root.fork();
    for (const process of [root, child]) {
      expect(isUnknown((await process.write(region)).minorFaults), process.name).toBe(true);
      expect(isUnknown((await process.read(region)).minorFaults), process.name).toBe(true);
    }
  });

  it('memory that nobody made mergeable, and shared memory, is as exact as ever', async () => {
    await using machine = modelMachine(whileRunning);
    const { root } = await mergeable(machine);
    for (const sharing of ['private', 'shared'] as const) {
      const region = await root.map({ pages: 4, sharing });
      if (sharing === 'shared') await root.advise(region, 'mergeable');
      expect((await root.write(region)).minorFaults).toBe(4);
      const { smapsKb, states } = at(await machine.observe(sharing), root, region);
      expect(smapsKb).toMatchObject({ Rss: 16, Pss: 16, KSM: 0 });
      expect(states).toEqual([[4, 'exclusive']]);
    }
  });

  it('what a cgroup is charged for mergeable memory, and whom its OOM killer takes, is unknown', async () => {
    await using machine = modelMachine(whileRunning);
    await machine.limitCgroup({ memoryMaxBytes: 2 ** 20 });
    const child = await machine.root.fork();
    await child.joinCgroup();
    const region = await child.map({ pages: 1000 });
    await child.advise(region, 'mergeable');
    await child.write(region);
    expect(machine.trace.at(-1)?.outcome.uncertain).toMatch(/pages may be merged/);
  });
});

describe('where the kernel has no KSM', () => {
  it('the advice is refused with EINVAL, for shared memory too, and changes nothing', async () => {
    await using machine = modelMachine(withoutKsm);
    const { root } = machine;
    for (const sharing of ['private', 'shared'] as const) {
      const region = await root.map({ pages: 4, sharing });
      for (const word of ['mergeable', 'unmergeable'] as const) {
        await expect(root.advise(region, word)).rejects.toMatchObject({ code: 'EINVAL', syscall: 'madvise' });
      }
      expect(at(await machine.observe(sharing), root, region).vmas).toHaveLength(1);
    }
  });

  it('the experiment advice leaves the row out, and says so', async () => {
    const { prediction } = await predictExperiment(advice, parseParams(advice, { size: 40_960 }), withoutKsm);
    expect(prediction?.tables[0]?.rows.map(([title]) => title)).not.toContain('MERGEABLE');
    expect(prediction?.notes.join()).toMatch(/MERGEABLE is left out: this kernel has no KSM/);
  });
});

it('where ksmd runs, the experiment advice has the row, of unknown figures, and says why', async () => {
  const { prediction } = await predictExperiment(advice, parseParams(advice, { size: 40_960 }), whileRunning);
  const rows = prediction?.tables[0]?.rows.map(([title, charged, , , writing]) => [title, charged, writing]);
  expect(rows).toContainEqual(['MERGEABLE', '10', 'unknown']);
  expect(rows).toContainEqual(['none', '10', '10']);
  expect(prediction?.notes.join()).toMatch(/ksmd runs/);
});

describe('merged pages', () => {
  it.each(mergeAnchors)('are as was computed by hand: $name', async ({ run }) => {
    await using machine = modelMachine(testFacts);
    await run(machine);
  });

  it.each(mergeAnchors)('and on Linux 6.1: $name', async ({ run }) => {
    await using machine = modelMachine({ ...testFacts, kernelVersion: [6, 1] });
    await run(machine);
  });

  it.each(mergeMutations)('the anchors notice the wrong rule %s', async (mutation) => {
    expect(await noticing(mergeAnchors, testFacts, { mutation })).not.toEqual([]);
  });

  it('more than 256 share one', async () => {
    await using machine = modelMachine(testFacts);
    const { root } = machine;
    const region = await root.map({ pages: 1000 });
    await root.write(region);
    await root.advise(region, 'mergeable');
    await root.fork();
    await machine.mergePages();
    expect(machine.trace.at(-1)?.outcome.merged).toEqual({ sharedPages: 1, sharingPages: 1999 });
    // Of each page floor(4096 * 4096 / 2000) / 4096 bytes.
    expect(at(await machine.observe('merged'), root, region).smapsKb).toMatchObject({ Rss: 4000, Pss: 1, KSM: 4000 });
  });

  const doubts: [string, (machine: Machine) => Promise<void>, RegExp][] = [
    [
      'huge pages',
      async ({ root }) => {
        const huge = await root.map({ pages: 512, hugePages: true });
        await root.write(huge, { pages: 1 });
        await root.advise(huge, 'mergeable');
      },
      /splits huge pages/,
    ],
    [
      'copies of a memfd',
      async (machine) => {
        const copy = await machine.root.map({ backing: await machine.createMemfd(4), pages: 4 });
        await machine.root.write(copy);
        await machine.root.advise(copy, 'mergeable');
      },
      /memfd or file/,
    ],
    [
      'a page that somebody else has who does not merge',
      async ({ root }) => {
        const region = await root.map({ pages: 4 });
        await root.write(region);
        await root.advise(region, 'mergeable');
        await (await root.fork()).advise(region, 'unmergeable');
      },
      /may become the merged one, or may not/,
    ],
  ];
  it.each(doubts)('with %s are unknown, with the reason', async (_, make, reason) => {
    await using machine = modelMachine(testFacts);
    const region = await machine.root.map({ pages: 4 });
    await machine.root.write(region);
    await machine.root.advise(region, 'mergeable');
    await make(machine);
    await machine.mergePages();
    const { smapsKb } = at(await machine.observe('merged'), machine.root, region);
    expect(smapsKb['KSM']).toEqual({ unknown: expect.stringMatching(reason) as string });
  });

  it('are none where the kernel has no KSM', async () => {
    await using machine = modelMachine(withoutKsm);
    await expect(machine.mergePages()).rejects.toMatchObject({ code: 'ENOENT', syscall: 'open' });
  });
});
