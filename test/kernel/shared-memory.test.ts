import { readFileSync, readdirSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { parseParams } from '../../lib/experiments/define.js';
import { predictExperiment, runExperiment } from '../../lib/experiments/run.js';
import { sharedMemory } from '../../lib/experiments/shared-memory.js';
import { addInProcesses } from '../../lib/experiments/sharing-ways.js';
import { readHostFacts } from '../../lib/proc/host.js';
import { isRedWith } from './red.js';

const SMALL = { size: 100 * 4096, children: 3, times: 5000 };

function leftovers(): { children: string; descriptors: number } {
  return {
    children: readFileSync(`/proc/self/task/${String(process.pid)}/children`, 'utf8'),
    descriptors: readdirSync('/proc/self/fd').length,
  };
}

const run = (given: Record<string, unknown>) =>
  runExperiment(sharedMemory, parseParams(sharedMemory, { ...SMALL, ...given }));

describe('shared-memory', () => {
  test.each([{}, { children: 2, times: 1000 }, { children: 5, size: 4096, times: 2000 }])(
    'nothing is lost with a lock, by atomics or by messages, and pages are as the model says, with %o',
    async (variant) => {
      const result = await run(variant);
      expect(result.reason).toMatch(/checks agree/);
      expect(result.verdict).toBe('pass');
    },
  );

  test('a private array is copied where it is written, and a shared one is not', async () => {
    const { measurement } = await run({ children: 4 });
    const value = (name: string) => measurement?.figures.find((one) => one.name === name)?.value;
    expect(value('private array: exclusive pages of the first worker')).toBe(25);
    expect(value('shared array: sum of Pss, written')).toBe(400);
    expect(value('private array: sum of Pss, written')).toBe(800);
    expect(value('told that the last owner died')).toBe(1);
  });

  test('each total is checked by its own rule: exactly, or within what can be lost', async () => {
    const { checks } = await run({});
    const lossy = checks.filter(({ basis }) => basis === 'bound');
    // Without a lock by two workers and by three, processes and threads; one worker alone loses nothing.
    expect(lossy).toHaveLength(4);
    expect(lossy[0]?.expected).toMatchObject({ min: 2, max: 2 * 5000 });
    expect(checks.filter(({ basis }) => basis === 'anchor')).toHaveLength(9 * 3 - 4 + 3 * 3 + 2 + 3);
  });

  test('an addition without a lock is found to lose where nothing may be lost', async () => {
    // As long as it takes for two to meet: each time is a new chance.
    for (let times = 100_000; times < 1e9; times *= 2) {
      const { total } = await addInProcesses(2, 'none', times, (close) => async () => {
        await close();
      });
      if (total < 2 * times) return;
    }
    expect.unreachable('two processes added a thousand million times, and nothing was lost');
  });

  test('goes red when the model believes that shared pages are taken over', async () => {
    expect(await isRedWith('reuse-of-shared-pages', await run({}))).toBe(true);
  });

  test('leaves no process, thread or descriptor', async () => {
    await run({});
    const before = leftovers();
    await run({});
    expect(leftovers()).toEqual(before);
  });

  test('can be predicted alone, and refuses a size that is no page', async () => {
    const facts = readHostFacts(process.pid);
    const { claim } = await predictExperiment(sharedMemory, parseParams(sharedMemory, SMALL), facts);
    expect(claim.inShort).toMatch(/worth their price\.$/);
    expect(() => sharedMemory.needs(parseParams(sharedMemory, { size: 5000 }), facts)).toThrow(
      /multiple of the page size/,
    );
  });
});
