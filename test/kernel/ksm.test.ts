/** ksmd at work: its settings are put back, and what the model does not know it does not say. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { afterEach, expect, test } from 'vitest';
import { SystemChanges, findLeftBehind } from '../../lib/api/system-changes.js';
import { advice } from '../../lib/experiments/advice.js';
import { parseParams } from '../../lib/experiments/define.js';
import { runExperiment } from '../../lib/experiments/run.js';
import { compareTraces, describeCheck } from '../../lib/machine/compare.js';
import { openMachine, replayOnModel } from '../../lib/machine/open.js';
import { readKsm } from '../../lib/proc/ksm.js';
import { at } from '../anchor.js';
import { whyNoKsmd } from '../ksm-settings.js';

const why = whyNoKsmd();
const NAMES = ['run', 'max_page_sharing', 'pages_to_scan', 'sleep_millisecs', 'smart_scan', 'use_zero_pages'];

function settings(): Record<string, string> {
  const there = NAMES.map((name) => [name, `/sys/kernel/mm/ksm/${name}`] as const).filter(([, path]) =>
    existsSync(path),
  );
  return Object.fromEntries(there.map(([name, path]) => [name, readFileSync(path, 'utf8').trim()]));
}

const before = settings();
let changes: SystemChanges | undefined;
afterEach(async () => {
  await changes?.restore();
  changes = undefined;
  expect(settings()).toEqual(before);
});

function startKsmd(): void {
  changes = SystemChanges.begin({ ksm: true, purpose: 'a test' });
  changes.setKsm({ pages_to_scan: 10_000, sleep_millisecs: 0, smart_scan: 0, run: 1 });
}

/** Passes over all mergeable memory are what there is to wait for. */
async function passes(count: number): Promise<void> {
  const { fullScans: from = 0 } = readKsm() ?? {};
  while ((readKsm()?.fullScans ?? Infinity) < from + count) await new Promise(setImmediate);
}

test('while ksmd merges, the model says nothing wrong of any page, figure or fault, and the run is disturbed', async ({
  skip,
}) => {
  if (why !== undefined) skip(why);
  startKsmd();
  const machine = await openMachine();
  try {
    const { root } = machine;
    expect(machine.facts).toMatchObject({ hasKsm: true, ksmRuns: true });
    const region = await root.map({ pages: 300 });
    const exact = await root.map({ pages: 40 });
    const huge = await root.map({ pages: 1024, hugePages: true });
    for (const each of [region, exact, huge]) await root.write(each, { pages: 30 });
    await root.write(region, { pages: 200 });
    for (const each of [region, huge]) await root.advise(each, 'mergeable', { first: 5 });
    const child = await root.fork();
    for (let round = 0; round < 3; round++) {
      await passes(3);
      const merged = at(await machine.observe(`merged ${String(round)}`), root, region);
      expect(merged.counts['shared'], 'what was merged').toBeGreaterThan(90);
      await child.write(region, { first: 40 * round, pages: 60 });
      await child.write(huge, { first: 300 * round, pages: 10 });
      await root.read(huge);
      await root.advise(region, round === 1 ? 'unmergeable' : 'mergeable', { pages: 100 });
      await machine.observe(`written ${String(round)}`);
    }
    await child.exit();
    await root.write(region);
    await root.write(exact);
    const checks = compareTraces(await replayOnModel(machine.trace, machine.facts), machine.trace);
    expect(checks.filter(({ pass }) => pass === false).map(describeCheck)).toEqual([]);
    expect(checks.filter(({ pass }) => pass === null).length, 'unknown').toBeGreaterThan(100);
    // Without the fact the model takes everything for exact, and is found to be wrong.
    const naive = await replayOnModel(machine.trace, { ...machine.facts, ksmRuns: false });
    expect(compareTraces(naive, machine.trace).some(({ pass }) => pass === false)).toBe(true);
    expect(machine.disturbances().join()).toMatch(/KSM merged pages \(ksm_pages_sharing \+\d+\)/);
  } finally {
    await machine.close();
  }
});

test(
  'the experiment advice is never wrong while ksmd runs, and inconclusive where it merged',
  { timeout: 120_000 },
  async ({ skip }) => {
    if (why !== undefined) skip(why);
    startKsmd();
    const { verdict, reason, checks } = await runExperiment(advice, parseParams(advice, { size: 2 ** 24 }));
    expect(checks.filter(({ pass }) => pass === false).map(describeCheck)).toEqual([]);
    // Whether ksmd has come through meanwhile nobody knows.
    expect(['pass', 'inconclusive']).toContain(verdict);
    expect(reason).toMatch(verdict === 'pass' ? /figures cannot be known/ : /KSM/);
  },
);

test('where ksmd runs already, nobody sets it going a second time', ({ skip }) => {
  if (why !== undefined) skip(why);
  startKsmd();
  expect(() => SystemChanges.begin({ ksm: true, purpose: 'another' })).toThrow(/ksmd runs already/);
});

test('the settings of ksmd are put back when the process that set them is killed', async ({ skip }) => {
  if (why !== undefined) skip(why);
  const script = `const { openMachine } = await import(process.env.COWLAB_LIBRARY);
    const machine = await openMachine({ allow: ['ksm'], purpose: 'a test' });
    const region = await machine.root.map({ pages: 3000 });
    await machine.root.write(region);
    await machine.root.advise(region, 'mergeable');
    await machine.root.fork();
    await machine.mergePages();
    console.log('merged');
    for (;;) await machine.mergePages();`;
  const env = { ...process.env, COWLAB_LIBRARY: new URL('../../dist/index.js', import.meta.url).href };
  const changer = spawn(process.execPath, ['--input-type=module', '-e', script], {
    env,
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  const exited = once(changer, 'exit');
  await once(changer.stdout, 'data');
  expect(settings()['max_page_sharing']).not.toBe(before['max_page_sharing']);
  expect(readKsm()?.pagesSharing).toBe(5999);
  changer.kill('SIGKILL');
  await exited;
  changer.stdout.destroy();
  while (findLeftBehind().state !== 'nothing') await new Promise(setImmediate);
  expect(settings()).toEqual(before);
});
