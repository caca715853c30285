import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { planCgroup } from '../../lib/api/limited-cgroup.js';
import { parseParams } from '../../lib/experiments/define.js';
import { oom } from '../../lib/experiments/oom.js';
import { runExperiment } from '../../lib/experiments/run.js';
import { cgroupMutations } from '../../lib/machine/model/mutation.js';
import { openMachine } from '../../lib/machine/open.js';
import { readCgroups } from '../../lib/proc/cgroup.js';
import type { ResultDocument } from '../../lib/schema/result.js';
import { isRedWith } from './red.js';

const plan = planCgroup();
const noMemory = 'reason' in plan.memory ? plan.memory.reason : undefined;
const noPids = 'reason' in plan.pids ? plan.pids.reason : undefined;
const withMemory = describe.skipIf(noMemory !== undefined);
const because = (reason: string | undefined): string => (reason === undefined ? '' : ` (skipped: ${reason})`);

const MIB = 2 ** 20;
const SMALL = { size: 8 * MIB, extra: 48 * MIB };

function run(given: Record<string, unknown>): Promise<ResultDocument> {
  return runExperiment(oom, parseParams(oom, { ...SMALL, ...given }), { allowSystemChanges: true });
}

function figure(result: ResultDocument, name: string) {
  return result.measurement?.figures.find((one) => one.name.startsWith(name))?.value;
}

/** Directories that a cgroup of this test could have left. */
function ownCgroup(pid: number): string {
  const { directory } = readCgroups(pid).memory;
  if (directory === undefined) throw new Error('it is in no memory cgroup');
  return directory;
}

withMemory(`children that write what they were promised${because(noMemory)}`, () => {
  test.each([
    ['bystander', 3, 2],
    ['parent', 0, 2],
    ['writer', 2, 2],
  ])('largest=%s: the largest is killed, as predicted, and it is process %i', async (largest, victim, writer) => {
    const result = await run({ largest });
    expect(result.reason).toMatch(/checks agree/);
    expect(result.verdict).toBe('pass');
    expect(figure(result, 'first victim')).toBe(victim);
    expect(figure(result, 'writer meanwhile')).toBe(writer);
    expect(figure(result, 'calls that were refused')).toBe(0);
    expect(result.trace.some(({ outcome }) => outcome.uncertain !== undefined)).toBe(false);
  });

  test('a limit that is enough for all copies kills nobody', async () => {
    const result = await run({ limit: 8 * MIB * 4 + 48 * MIB + 8 * MIB });
    expect(result.verdict).toBe('pass');
    expect(figure(result, 'processes killed')).toBe(0);
    expect(result.claim.outcome).toBe('holds only if');
  });

  test('the writer dies at the page at which there is no room left, to the stock of the CPUs', async () => {
    const result = await run({ largest: 'writer', steps: 1 });
    expect(result.verdict).toBe('pass');
    const faults = result.checks.find(
      ({ name, expected }) => name.endsWith('minor faults') && typeof expected === 'object',
    );
    expect(faults?.pass).toBe(true);
  });

  test('each page that is copied is charged to the cgroup, and nothing else but a few of the kernel', async () => {
    const result = await run({});
    const charged = result.checks.filter(({ name, pass }) => name.includes('charged to the cgroup') && pass !== null);
    expect(charged.length).toBeGreaterThan(5);
    expect(charged.every(({ pass }) => pass)).toBe(true);
  });
});

withMemory(`the checks can fail${because(noMemory)}`, () => {
  test.each(['oom-takes-the-writer', 'copies-are-not-charged'] as const)(
    'oom goes red when the model believes that %s',
    async (mutation) => {
      expect(await isRedWith(mutation, await run({}))).toBe(true);
    },
  );

  test('each wrong rule about cgroups is tried', () => {
    expect(cgroupMutations).toEqual(['oom-takes-the-writer', 'copies-are-not-charged', 'pids-max-is-off-by-one']);
  });
});

describe.skipIf(noPids !== undefined)(`pids.max${because(noPids)}`, () => {
  test('refuses a fork with EAGAIN and never ENOMEM, at the task that was predicted, and says why', async () => {
    const result = await run({ controller: 'pids', pids: 5 });
    expect(result.verdict).toBe('pass');
    expect(result.measurement?.figures.map(({ value }) => value)).toEqual([4, 1, 0, 1]);
    const refused = result.trace.find(({ outcome }) => outcome.failure)?.outcome.failure;
    expect(refused?.why).toMatch(/has 5 tasks of pids.max 5/);
  });

  test('goes red when the model allows one task more', async () => {
    expect(await isRedWith('pids-max-is-off-by-one', await run({ controller: 'pids', pids: 5 }))).toBe(true);
  });
});

withMemory(`a cgroup of our own${because(noMemory)}`, () => {
  test('holds neither this process nor the root, and is gone once the machine is closed', async () => {
    const machine = await openMachine({ allow: ['cgroup'] });
    let directory: string;
    try {
      await machine.limitCgroup({ memoryMaxBytes: 16 * MIB });
      const parent = await machine.root.fork();
      await parent.joinCgroup();
      const child = await parent.fork();
      directory = ownCgroup(machine.pidOf(child));
      expect(directory).toMatch(/\/cowlab-[0-9a-f-]+$/);
      expect(ownCgroup(machine.pidOf(parent))).toBe(directory);
      for (const pid of [process.pid, machine.pidOf(machine.root)]) expect(ownCgroup(pid)).not.toBe(directory);
    } finally {
      await machine.close();
    }
    expect(existsSync(directory)).toBe(false);
  });

  test('is gone after a program that failed', async () => {
    let directory = '';
    const failing = (async () => {
      const machine = await openMachine({ allow: ['cgroup'] });
      try {
        await machine.limitCgroup({ memoryMaxBytes: 16 * MIB });
        const parent = await machine.root.fork();
        await parent.joinCgroup();
        directory = ownCgroup(machine.pidOf(parent));
        await parent.map({ pages: 0 });
      } finally {
        await machine.close();
      }
    })();
    await expect(failing).rejects.toThrow(RangeError);
    expect(directory).not.toBe('');
    expect(existsSync(directory)).toBe(false);
  });

  /** To start Node takes its time in the guests of scripts/test-vm.js; what outlives it is tried elsewhere (death.test.ts). */
  const testByNode = test.skipIf(process.env['COWLAB_GUEST'] === '1');
  testByNode('is gone soon after SIGKILL of the harness, and its processes with it', async () => {
    const library = new URL('../../dist/index.js', import.meta.url).href;
    const file = fileURLToPath(new URL('oom-victim.mjs', import.meta.url));
    const stdio = ['ignore', 'pipe', 'ignore'] as const;
    const harness = spawn(process.execPath, [file], {
      stdio: [...stdio],
      env: { ...process.env, COWLAB_LIBRARY: library },
    });
    const [line] = (await once(harness.stdout, 'data')) as [Buffer];
    const directory = ownCgroup(Number(line.toString()));
    expect(existsSync(directory)).toBe(true);
    harness.kill('SIGKILL');
    await once(harness, 'exit');
    while (existsSync(directory)) await delay(5);
  });

  test('is not made without leave', async () => {
    const machine = await openMachine();
    try {
      await expect(machine.limitCgroup({ pidsMax: 5 })).rejects.toThrow(/without leave to change the system/);
    } finally {
      await machine.close();
    }
  });
});

test('without leave the experiment is skipped, with the reason', async () => {
  const result = await runExperiment(oom, parseParams(oom, {}));
  expect(result.verdict).toBe('skip');
  expect(result.reason).toMatch(/--allow-system-changes/);
});
