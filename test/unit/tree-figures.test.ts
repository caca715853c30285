import { describe, expect, test } from 'vitest';
import { rawRows } from '../../lib/experiments/raw-rows.js';
import { chargedPages, difference, sumOfTree } from '../../lib/experiments/tree-figures.js';
import type { Observation, ProcessObservation, Vma } from '../../lib/schema/step.js';

function vma(pages: number, accounted: boolean): Vma {
  return { first: 0, pages, protection: 'rw', accounted, dontfork: false, wipeonfork: false };
}

function observed(process: string, vmas: Vma[], shared: number, pssKb: number): ProcessObservation {
  return {
    process,
    regions: [{ region: 'r1', pages: 9, states: [], counts: { shared }, smapsKb: { Pss: pssKb }, vmas }],
  };
}

const tree: Observation = {
  label: 'a tree',
  processes: [observed('root', [vma(3, true), vma(6, false)], 5, 11), observed('root.1', [vma(9, true)], 7, 13)],
};

describe('figures of a tree', () => {
  test('charge the accounted VMAs of all processes, and no others', () => {
    expect(chargedPages(tree)).toBe(3 + 9);
  });

  test('add what each process shows', () => {
    expect(sumOfTree(tree, 'Pss')).toBe(24);
    expect(sumOfTree(tree, 'Pss', 'r2')).toBe(0);
  });

  test('differ by what nobody knows where one of them is not known, for the same reason', () => {
    const unknown = { unknown: 'nobody knows' };
    expect(difference(5, 3)).toBe(2);
    expect(difference(unknown, 3)).toBe(unknown);
    expect(difference(5, unknown)).toBe(unknown);
    expect(difference(5, { min: 1, max: 2, why: 'roughly' })).toHaveProperty('unknown');
  });

  test('are the last of the raw rows, after one for each process', () => {
    const rows = rawRows(
      'a step',
      tree,
      new Map([['root.1', { minorFaults: 17, majorFaults: 0, faults: 17, elapsedNs: 19 }]]),
    );
    expect(rows).toEqual([
      { step: 'a step', process: 'root', 'shared (pages)': 5, 'Pss (kB)': 11 },
      {
        step: 'a step',
        process: 'root.1',
        'shared (pages)': 7,
        'Pss (kB)': 13,
        'minor faults of the step': 17,
        'time of the step (ns)': 19,
      },
      expect.objectContaining({ step: 'a step', process: 'tree', 'shared (pages)': 12, 'Pss (kB)': 24 }),
    ]);
    expect(rows.at(-1)).toMatchObject({ 'minor faults of the step': 17 });
  });
});
