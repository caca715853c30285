import { beforeEach, describe, expect, it } from 'vitest';
import { compareTraces } from '../../lib/machine/compare.js';
import type { Machine, Process, Region } from '../../lib/machine/machine.js';
import { modelMachine, replayOnModel } from '../../lib/machine/open.js';
import type { MemoryReading, Trace } from '../../lib/schema/step.js';
import { testFacts } from '../facts.js';

const facts = { ...testFacts, cpus: 1 };
const LIMIT = 10_000;

/** A recording in which each step of a member starts from such a reading, as the kernel would have given it. */
async function replayFrom(trace: Trace, readings: Record<number, Partial<MemoryReading>>): Promise<Trace> {
  const recorded = trace.map(({ step, outcome }, index) => {
    const reading = readings[index];
    const memory: MemoryReading = { usagePages: 0, victimsFirst: true, processes: [], ...reading };
    return { step, outcome: reading ? { ...outcome, memory } : outcome };
  });
  return replayOnModel(recorded, facts);
}

let machine: Machine;
let parent: Process;
let region: Region;

beforeEach(async () => {
  machine = modelMachine(facts);
  await machine.limitCgroup({ memoryMaxBytes: LIMIT * 4096 });
  parent = await machine.root.fork();
  await parent.joinCgroup();
  region = await parent.map({ pages: 4000 });
  await parent.write(region);
});

const size = (process: string, residentPages: number) => ({ process, residentPages, pageTablePages: 20 });

describe('the step in which the limit is reached', () => {
  const write = { usagePages: 0, processes: [size('root.1', 4500), size('root.1.1', 4500)] };

  it('kills if what is charged, less what is in stock, and the copies are more than the limit', async () => {
    const child = await parent.fork();
    await child.write(region);
    const step = machine.trace.length - 1;
    const at = async (usagePages: number) =>
      (await replayFrom(machine.trace, { [step]: { ...write, usagePages } }))[step];
    // Both are equally large, so who it is cannot be told; that somebody is, can.
    expect((await at(LIMIT - 4000 + 64 + 1))?.outcome.uncertain).toMatch(/nearer in size/);
    expect((await at(LIMIT - 4000 + 64))?.outcome.uncertain).toMatch(/MEMCG_CHARGE_BATCH/);
    expect((await at(LIMIT - 4000 - 28))?.outcome).toMatchObject({ minorFaults: 4000 });
    expect((await at(LIMIT - 4000 - 28))?.outcome.uncertain).toBeUndefined();
  });

  it('kills the largest, not the one that writes, and leaves its pages to those who shared them', async () => {
    const child = await parent.fork();
    await child.write(region);
    const step = machine.trace.length - 1;
    const processes = [size('root.1', 9000), size('root.1.1', 4500)];
    const [entry] = (await replayFrom(machine.trace, { [step]: { usagePages: 9000, processes } })).slice(step);
    expect(entry?.outcome).toMatchObject({ killed: ['root.1'], minorFaults: 4000 });
    expect(entry?.outcome.ended).toBeUndefined();
  });

  it('kills the writer if that is the largest: it has copied as many pages as there was room for', async () => {
    const child = await parent.fork();
    await child.write(region);
    const step = machine.trace.length - 1;
    const processes = [size('root.1', 4500), size('root.1.1', 9000)];
    const [entry] = (await replayFrom(machine.trace, { [step]: { usagePages: 9000, processes } })).slice(step);
    expect(entry?.outcome.ended).toEqual({ signal: 'SIGKILL' });
    expect(entry?.outcome.minorFaults).toMatchObject({ min: 1000 - 28, max: 1000 + 64 + 64 });
  });

  it('takes a second one only if the memory of the first is not enough', async () => {
    const [first, second] = [await parent.fork(), await parent.fork()];
    const own = await first.map({ pages: 500 });
    await first.write(own);
    await second.write(region);
    const step = machine.trace.length - 1;
    const processes = [size('root.1', 4500), size('root.1.1', 5000), size('root.1.2', 4000)];
    const from = async (usagePages: number) =>
      (await replayFrom(machine.trace, { [step]: { usagePages, processes } }))[step]?.outcome;
    expect(await from(6200)).toMatchObject({ killed: ['root.1.1'] });
    expect(await from(9000)).toMatchObject({ killed: ['root.1.1', 'root.1'] });
  });

  it('cannot tell of a second one where the first may come too late with its memory', async () => {
    const child = await parent.fork();
    await child.write(region);
    const step = machine.trace.length - 1;
    const processes = [size('root.1', 9000), size('root.1.1', 4500)];
    const reading = { usagePages: 9000, processes, victimsFirst: false };
    const [entry] = (await replayFrom(machine.trace, { [step]: reading })).slice(step);
    expect(entry?.outcome.uncertain).toMatch(/MMF_OOM_SKIP/);
  });

  it('is compared by who was killed', () => {
    const step = { op: 'observe', label: 'x' } as const;
    const trace = (killed: string[]): Trace => [{ step, outcome: { killed } }];
    const failures = (a: string[], b: string[]) =>
      compareTraces(trace(a), trace(b)).filter(({ pass }) => pass === false).length;
    expect(failures(['root.1'], ['root.1'])).toBe(0);
    expect(failures(['root.1.2', 'root.1'], ['root.1', 'root.1.2'])).toBe(0);
    expect(failures(['root.1'], ['root.1.1'])).toBe(1);
    expect(failures([], ['root.1.1'])).toBe(1);
  });
});

