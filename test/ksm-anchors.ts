/** Anchors about memory that KSM may merge, where ksmd does not run. */
import { expect } from 'vitest';
import { at, minorFaults } from './anchor.js';
import type { Anchor } from './anchor.js';

export const ksmAnchors: Anchor[] = [
  {
    name: 'MADV_MERGEABLE splits a VMA, is inherited by fork, and is taken back by MADV_UNMERGEABLE',
    ksm: true,
    async run(machine) {
      const { root } = machine;
      const region = await root.map({ pages: 10 });
      await root.write(region);
      expect(await minorFaults(root.advise(region, 'mergeable', { first: 6 }))).toBe(0);
      const child = await root.fork();
      await root.advise(region, 'unmergeable');
      const seen = await machine.observe('forked');
      expect(at(seen, root, region).vmas).toMatchObject([{ pages: 10 }]);
      const inherited = at(seen, child, region);
      expect(inherited.vmas.map(({ first, pages, mergeable }) => [first, pages, mergeable ?? false])).toEqual([
        [0, 6, false],
        [6, 4, true],
      ]);
      expect(inherited.smapsKb).toMatchObject({ Pss: 20, Shared_Dirty: 40 });
      expect(await minorFaults(child.write(region))).toBe(10);
    },
  },
  {
    name: 'MADV_MERGEABLE is not for shared memory, and says nothing of it',
    ksm: true,
    async run(machine) {
      const { root } = machine;
      const region = await root.map({ pages: 4, sharing: 'shared' });
      await root.advise(region, 'mergeable', { pages: 2 });
      const { vmas } = at(await machine.observe('advised'), root, region);
      expect(vmas.map(({ pages, mergeable }) => [pages, mergeable ?? false])).toEqual([[4, false]]);
    },
  },
];
