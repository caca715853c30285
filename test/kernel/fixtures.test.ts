/** Held fixtures as a library has them. */
import { existsSync } from 'node:fs';
import { Ajv } from 'ajv';
import { afterEach, describe, expect, test } from 'vitest';
import { fixtures } from '../../lib/fixtures/catalogue.js';
import { holdFixture } from '../../lib/fixtures/held.js';
import type { HeldFixture } from '../../lib/fixtures/held.js';
import { NoTruthError } from '../../lib/fixtures/truth.js';
import { FeatureUnavailableError } from '../../lib/errors.js';
import { readSmaps } from '../../lib/proc/smaps.js';
import { readStat } from '../../lib/proc/stat.js';
import type { Truth } from '../../lib/schema/fixture.js';
import { PUBLISHED_SCHEMAS } from '../../lib/schema/published.js';

/** What the published schema, as a validator that is not ours reads it, has against a truth. */
const ajv = new Ajv({ allowUnionTypes: true, allErrors: true });
const allows = ajv.compile(JSON.parse(JSON.stringify(PUBLISHED_SCHEMAS.fixture)) as object);
function complaints(truth: Truth | undefined): unknown[] {
  return allows(JSON.parse(JSON.stringify(truth))) ? [] : (allows.errors ?? []);
}

let held: HeldFixture | undefined;
afterEach(async () => {
  await held?.close();
});

async function hold(...args: Parameters<typeof holdFixture>): Promise<HeldFixture> {
  return (held = await holdFixture(...args));
}

describe('every fixture, small', () => {
  const small: Record<string, Record<string, unknown>> = {
    'many-vmas': { vmas: 40 },
    'deep-tree': { size: '64KiB', processes: 5, shape: 'fan' },
    'huge-pages': {},
    enomem: {},
    leak: { size: '64KiB', leak: '8KiB' },
  };

  test.for(fixtures.map(({ name }) => name))(
    '%s has a truth that the schema allows, before and after a step',
    async (name, { skip }) => {
      try {
        await hold(name, small[name] ?? { size: '64KiB' });
      } catch (error) {
        // Huge pages and the heuristic mode are not everywhere.
        if (error instanceof FeatureUnavailableError && ['huge-pages', 'enomem'].includes(name)) {
          skip(error.message);
        }
        throw error;
      }
      const before = held?.truth;
      expect(complaints(before)).toEqual([]);
      expect(before?.checked.figures).toBeGreaterThan(10);
      if (before?.more) expect(complaints(await held?.step())).toEqual([]);
      else await expect(held?.step()).rejects.toThrow(RangeError);
    },
  );
});

describe('a held fixture', () => {
  test('gives the anchor that was worked out by hand: half written by one of two', async () => {
    const { truth } = await hold('half-written', { size: '64KiB', steps: 2 });
    expect(truth.totals).toMatchObject({ processes: 2, ussKb: 64, frames: 24, smapsKb: { Rss: 128, Pss: 96 } });
    for (const { regions, pid, startTimeTicks } of truth.processes) {
      expect(regions[0]?.states).toEqual([
        [8, 'exclusive'],
        [8, 'shared'],
      ]);
      expect(readStat(pid).starttimeTicks).toBe(startTimeTicks);
    }
    const after = await held?.step();
    expect(after?.processes[1]?.regions[0]?.states).toEqual([
      [12, 'exclusive'],
      [4, 'shared'],
    ]);
  });

  test('has next to nothing beside its regions, and nothing of Node', async () => {
    const { truth } = await hold('fresh', { size: '64KiB' });
    const [root] = truth.processes;
    expect(root?.outside.smapsKb['Rss']).toBeLessThan(4096);
    expect(readSmaps(root?.pid ?? 0).some(({ path }) => path.endsWith('/node'))).toBe(false);
  });

  test('answers in the order in which it was asked', async () => {
    await hold('half-written', { size: '64KiB' });
    const truths = await Promise.all([held?.step(), held?.observe(), held?.step()]);
    expect(truths.map((truth) => truth?.step)).toEqual([1, 1, 2]);
    expect(held?.truth).toBe(truths[2]);
  });

  test('lets nobody change the model through what it tells', async () => {
    await hold('half-written', { size: '64KiB' });
    held?.truth.processes[0]?.regions[0]?.states.splice(0);
    for (const run of held?.truth.processes[1]?.regions[0]?.states ?? []) run[1] = 'zero';
    expect((await held?.observe())?.processes[1]?.regions[0]?.states).toEqual([
      [8, 'exclusive'],
      [8, 'shared'],
    ]);
  });

  test('has no truth once somebody has ended one of its processes, and says which', async () => {
    const { truth } = await hold('forked', { size: '64KiB', children: 2 });
    const victim = truth.processes.find(({ process }) => process === 'root.2')?.pid ?? 0;
    process.kill(victim, 'SIGKILL');
    await expect.poll(() => existsSync(`/proc/${String(victim)}`)).toBe(false);
    const error: unknown = await held?.observe().catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(NoTruthError);
    expect((error as NoTruthError).message).toMatch(/there is no truth to tell: step 0: root\.2: is alive/);
  });

  test('is gone when it is closed, which may be done twice', async () => {
    const { truth } = await hold('deep-tree', { size: '64KiB', processes: 8 });
    await held?.close();
    await held?.close();
    for (const { pid } of truth.processes) expect(existsSync(`/proc/${String(pid)}`)).toBe(false);
    await expect(held?.observe()).rejects.toThrow(/closed/);
  });

  test('takes a recorded trace, and refuses what is none', async () => {
    const step = { op: 'fork', process: 'root', child: 'root.1' } as const;
    await hold({ experiment: 'mine', trace: [{ step, outcome: {} }] });
    expect(held?.truth).toMatchObject({ fixture: 'mine', did: 'moment 1 of 1 of mine: the end', more: false });
    await expect(holdFixture(7 as never)).rejects.toThrow(TypeError);
    await expect(holdFixture('forked', { size: 5000 })).rejects.toThrow(RangeError);
  });
});
