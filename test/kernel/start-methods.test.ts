/** start-methods and node-spawn: what the model predicts, what is counted by hand, and what is only measured. */
import { readFileSync, readdirSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { parseParams } from '../../lib/experiments/define.js';
import { nodeSpawn } from '../../lib/experiments/node-spawn.js';
import { predictExperiment, runExperiment } from '../../lib/experiments/run.js';
import { startMethods } from '../../lib/experiments/start-methods.js';
import { compareTraces } from '../../lib/machine/compare.js';
import { replayOnModel } from '../../lib/machine/open.js';
import { readHostFacts } from '../../lib/proc/host.js';
import { readSysctls } from '../../lib/proc/sysctl.js';
import type { ResultDocument } from '../../lib/schema/result.js';
import { isRedWith } from './red.js';

const heuristic = readSysctls().overcommitMemory === 0;

function figure({ measurement }: ResultDocument, name: string): unknown {
  const found = measurement?.figures.find((one) => one.name === name);
  if (!found) expect.unreachable(`there is no figure ${name}`);
  return found.value;
}

/** Children of this process that have not been waited for, and its descriptors. */
function leftovers(): { children: string; descriptors: number } {
  return {
    children: readFileSync(`/proc/self/task/${String(process.pid)}/children`, 'utf8'),
    descriptors: readdirSync('/proc/self/fd').length,
  };
}

describe('start-methods', () => {
  const SMALL = { size: 256 * 4096, children: 3 };

  test.each([{}, { children: 1 }, { size: 4096, children: 2 }, { size: 1001 * 4096, children: 5 }])(
    'every figure equals the model, or what was counted by hand, with %o',
    async (variant) => {
      const result = await runExperiment(startMethods, parseParams(startMethods, { ...SMALL, ...variant }));
      expect(result.reason).toMatch(/checks agree/);
      expect(result.verdict).toBe('pass');
      const anchors = result.checks.filter(({ basis }) => basis === 'anchor');
      expect(anchors).toHaveLength(heuristic ? 4 : 2);
    },
  );

  test('what is sent is there once for each worker and the parent; what is inherited or shared, once', async () => {
    const result = await runExperiment(startMethods, parseParams(startMethods, SMALL));
    // 1024 kB each; four mappers of a page have 256 kB of it each.
    expect(figure(result, 'fork, data inherited: used at work')).toBe(1024);
    expect(figure(result, 'fork, data inherited: commit charge')).toBe(4 * 1024);
    expect(figure(result, 'fork, data sent to each: used at work')).toBe(4 * 1024);
    expect(figure(result, 'fork, data sent to each: commit charge')).toBe((4 + 3) * 1024);
    expect(figure(result, 'fork, data shared (memfd): used at work')).toBe(1024);
    expect(figure(result, 'fork, data shared (memfd): commit charge')).toBe(0);
    expect(figure(result, 'forkserver, data sent to each: used at the start')).toBe(1024);
    expect(figure(result, 'forkserver, data sent to each: used at work')).toBe(4 * 1024);
    expect(figure(result, 'forkserver, data sent to each: commit charge')).toBe(4 * 1024);
    expect(figure(result, 'forkserver, data shared (memfd): used at work')).toBe(1024);
  });

  test.runIf(heuristic)('fork is refused beyond RAM plus swap, and forkserver and spawn are not', async () => {
    const result = await runExperiment(startMethods, parseParams(startMethods, SMALL));
    expect(figure(result, 'fork beyond RAM plus swap')).toBe(0);
    expect(figure(result, 'forkserver beyond RAM plus swap')).toBe(1);
    const [refused, answered] = result.checks
      .filter(({ name }) => name.includes('beyond RAM plus swap') && name.includes(' '))
      .filter(({ basis }) => basis === 'anchor');
    expect([refused?.measured, answered?.measured]).toEqual([1, 1]);
  });

  test('leaves no process and no descriptor', async () => {
    await runExperiment(startMethods, parseParams(startMethods, SMALL));
    const before = leftovers();
    await runExperiment(startMethods, parseParams(startMethods, SMALL));
    expect(leftovers()).toEqual(before);
  });

  test('goes red when the model believes that a read maps its own page only', async () => {
    expect(
      await isRedWith('no-fault-around', await runExperiment(startMethods, parseParams(startMethods, SMALL))),
    ).toBe(true);
  });

  test.runIf(heuristic)('goes red when the model allows a VMA of one page more', async () => {
    const { trace, facts } = await runExperiment(startMethods, parseParams(startMethods, SMALL));
    if (!facts) expect.unreachable('it ran');
    const generous = { ...facts, memTotalPages: facts.memTotalPages + 1 };
    const failed = compareTraces(await replayOnModel(trace, generous), trace).filter(({ pass }) => pass === false);
    expect(failed.map(({ name }) => name).join('\n')).toMatch(/fork root.*expected/);
  });
});

describe('node-spawn', () => {
  const SMALL = { size: 64 * 2 ** 20, rounds: 3 };

  test('child_process.spawn is refused where predict says so, and posix_spawn is not', async () => {
    const before = leftovers();
    const result = await runExperiment(nodeSpawn, parseParams(nodeSpawn, SMALL));
    expect(result.reason).toMatch(/checks agree/);
    expect(result.verdict).toBe('pass');
    expect(result.checks.filter(({ basis }) => basis !== 'model')).toHaveLength(heuristic ? 3 : 0);
    if (heuristic) expect(figure(result, 'forks beyond RAM plus swap')).toBe(0);
    expect(result.samples).toHaveLength(4);
    expect(leftovers()).toEqual(before);
  });

  test.runIf(heuristic)('goes red when the model allows a VMA of one page more', async () => {
    const { trace, facts } = await runExperiment(nodeSpawn, parseParams(nodeSpawn, SMALL));
    if (!facts) expect.unreachable('it ran');
    const generous = { ...facts, memTotalPages: facts.memTotalPages + 1 };
    const checks = compareTraces(await replayOnModel(trace, generous), trace);
    expect(checks.some(({ pass }) => pass === false)).toBe(true);
  });
});

test.each([startMethods, nodeSpawn])(
  '$name can be predicted alone, and refuses a size that is no page',
  async (one) => {
    const facts = readHostFacts(process.pid);
    const { claim, prediction } = await predictExperiment(one, parseParams(one, {}), facts);
    expect(claim.inShort.length).toBeGreaterThan(40);
    expect(prediction?.notes.at(-1)).toMatch(/left out/);
    expect(() => one.needs(parseParams(one, { size: 5 * 4096 + 1 }), facts)).toThrow(/multiple of the page size/);
  },
);