describe('what is charged', () => {
  it('grows by the pages that are copied, which the next reading must show', async () => {
    const child = await parent.fork();
    await child.write(region, { pages: 1000 });
    await child.write(region, { first: 1000, pages: 500 });
    const last = machine.trace.length - 1;
    const replay = await replayFrom(machine.trace, { [last - 1]: { usagePages: 4100 }, [last]: { usagePages: 5100 } });
    expect(replay[last]?.outcome.memory?.usagePages).toMatchObject({ min: 5100 - 64, max: 5100 + 64 + 22 });
  });
});

describe('pids.max', () => {
  it('refuses the fork that would be one task too many with EAGAIN, and allows it once one has ended', async () => {
    const other = modelMachine(facts);
    await other.limitCgroup({ pidsMax: 3 });
    const first = await other.root.fork();
    await first.joinCgroup();
    const child = await first.fork();
    await child.fork();
    expect(await first.tryFork()).toMatchObject({ refused: { code: 'EAGAIN', syscall: 'fork' } });
    // The root is not in the cgroup.
    await other.root.fork();
    await child.exit();
    await first.fork();
  });
});

describe('misuse is refused before anything happens', () => {
  it('of limits', async () => {
    const other = modelMachine(facts);
    await expect(other.limitCgroup({})).rejects.toThrow(/give memoryMaxBytes or pidsMax/);
    await expect(other.limitCgroup({ memoryMaxBytes: 5000 })).rejects.toThrow(/multiple of the page size/);
    await expect(other.limitCgroup({ pidsMax: 0 })).rejects.toThrow(/pidsMax must be/);
    await expect((await other.root.fork()).joinCgroup()).rejects.toThrow(/set the limits/);
    expect(other.trace).toHaveLength(1);
    await expect(machine.limitCgroup({ pidsMax: 5 })).rejects.toThrow(/already/);
  });

  it('of membership: not the root, not twice, and not with memory of its own', async () => {
    await expect(machine.root.joinCgroup()).rejects.toThrow(/root stays outside/);
    await expect(parent.joinCgroup()).rejects.toThrow(/in the cgroup already/);
    const child = await parent.fork();
    await expect(child.joinCgroup()).rejects.toThrow(/in the cgroup already/);
    const late = await machine.root.fork();
    await late.map({ pages: 1 });
    await expect(late.joinCgroup()).rejects.toThrow(/before it has memory/);
  });
});
