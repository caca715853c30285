/** TreeWatch where memory is not read in each look: what is old says so, and what is bounded stays so. */
import { afterEach, describe, expect, test } from 'vitest';
import { fork } from '../../lib/api/forked-process.js';
import type { ForkedProcess, ForkedRegion } from '../../lib/api/forked-process.js';
import { startProgram } from '../../lib/api/foreign-program.js';
import { privateKb, readSmapsRollup } from '../../lib/proc/smaps.js';
import { ReadingPace } from '../../lib/proc/reading-pace.js';
import { readStat, readUptimeTicks } from '../../lib/proc/stat.js';
import { Strangers } from '../../lib/proc/strangers.js';
import { TreeWatch } from '../../lib/proc/tree-watch.js';
import type { TreeSample } from '../../lib/proc/tree-watch.js';
import type { WatchedMemory } from '../../lib/proc/watched-process.js';
import { bounds } from '../../lib/schema/figure.js';

const PAGES = 256;
const PAGE_KB = 4;
/** No memory is read but where it has to be. */
const NEXT_TO_NOTHING = 1e-9;
/** Fewer random trees where each takes long, as in an emulated machine. */
const TREES = process.env['COWLAB_SHORT'] === '1' ? 4 : 12;
const opened: ForkedProcess[] = [];
afterEach(async () => {
  for (const one of opened.splice(0).reverse()) await one.close();
});

/** A parent with its memory written, and a child that has what it needs for its own first write. */
async function family(): Promise<{ parent: ForkedProcess; child: ForkedProcess; region: ForkedRegion }> {
  const parent = fork();
  opened.push(parent);
  const region = await parent.map({ pages: PAGES + 1 });
  await parent.write(region);
  const child = await parent.fork();
  opened.push(child);
  await child.write(region, { first: PAGES, pages: 1 });
  return { parent, child, region };
}

function of({ pid }: { pid: number }, { processes }: TreeSample): WatchedMemory {
  const found = processes.find((one) => one.pid === pid);
  if (!found) throw new Error(`${String(pid)} is not in the sample`);
  return found;
}

function ages({ processes }: TreeSample): number[] {
  return processes.map(({ ageMs }) => ageMs);
}

function mostKb(row: WatchedMemory): number {
  return bounds(row.copiedKb).max;
}

