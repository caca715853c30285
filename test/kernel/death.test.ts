import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, readdirSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { createMemfd } from '../../lib/api/file-object.js';
import { fork } from '../../lib/api/forked-process.js';
import { mmap } from '../../lib/api/mapping.js';
import { openMachine } from '../../lib/machine/open.js';

const VICTIM = fileURLToPath(new URL('victim.mjs', import.meta.url));
const LIBRARY = new URL('../../dist/index.js', import.meta.url).href;

function start(how: string) {
  return spawn(process.execPath, [VICTIM, how], {
    stdio: ['ignore', 'pipe', 'ignore'],
    env: { ...process.env, COWLAB_LIBRARY: LIBRARY },
  });
}

/** Processes that live. A zombie is dead, and whoever inherited it may take its time to bury it. */
function living(pids: readonly number[]): number[] {
  return pids.filter((pid) => {
    try {
      const stat = readFileSync(`/proc/${String(pid)}/stat`, 'utf8');
      return !/^[ZX]/.test(stat.slice(stat.lastIndexOf(')') + 2));
    } catch {
      return false;
    }
  });
}

/** Runs a victim until it has ended, and returns the pids of all the processes that it told of. */
async function pidsOfVictim(how: string, end?: (pid: number) => Promise<void>): Promise<number[]> {
  const victim = start(how);
  let output = '';
  victim.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()));
  if (end && victim.pid !== undefined) {
    await once(victim.stdout, 'data');
    await end(victim.pid);
  }
  await once(victim, 'exit');
  const told = output.split('\n').slice(0, -1).map(Number);
  return [victim.pid ?? 0, ...told];
}

async function expectAllGone(pids: readonly number[]): Promise<void> {
  const deadline = Date.now() + 3000;
  while (living(pids).length > 0 && Date.now() < deadline) await delay(5);
  expect(living(pids)).toEqual([]);
}

const sharedNames = () => readdirSync('/dev/shm').filter((name) => name.includes('cowlab'));

test('no process outlives a Node that was killed at any of 60 moments', { timeout: 120_000 }, async () => {
  let told = 0;
  for (let moment = 0; moment < 60; moment++) {
    const pids = await pidsOfVictim('work', async (pid) => {
      // Every half millisecond of what takes a victim some 30 ms, so that each kind of step is hit.
      await delay(moment / 2);
      process.kill(pid, 'SIGKILL');
    });
    told += pids.length - 1;
    await expectAllGone(pids);
  }
  expect(told).toBeGreaterThan(100);
  expect(sharedNames()).toEqual([]);
});

test.each(['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGSEGV'] as const)('none outlives a Node ended by %s', async (signal) => {
  const pids = await pidsOfVictim('work', async (pid) => {
    await delay(40);
    process.kill(pid, signal);
  });
  expect(pids.length).toBeGreaterThan(3);
  await expectAllGone(pids);
});

test.each(['exit', 'throw'])('none outlives a Node that ends by %s in the middle', async (how) => {
  const pids = await pidsOfVictim(how);
  expect(pids.length).toBeGreaterThan(3);
  await expectAllGone(pids);
});

test('none outlives a worker that is terminated, though Node goes on', async () => {
  const victim = start('worker');
  let output = '';
  victim.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()));
  try {
    await delay(1500);
    const pids = output.split('\n').slice(0, -1).map(Number);
    expect(pids.length).toBeGreaterThan(3);
    await expectAllGone(pids);
    expect(victim.exitCode).toBeNull();
  } finally {
    victim.kill('SIGKILL');
  }
});

/** What this very process holds of the kernel's: descriptors, mappings, children. */
function holdings() {
  const self = String(process.pid);
  const children = readFileSync(`/proc/${self}/task/${self}/children`, 'utf8').trim().split(' ').filter(Boolean);
  return {
    fds: readdirSync('/proc/self/fd').length,
    guards: readFileSync('/proc/self/smaps', 'utf8').match(/^VmFlags:.*\bdd\b/gm)?.length ?? 0,
    children: children.length,
  };
}

test('200 laboratories opened and closed leave no descriptor, no mapping, no child and no zombie', async () => {
  const cycle = async (): Promise<void> => {
    const root = fork();
    const child = await root.fork();
    const object = createMemfd(4);
    const memory = mmap({ pages: 4, object, sharing: 'shared' });
    const region = await child.map({ pages: 4, object, sharing: 'shared' });
    await child.write(region);
    await expect(root.map({ pages: 2 ** 33 })).rejects.toThrow('ENOMEM');
    memory.unmap();
    object.close();
    await root.close();
  };
  await cycle();
  const before = holdings();
  for (let i = 0; i < 200; i++) await cycle();
  await delay(20);
  expect(holdings()).toEqual(before);
});

test('a machine closed in the middle of its program leaves nothing, and closing twice is no error', async () => {
  const before = holdings();
  const machine = await openMachine();
  const region = await machine.root.map({ pages: 100_000 });
  const work = Promise.allSettled([machine.root.write(region), machine.root.fork(), machine.root.fork()]);
  await machine.close();
  await machine.close();
  await work;
  await delay(20);
  expect(holdings()).toEqual(before);
});
