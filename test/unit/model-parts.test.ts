import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { kernelRules } from '../../lib/machine/model/kernel-rules.js';
import { RunList, TransitionTable } from '../../lib/machine/model/runs.js';
import { modifyFlags, prepareAnonVma, removeRange, type Vma } from '../../lib/machine/model/vma.js';
import { modelMachine } from '../../lib/machine/open.js';
import { testFacts } from '../facts.js';

const SIZE = 60;

/** Ascending runs of pages below SIZE. */
const selections = fc
  .uniqueArray(fc.integer({ min: 0, max: SIZE - 1 }), { minLength: 1 })
  .map((pages) => pages.sort((a, b) => a - b).map((first) => ({ first, pages: 1 })));

function contents(runs: RunList): number[] {
  const pages: number[] = [];
  runs.forEach(0, SIZE, (configuration, start, end) => {
    for (let page = start; page < end; page++) pages.push(configuration);
  });
  return pages;
}

describe('a run list', () => {
  it('does what an array of pages does, and keeps neighbours different', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(selections, fc.integer({ min: 0, max: 3 }))), (operations) => {
        const runs = new RunList();
        const pages = new Array<number>(SIZE).fill(0);
        for (const [selected, add] of operations) {
          const table = new TransitionTable(4, (configuration) => (configuration + add) % 4);
          runs.apply(selected, table);
          for (const { first } of selected) pages[first] = ((pages[first] ?? 0) + add) % 4;
          expect(contents(runs)).toEqual(pages);
          expect(table.pages.reduce((total, count) => total + count)).toBe(selected.length);
        }
        const changes = pages.filter((page, i) => i > 0 && page !== pages[i - 1]).length;
        expect(runs.length).toBe(1 + changes + (pages.at(-1) === 0 ? 0 : 1));
      }),
    );
  });

  it('stores what it has loaded, changed, in stretches', () => {
    fc.assert(
      fc.property(selections, fc.uniqueArray(fc.integer({ min: 0, max: 5 })), (selected, chunks) => {
        const runs = new RunList();
        runs.apply(selected, new TransitionTable(1, () => 1));
        const pages = contents(runs);
        const stretches = chunks
          .sort((a, b) => a - b)
          .map((chunk) => {
            const configurations = new Int32Array(10);
            runs.load(chunk * 10, configurations);
            return { from: chunk * 10, configurations: configurations.map((each, i) => (i % 3 === 0 ? 2 : each)) };
          });
        for (const { from, configurations } of stretches) configurations.forEach((each, i) => (pages[from + i] = each));
        runs.store(stretches);
        expect(contents(runs)).toEqual(pages);
      }),
    );
  });
});

describe('VMAs', () => {
  const whole: Vma = {
    first: 0,
    pages: 10,
    protection: 'rw',
    accounted: true,
    dontfork: false,
    wipeonfork: false,
    mergeable: false,
    anonVma: undefined,
  };
  const shape = (vmas: readonly Vma[]) => vmas.map(({ first, pages, protection }) => [first, pages, protection]);
  const change = (vmas: Vma[], first: number, pages: number, protection: 'r' | 'rw' | 'none') => {
    const vma = vmas.find((each) => first >= each.first && first < each.first + each.pages);
    if (vma) modifyFlags(vmas, vma, { first, pages }, { protection }, kernelRules(testFacts));
  };

  it('are split by a change of a part and joined with a neighbour that is alike', () => {
    const vmas = [{ ...whole }];
    change(vmas, 3, 4, 'r');
    expect(shape(vmas)).toEqual([
      [0, 3, 'rw'],
      [3, 4, 'r'],
      [7, 3, 'rw'],
    ]);
    change(vmas, 7, 2, 'r');
    expect(shape(vmas)).toEqual([
      [0, 3, 'rw'],
      [3, 6, 'r'],
      [9, 1, 'rw'],
    ]);
    change(vmas, 3, 6, 'rw');
    expect(shape(vmas)).toEqual([[0, 10, 'rw']]);
  });

  it('that were inherited by fork are not joined with one that has no anon_vma', () => {
    const inherited = { inherited: true };
    const vmas: Vma[] = [
      { ...whole, pages: 5, anonVma: inherited },
      { ...whole, first: 5, pages: 5, protection: 'r' },
    ];
    change(vmas, 5, 5, 'rw');
    expect(vmas).toHaveLength(2);
    const own: Vma[] = vmas.map((vma) => ({ ...vma, anonVma: vma.anonVma && { inherited: false } }));
    change(own, 5, 5, 'none');
    change(own, 5, 5, 'rw');
    expect(own).toHaveLength(1);
  });

  it('share the anon_vma of a neighbour that differs in protection only', () => {
    const vmas = [{ ...whole }];
    change(vmas, 0, 5, 'r');
    const [left, right] = vmas;
    if (!left || !right) throw new Error('not split');
    prepareAnonVma(vmas, right);
    prepareAnonVma(vmas, left);
    expect(left.anonVma).toBe(right.anonVma);
  });

  it('are cut by an unmapping', () => {
    const vmas = [{ ...whole }];
    expect(shape(removeRange(vmas, { first: 2, pages: 3 }))).toEqual([[2, 3, 'rw']]);
    expect(shape(vmas)).toEqual([
      [0, 2, 'rw'],
      [5, 5, 'rw'],
    ]);
  });
});

describe('a real file', () => {
  it('has an unknown part of dirty pages, and all other figures exact', async () => {
    await using machine = modelMachine(testFacts);
    const file = await machine.createFile(8);
    const region = await machine.root.map({ pages: 8, backing: file });
    await machine.root.read(region);
    await machine.root.write(region, { pages: 2 });
    const { processes } = await machine.observe('written');
    expect(processes[0]?.regions[0]?.smapsKb).toMatchObject({
      Rss: 32,
      Pss: 32,
      Anonymous: 8,
      Private_Dirty: { min: 8, max: 32 },
      Private_Clean: { min: 0, max: 24 },
      Shared_Dirty: 0,
    });
  });

  it('may fault again for each page that was writable', async () => {
    await using machine = modelMachine(testFacts);
    const file = await machine.createFile(8);
    const region = await machine.root.map({ pages: 8, backing: file, sharing: 'shared' });
    expect((await machine.root.read(region)).minorFaults).toBe(1);
    expect((await machine.root.write(region, { pages: 2 })).minorFaults).toBe(2);
    expect((await machine.root.write(region)).minorFaults).toMatchObject({ min: 6, max: 8 });
  });
});