describe('a tree whose memory is not to be read again yet', () => {
  test('is old, and says so, while its faults are counted and what it may have copied is within the bound', async () => {
    const { parent, child, region } = await family();
    const watch = new TreeWatch(parent.pid, { maxLoad: NEXT_TO_NOTHING });
    const first = watch.sample();
    expect(ages(first)).toEqual([0, 0]);
    expect((await child.write(region, { pages: PAGES })).minorFaults).toBe(PAGES);
    const second = watch.sample();
    expect(second.longestReadMs).toBe(0);
    expect(ages(second).every((ageMs) => ageMs > 0)).toBe(true);
    expect(of(child, second).ussKb).toBe(of(child, first).ussKb);
    expect(of(child, second).minorFaults - of(child, first).minorFaults).toBe(PAGES);
    expect(mostKb(of(child, second)) - mostKb(of(child, first))).toBe(PAGES * PAGE_KB);
    expect(mostKb(of(parent, second))).toBe(mostKb(of(parent, first)));
    const third = watch.sample();
    expect(of(child, third).ageMs).toBeGreaterThan(of(child, second).ageMs);
    expect(watch.deferred).toBe(2);
    const last = watch.sample({ whole: true });
    expect(ages(last)).toEqual([0, 0]);
    expect(of(child, last).ussKb - of(child, first).ussKb).toBe(PAGES * PAGE_KB);
    expect(mostKb(of(child, last)) - mostKb(of(child, first))).toBe(PAGES * PAGE_KB);
    const { address } = child.placement(region);
    const broken = watch.broken.filter(({ start, end }) => start <= address && address < end);
    expect(broken).toMatchObject([{ pid: child.pid, lostKb: PAGES * PAGE_KB }]);
  });

  test('no more passes for copied than was shared, however many faults there were', async () => {
    const parent = fork();
    opened.push(parent);
    const watch = new TreeWatch(parent.pid, { maxLoad: NEXT_TO_NOTHING });
    const first = of(parent, watch.sample());
    // What it shares with this process, which forked it, is of that.
    const anonymousKb = readSmapsRollup(parent.pid).fieldsKb['Anonymous'] ?? 0;
    const pages = (2 * anonymousKb) / PAGE_KB;
    await parent.write(await parent.map({ pages }));
    const faultsBefore = readStat(parent.pid).minflt;
    const second = of(parent, watch.sample());
    expect(second.minorFaults - first.minorFaults).toBeGreaterThanOrEqual(pages);
    expect(mostKb(second)).toBeLessThanOrEqual(anonymousKb);
    // Nor after a fork, since all that was before it. In the tick of the look it might not have been.
    const lookedTicks = readUptimeTicks();
    while (readUptimeTicks() <= lookedTicks) continue;
    opened.push(await parent.fork());
    const third = of(parent, watch.sample());
    expect(third.ageMs).toBe(0);
    const faults = readStat(parent.pid).minflt - faultsBefore;
    expect(mostKb(third)).toBeLessThanOrEqual(mostKb(second) + faults * PAGE_KB);
  });

  test('is read at once, all of it, when a process is forked and when one ends', async () => {
    const { parent, child, region } = await family();
    await child.write(region);
    const watch = new TreeWatch(parent.pid, { maxLoad: NEXT_TO_NOTHING });
    watch.sample();
    const born = await child.fork();
    opened.push(born);
    const with3 = watch.sample();
    expect(ages(with3)).toEqual([0, 0, 0]);
    expect(of(child, with3).ussKb).toBe(privateKb(readSmapsRollup(child.pid)));
    await born.exit();
    const with2 = watch.sample();
    expect(ages(with2)).toEqual([0, 0]);
    expect(of(child, with2).ussKb).toBe(privateKb(readSmapsRollup(child.pid)));
    expect(of(child, with2).ussKb).toBeGreaterThan(of(child, with3).ussKb);
    expect(watch.deferred).toBe(0);
  });

  test('is read at once, all of it, when a process becomes another program', async () => {
    // Its faults go on until then, and what it may have copied meanwhile it has copied.
    const script = '(trap "exec sleep 60" USR1; echo ready; while :; do x="$x a"; done) & echo $!; wait; wait';
    const program = startProgram('sh', ['-c', script]);
    try {
      const said = [await program.line(), await program.line()];
      const pid = Number(said.find((line) => line !== 'ready'));
      const watch = new TreeWatch(readStat(pid).ppid, { maxLoad: NEXT_TO_NOTHING });
      const first = watch.sample();
      await expect.poll(() => mostKb(of({ pid }, watch.sample())), { timeout: 20_000 }).toBeGreaterThan(0);
      const before = watch.sample();
      expect(of({ pid }, before).ageMs).toBeGreaterThan(0);
      expect(of({ pid }, before).pssKb).toBe(of({ pid }, first).pssKb);
      process.kill(pid, 'SIGUSR1');
      await expect.poll(() => readStat(pid).comm, { timeout: 20_000 }).toBe('sleep');
      const after = watch.sample();
      expect(after.processes.map(({ comm }) => comm)).toEqual(['sh', 'sleep']);
      expect(ages(after)).toEqual([0, 0]);
      expect(mostKb(of({ pid }, after))).toBeGreaterThanOrEqual(mostKb(of({ pid }, before)));
    } finally {
      await program.close();
    }
  });
});

test('with a load of 1 each look reads what stirs, however soon it comes', async () => {
  const { parent, child, region } = await family();
  const watch = new TreeWatch(parent.pid, { maxLoad: 1 });
  for (let look = 0; look < 50; look++) {
    await child.write(region, { first: look, pages: 1 });
    expect(ages(watch.sample())).toEqual([0, 0]);
  }
  expect(watch.deferred).toBe(0);
});

/** Numbers from 0 up to a limit, always the same for a seed [xorshift32]. */
function numbersOf(seed: number): (limit: number) => number {
  let state = seed;
  return (limit) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % limit;
  };
}

/** A process with the page frame behind each of its pages, and what it has copied: what must happen at least. */
interface Member {
  process: ForkedProcess;
  frames: number[];
  copied: number;
  children: number;
  parent: Member | undefined;
}

/** Processes that fork, write to ranges of one region, and end, as a seed has it. */
class RandomTree {
  readonly members: Member[] = [];
  #frames = 0;

