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

/** A victim that tells, a line each, the pids of the processes it has made. */
class Victim {
  readonly process;
  readonly exited;
  output = '';

  constructor(how: string) {
    this.process = spawn(process.execPath, [VICTIM, how], {
      stdio: ['ignore', 'pipe', 'ignore'],
      env: { ...process.env, COWLAB_LIBRARY: LIBRARY },
    });
    this.exited = once(this.process, 'exit');
    this.process.stdout.on('data', (chunk: Buffer) => (this.output += chunk.toString()));
  }

  get lines(): string[] {
    return this.output.split('\n').slice(0, -1);
  }

  /** Itself and all that it told of. */
  get pids(): number[] {
    return [this.process.pid ?? 0, ...this.lines.filter((line) => /^\d+$/.test(line)).map(Number)];
  }

  async hasTold(lines: number): Promise<void> {
    while (this.lines.length < lines) await once(this.process.stdout, 'data');
  }

  async kill(signal: NodeJS.Signals): Promise<void> {
    this.process.kill(signal);
    await this.exited;
  }
}

/** Whoever is not told to end lives for ever, so that a long wait hides nobody: an emulated machine is slow. */
const DYING_MS = 30_000;

async function expectAllGone(pids: readonly number[]): Promise<void> {
  const deadline = Date.now() + DYING_MS;
  while (living(pids).length > 0 && Date.now() < deadline) await delay(5);
  expect(living(pids)).toEqual([]);
}

const sharedNames = () => readdirSync('/dev/shm').filter((name) => name.includes('cowlab'));

/** Where each takes long, each step at once and a moment later. */
const MOMENTS = process.env['COWLAB_SHORT'] === '1' ? 24 : 60;

test('no process outlives a Node that was killed at any of many moments', { timeout: 600_000 }, async () => {
  let told = 0;
  for (let moment = 0; moment < MOMENTS; moment++) {
    const victim = new Victim('work');
    // From before the first fork to the third laboratory, and then some: so that each kind of step is hit.
    await victim.hasTold(moment % 12);
    await delay(Math.floor(moment / 12) * 0.7);
    await victim.kill('SIGKILL');
    told += victim.pids.length - 1;
    await expectAllGone(victim.pids);
  }
  expect(told).toBeGreaterThan(MOMENTS * 5);
  expect(sharedNames()).toEqual([]);
});

test.each(['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGSEGV'] as const)('none outlives a Node ended by %s', async (signal) => {
  const victim = new Victim('work');
  await victim.hasTold(7);
  await victim.kill(signal);
  await expectAllGone(victim.pids);
});

test.each(['exit', 'throw'])('none outlives a Node that ends by %s in the middle', async (how) => {
  const victim = new Victim(how);
  await victim.exited;
  expect(victim.pids.length).toBeGreaterThan(3);
  await expectAllGone(victim.pids);
});

test('none outlives a worker that is terminated, though Node goes on', async () => {
  const victim = new Victim('worker');
  try {
    while (!victim.lines.includes('terminated')) await once(victim.process.stdout, 'data');
    const [self, ...others] = victim.pids;
    expect(others.length).toBeGreaterThan(6);
    await expectAllGone(others);
    expect(living([self ?? 0])).toEqual([self]);
  } finally {
    await victim.kill('SIGKILL');
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
