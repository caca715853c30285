import { describe, expect, it } from 'vitest';
import { admitCountedFork, commitBatchPages, strictMarginPages } from '../../lib/machine/model/admission.js';
import { ModelBackend } from '../../lib/machine/model/backend.js';
import { modelMachine } from '../../lib/machine/open.js';
import type { HostFacts } from '../../lib/schema/facts.js';
import type { CommitReading, Trace } from '../../lib/schema/step.js';
import { testFacts } from '../facts.js';

/** Batch: 1,024,000 / 1 / 256 = 4000 pages. Limit: 100,000 - 1000 - min(3200 / 32, 5000) = 98,900 pages. */
const facts: HostFacts = {
  ...testFacts,
  cpus: 1,
  memTotalPages: 1_024_000,
  overcommitMode: 2,
  commitLimitPages: 100_000,
  adminReservePages: 1000,
  userReservePages: 5000,
  capSysAdmin: false,
};

function reading(committedPages: number, vmaPages: number[], more: Partial<CommitReading> = {}): CommitReading {
  return { committedPages, vmaPages, totalPages: 3200, folded: true, slackPages: 0, ...more };
}

describe('a fork under strict overcommit whose counter was folded', () => {
  it('is granted up to the last page below the limit', () => {
    expect(commitBatchPages(facts)).toBe(4000);
    expect(admitCountedFork(facts, reading(48_899, [50_000]))).toEqual({ verdict: 'allowed', chargePages: 50_000 });
    expect(strictMarginPages(facts, reading(48_899, [50_000]))).toBe(0);
    expect(admitCountedFork(facts, reading(48_900, [50_000]))).toMatchObject({
      verdict: 'refused',
      index: 0,
      askedPages: 50_000,
      allowedPages: 49_999,
    });
    expect(strictMarginPages(facts, reading(48_900, [50_000]))).toBe(-1);
  });

  it('may pass the limit by VMAs that together stay below a batch', () => {
    expect(admitCountedFork(facts, reading(48_899, [50_000, 2000, 1999])).verdict).toBe('allowed');
    expect(strictMarginPages(facts, reading(48_899, [50_000, 2000, 1999]))).toBe(0);
  });

  it('is refused at the VMA with which they make a batch', () => {
    expect(admitCountedFork(facts, reading(48_899, [50_000, 2000, 1999, 1]))).toMatchObject({
      verdict: 'refused',
      index: 3,
      askedPages: 1,
    });
    expect(strictMarginPages(facts, reading(48_899, [50_000, 2000, 1999, 1]))).toBe(-4000);
  });

  it('carries what came before into the first VMA that makes a batch', () => {
    expect(admitCountedFork(facts, reading(48_890, [9, 50_000])).verdict).toBe('allowed');
    expect(admitCountedFork(facts, reading(48_890, [10, 50_000])).verdict).toBe('refused');
  });

  it('is uncertain only by as much as others changed meanwhile', () => {
    expect(admitCountedFork(facts, reading(48_899, [50_000], { slackPages: 1 })).verdict).toBe('uncertain');
    expect(admitCountedFork(facts, reading(48_898, [50_000], { slackPages: 1 })).verdict).toBe('allowed');
    expect(admitCountedFork(facts, reading(48_901, [50_000], { slackPages: 1 })).verdict).toBe('refused');
  });

  it('that was not folded is uncertain by a batch on each CPU', () => {
    const at = (committed: number) => admitCountedFork(facts, reading(committed, [50_000], { folded: false })).verdict;
    expect(at(48_899 - 3999)).toBe('allowed');
    expect(at(48_899 - 3998)).toBe('uncertain');
    expect(at(48_900 + 3998)).toBe('uncertain');
    expect(at(48_900 + 3999)).toBe('refused');
  });
});

describe('vm.overcommit_memory as a step', () => {
  const set = (step: { mode: 0 | 1 | 2; kbytes?: number; ratio?: number; adminReserveKbytes?: number }, from = facts) =>
    new ModelBackend(from).executeSync({ op: 'overcommit', ...step });

  it('makes CommitLimit of kbytes and swap', () => {
    expect(set({ mode: 2, kbytes: 4003 }, { ...facts, swapTotalPages: 70 }).commitLimitPages).toBe(1000 + 70);
  });

  it('makes it of the RAM that hugetlb leaves, and swap', () => {
    const host = { ...facts, hugetlbPages: 24_001, swapTotalPages: 70 };
    expect(set({ mode: 2, ratio: 33 }, host).commitLimitPages).toBe(Math.floor((999_999 * 33) / 100) + 70);
  });

  it('leaves it as it was otherwise', () => {
    expect(set({ mode: 1 }).commitLimitPages).toBe(100_000);
  });

  it('is obeyed by the next mapping', async () => {
    const machine = modelMachine({ ...facts, overcommitMode: 1, committedPages: 0 });
    await machine.root.map({ pages: 150_000 });
    await machine.setOvercommit({ mode: 2 });
    await expect(machine.root.map({ pages: 10 })).rejects.toThrow(/ENOMEM/);
    await machine.setOvercommit({ mode: 0 });
    await machine.root.map({ pages: 10 });
  });

  it('holds 64 MiB back from the tree unless told otherwise', async () => {
    const machine = modelMachine(facts);
    await machine.setOvercommit({ mode: 2 });
    await machine.setOvercommit({ mode: 0 });
    await machine.setOvercommit({ mode: 2, adminReserveBytes: 0 });
    expect(machine.trace.map(({ step }) => step)).toEqual([
      { op: 'overcommit', mode: 2, adminReserveKbytes: 65_536 },
      { op: 'overcommit', mode: 0 },
      { op: 'overcommit', mode: 2, adminReserveKbytes: 0 },
    ]);
  });

  it('is refused with arguments that make no sense, and nothing is done', async () => {
    const machine = modelMachine({ ...facts, swapTotalPages: 100 });
    for (const [spec, message] of [
      [{ mode: 3 }, /mode must be a whole number from 0 to 2/],
      [{ mode: 2, limitBytes: 1, ratio: 1 }, /either limitBytes or ratio/],
      [{ mode: 2, limitBytes: 100 * 4096 }, /limitBytes must be/],
      [{ mode: 2, ratio: -1 }, /ratio must be/],
      [{ mode: 2, adminReserveBytes: 0.5 }, /adminReserveBytes must be/],
      [undefined, /spec must be an object/],
    ] as const) {
      await expect(machine.setOvercommit(spec as never)).rejects.toThrow(message);
    }
    expect(machine.trace).toEqual([]);
  });
});

describe('readings of a recording', () => {
  const recorded = (committedPages: number): Trace => [
    {
      step: { op: 'fork', process: 'root', child: 'root.1' },
      outcome: { commit: reading(committedPages, [...facts.rootAccountedVmas]) },
    },
  ];

  it('are what the prediction of the same step goes by, and not its outcome', async () => {
    const full = modelMachine(facts, { readings: recorded(98_900) });
    expect(await full.root.tryFork()).toMatchObject({ refused: { code: 'ENOMEM' } });
    const free = modelMachine(facts, { readings: recorded(10) });
    expect(await free.root.tryFork()).not.toHaveProperty('refused');
  });

  it('are not used once the program takes another way', async () => {
    const machine = modelMachine({ ...facts, committedPages: 0 }, { readings: recorded(98_900) });
    await machine.root.map({ pages: 1 });
    expect(await machine.root.tryFork()).not.toHaveProperty('refused');
  });
});
