import { describe, expect, it } from 'vitest';
import { hugetlbMutations } from '../../lib/machine/model/mutation.js';
import { ModelBackend } from '../../lib/machine/model/backend.js';
import { modelMachine } from '../../lib/machine/open.js';
import { testFacts } from '../facts.js';
import { noticing } from '../noticing.js';
import { hugetlbAnchors } from '../hugetlb-anchors.js';

const hugetlbPool = { hugePageBytes: 2 ** 21, totalPages: 0, freePages: 0, reservedPages: 0, overcommitPages: 0 };
const facts = { ...testFacts, hugetlbPool };

describe('the model of hugetlb memory gives the figures that were computed by hand', () => {
  it.each(hugetlbAnchors)('$name', async ({ run }) => {
    await using machine = modelMachine(facts);
    await run(machine);
  });

  it.each(hugetlbAnchors)('and of a kernel before 6.13: $name', async ({ run }) => {
    await using machine = modelMachine({ ...facts, kernelVersion: [6, 8] });
    await run(machine);
  });

  it.each(hugetlbMutations)('and not with the wrong rule %s', async (mutation) => {
    expect(await noticing(hugetlbAnchors, facts, { mutation })).not.toEqual([]);
  });
});

describe('what is not modelled of hugetlb memory is refused with a RangeError', () => {
  it('by the program, before anything happens', async () => {
    await using machine = modelMachine(facts);
    await machine.setHugetlbPages(4);
    const { root } = machine;
    await expect(root.map({ pages: 513, hugetlb: true })).rejects.toThrow(RangeError);
    await expect(root.map({ pages: 512, hugetlb: true, onFork: 'dontfork' })).rejects.toThrow(RangeError);
    const huge = { pages: 2 ** 18, hugetlb: true, sharing: 'shared' } as const;
    await expect(root.map(huge)).rejects.toThrow(RangeError);
    const region = await root.map({ pages: 1024, hugetlb: true });
    await expect(root.protect(region, 'r')).rejects.toThrow(RangeError);
    await expect(root.advise(region, 'dontneed')).rejects.toThrow(RangeError);
    await expect(root.grow(region, 2048)).rejects.toThrow(RangeError);
    await expect(root.unmap(region, { pages: 512 })).rejects.toThrow(RangeError);
    await expect(machine.setHugetlbPages(5)).rejects.toThrow(/while no process has a region/);
    expect(machine.trace).toHaveLength(2);
  });

  it('by the model, for a trace that was written by hand', async () => {
    const model = new ModelBackend({ ...facts, hugetlbPool: { ...hugetlbPool, totalPages: 4, freePages: 4 } });
    const place = { process: 'root', region: 'r1' };
    const anonymous = { sharing: 'private', backing: 'anonymous', offset: 0, protection: 'rw' } as const;
    const flags = { populate: false, noreserve: false, hugetlb: true };
    await model.execute({ op: 'map', ...place, ...anonymous, ...flags, pages: 1024 });
    expect(() => model.executeSync({ op: 'protect', ...place, first: 0, pages: 1024, protection: 'r' })).toThrow(
      RangeError,
    );
  });
});

it('a kernel without hugetlb memory refuses such a region with EINVAL', async () => {
  await using machine = modelMachine(testFacts);
  await expect(machine.root.map({ pages: 512, hugetlb: true })).rejects.toMatchObject({ code: 'EINVAL' });
});