  constructor(
    readonly root: ForkedProcess,
    readonly region: ForkedRegion,
    readonly pick: (limit: number) => number,
  ) {
    const frames = Array.from({ length: PAGES }, () => this.#frames++);
    this.members.push({ process: root, frames, copied: 0, children: 0, parent: undefined });
  }

  async step(): Promise<void> {
    const { pick, members } = this;
    const one = members[pick(members.length)];
    if (!one) throw new Error('the root is always there');
    const what = pick(10);
    if (what < 6) await this.#write(one, pick(PAGES), 1 + pick(64));
    else if (what < 8 && members.length < 5) await this.#fork(one);
    else if (one.children === 0 && one.parent) await this.#end(one, one.parent);
  }

  async #write(one: Member, first: number, most: number): Promise<void> {
    const pages = Math.min(most, PAGES - first);
    await one.process.write(this.region, { first, pages });
    for (let page = first; page < first + pages; page++) {
      const frame = one.frames[page];
      if (!this.members.some((other) => other !== one && other.frames[page] === frame)) continue;
      one.frames[page] = this.#frames++;
      one.copied++;
    }
  }

  async #fork(one: Member): Promise<void> {
    const process = await one.process.fork();
    opened.push(process);
    one.children++;
    this.members.push({ process, frames: [...one.frames], copied: 0, children: 0, parent: one });
  }

  async #end(one: Member, parent: Member): Promise<void> {
    await one.process.exit();
    parent.children--;
    this.members.splice(this.members.indexOf(one), 1);
  }
}

describe.each([NEXT_TO_NOTHING, 0.01, 1])('whatever processes do, with a load of %d', (maxLoad) => {
  test('none has copied more than its bound, in any look, and its faults are those of stat', async () => {
    let looksUnread = 0;
    for (let seed = 1; seed <= TREES; seed++) {
      const root = fork();
      opened.push(root);
      const region = await root.map({ pages: PAGES });
      await root.write(region);
      const pick = numbersOf(seed * 7919);
      const tree = new RandomTree(root, region, pick);
      const watch = new TreeWatch(root.pid, { maxLoad });
      const faultsAtFirst = readStat(root.pid).minflt - of(root, watch.sample()).minorFaults;
      for (let step = 0; step < 80; step++) {
        await tree.step();
        if (pick(3) !== 0) continue;
        const before = tree.members.map(({ process }) => readStat(process.pid).minflt);
        const sample = watch.sample({ whole: step > 70 });
        if (sample.longestReadMs === 0) looksUnread++;
        expect(sample.processes).toHaveLength(tree.members.length);
        for (const [index, { process, copied }] of tree.members.entries()) {
          const row = of(process, sample);
          const where = `seed ${String(seed)}, step ${String(step)}, process ${String(index)}`;
          expect(mostKb(row), where).toBeGreaterThanOrEqual(copied * PAGE_KB);
          const faults = row.minorFaults + (process === root ? faultsAtFirst : 0);
          expect(faults, where).toBeGreaterThanOrEqual(before[index] ?? Infinity);
          expect(faults, where).toBeLessThanOrEqual(readStat(process.pid).minflt);
        }
      }
      await root.close();
    }
    if (maxLoad === NEXT_TO_NOTHING) expect(looksUnread).toBeGreaterThan(20);
  });
});

test('who has read waits until that is paid for, but not with a load of 1', () => {
  const pace = new ReadingPace(0.05);
  expect(pace.isDue()).toBe(true);
  pace.settle(1e6, true);
  expect(pace.isDue()).toBe(false);
  const free = new ReadingPace(1);
  free.settle(1e6, true);
  expect(free.isDue()).toBe(true);
});

test('a stranger stays one until his pid may be another’s', () => {
  const strangers = new Strangers();
  strangers.known();
  const child = fork();
  opened.push(child);
  strangers.add([1, child.pid]);
  expect([...strangers.known()]).toEqual([1]);
  strangers.add([child.pid]);
  expect([...strangers.known()]).toEqual([1, child.pid]);
});

test.each([
  [{ maxLoad: 0 }, RangeError],
  [{ maxLoad: 1.5 }, RangeError],
  [{ maxLoad: NaN }, RangeError],
  [{ maxLoad: '5%' as unknown as number }, TypeError],
  [{ exclude: -1 }, RangeError],
  [null as unknown as { maxLoad: number }, TypeError],
])('options of %j are refused', (options, error) => {
  expect(() => new TreeWatch(process.pid, options)).toThrow(error);
});
