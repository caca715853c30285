/** The model of swap, without a kernel. */
import { describe, expect, it } from 'vitest';
import { FeatureUnavailableError } from '../../lib/errors.js';
import { swapMutations } from '../../lib/machine/model/mutation.js';
import { modelMachine } from '../../lib/machine/open.js';
import { at } from '../anchor.js';
import { testFacts } from '../facts.js';
import { swapAnchors } from '../swap-anchors.js';

describe('the model of swap gives the figures that were computed by hand', () => {
  it.each(swapAnchors)('$name', async ({ run }) => {
    await using machine = modelMachine(testFacts);
    await run(machine);
  });

  it.each(swapMutations)('and not with the wrong rule %s', async (mutation) => {
    const noticed: string[] = [];
    for (const { name, run } of swapAnchors) {
      await using machine = modelMachine(testFacts, { mutation });
      await run(machine).catch(() => noticed.push(name));
    }
    expect(noticed).not.toEqual([]);
  });
});

describe('what is not modelled of swap is refused', () => {
  it('on kernels on which it has not been tried, and where others have swap', async () => {
    await using older = modelMachine({ ...testFacts, kernelVersion: [6, 12] });
    await expect(older.addSwap(100)).rejects.toThrow(FeatureUnavailableError);
    await using swapping = modelMachine({ ...testFacts, swapTotalPages: 100 });
    await expect(swapping.addSwap(100)).rejects.toThrow(FeatureUnavailableError);
    const region = await swapping.root.map({ pages: 1 });
    await expect(swapping.root.advise(region, 'pageout')).rejects.toThrow(FeatureUnavailableError);
  });

  it('of other memory than private anonymous base pages, beyond half of the swap, beside a cgroup and beside merged pages', async () => {
    await using machine = modelMachine(testFacts);
    const { root } = machine;
    await machine.addSwap(101);
    await expect(machine.addSwap(101)).rejects.toThrow(TypeError);
    await expect(machine.limitCgroup({ pidsMax: 3 })).rejects.toThrow(/no cgroup/);
    await expect(machine.mergePages()).rejects.toThrow(/merges no pages/);
    const object = await machine.createMemfd(10);
    for (const spec of [{ sharing: 'shared' as const }, { backing: object }, { hugePages: true }]) {
      const region = await root.map({ pages: 10, ...spec });
      await expect(root.advise(region, 'pageout')).rejects.toThrow(RangeError);
    }
    const region = await root.map({ pages: 100 });
    await expect(root.advise(region, 'pageout', { pages: 51 })).rejects.toThrow(/only 50 pages more/);
    await root.advise(region, 'pageout', { pages: 50 });
  });

  it('where pages have been merged, or a cgroup has limits', async () => {
    await using merging = modelMachine(testFacts);
    await merging.mergePages();
    await expect(merging.addSwap(101)).rejects.toThrow(/merged pages/);
    await using limited = modelMachine(testFacts);
    await limited.limitCgroup({ pidsMax: 3 });
    await expect(limited.addSwap(101)).rejects.toThrow(/cgroup/);
  });
});

it('without swap pageout leaves anonymous memory as it is', async () => {
  await using machine = modelMachine(testFacts);
  const region = await machine.root.map({ pages: 10 });
  await machine.root.write(region);
  await machine.root.advise(region, 'pageout');
  expect(at(await machine.observe('after it'), machine.root, region).counts).toMatchObject({
    exclusive: 10,
    swapped: 0,
  });
});
