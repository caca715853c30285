import { execFileSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import type { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { Worker } from 'node:worker_threads';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { SystemError } from '../../lib/errors.js';
import { spawnFresh } from '../../lib/api/fresh-process.js';
import { mmap } from '../../lib/api/mapping.js';
import { spawn } from '../../lib/api/spawn.js';
import type { SpawnOptions, SpawnedProgram } from '../../lib/api/spawn.js';
import { countPages } from '../../lib/proc/pagemap.js';
import { readHostFacts } from '../../lib/proc/host.js';
import { readSysctls } from '../../lib/proc/sysctl.js';

/** Fewer where each takes long, as in an emulated machine. */
const IN_A_ROW = process.env['COWLAB_SHORT'] === '1' ? 60 : 300;

let folder = '';
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'cowlab-spawn-'));
});
afterAll(() => {
  rmSync(folder, { recursive: true });
});

const loose = (value: unknown) => value as never;

function descriptors(): string[] {
  return readdirSync('/proc/self/fd');
}

/** Of this process, those that have ended and were not waited for. */
function zombies(): string[] {
  return readFileSync(`/proc/self/task/${String(process.pid)}/children`, 'utf8')
    .split(' ')
    .filter((pid) => pid.trim() !== '')
    .filter((pid) => readFileSync(`/proc/${pid}/stat`, 'utf8').includes(') Z '));
}

function outputSocket({ stdio }: SpawnedProgram): Socket {
  const [, socket] = stdio;
  if (!socket) expect.unreachable('it has a pipe');
  return socket;
}

/** What a program writes to its standard output. */
async function outputOf(file: string, args: string[], options: SpawnOptions = {}): Promise<string> {
  const program = spawn(file, args, { stdio: ['ignore', 'pipe', 'inherit'], ...options });
  const output = await text(outputSocket(program));
  expect(await program.ended).toMatchObject({ code: 0 });
  return output;
}

describe('a program by posix_spawn', () => {
  test('runs, and how it ended is told', async () => {
    expect(await spawn('true').ended).toMatchObject({ code: 0 });
    expect(await spawn('sh', ['-c', 'exit 7']).ended).toMatchObject({ code: 7 });
    const sleeper = spawn('sleep', ['100']);
    expect(sleeper.status).toBeUndefined();
    sleeper.kill('SIGKILL');
    expect(await sleeper.ended).toMatchObject({ signal: 'SIGKILL' });
    expect(sleeper.status).toMatchObject({ signal: 'SIGKILL' });
    sleeper.kill();
    expect(sleeper.spawnNs).toBeGreaterThan(0);
    expect(zombies()).toEqual([]);
  });

  test('is given its arguments, its environment and its directory', async () => {
    expect(await outputOf('printf', ['%s|', 'a b', '', 'ü'])).toBe('a b||ü|');
    const env = { ONE: 'two three', EMPTY: '', LEFT_OUT: undefined };
    expect(await outputOf('/usr/bin/env', [], { env })).toBe('ONE=two three\nEMPTY=\n');
    process.env['COWLAB_TEST_SPAWN'] = 'inherited';
    expect(await outputOf('sh', ['-c', 'echo $COWLAB_TEST_SPAWN'])).toBe('inherited\n');
    delete process.env['COWLAB_TEST_SPAWN'];
    expect(await outputOf('pwd', ['-P'], { cwd: folder })).toBe(`${folder}\n`);
  });

  test('what execve says is an error of the call, and nothing is left open', () => {
    const file = join(folder, 'not-executable');
    writeFileSync(file, '#!/bin/sh\n');
    const before = descriptors();
    const pipes: SpawnOptions = { stdio: ['pipe', 'pipe', 'pipe'] };
    const failing = (name: string, args: string[], options: SpawnOptions): unknown => {
      try {
        return spawn(name, args, options);
      } catch (error) {
        return error;
      }
    };
    for (const [name, args, options, code] of [
      ['cowlab-no-such-program', [], pipes, 'ENOENT'],
      [file, [], pipes, 'EACCES'],
      ['true', ['x'.repeat(200_000)], pipes, 'E2BIG'],
      ['true', [], { ...pipes, cwd: join(folder, 'nowhere') }, 'ENOENT'],
    ] as const) {
      const error = failing(name, [...args], options);
      expect(error).toBeInstanceOf(SystemError);
      expect(error).toMatchObject({ code, syscall: 'posix_spawn' });
    }
    expect(failing('true', [], { stdio: [12345] })).toMatchObject({ code: 'EBADF', syscall: 'fcntl' });
    expect(descriptors()).toEqual(before);
    expect(zombies()).toEqual([]);
  });

  test('has the descriptors that it was given where they belong, also when each stands where another is to go', async () => {
    const files = ['zero', 'one', 'two', 'three'].map((name) => {
      const path = join(folder, name);
      writeFileSync(path, name);
      return openSync(path, 'r');
    });
    const [first = 0, second = 0, third = 0, fourth = 0] = [...files].sort((a, b) => a - b);
    // Each number from `first` on gets what another of them holds now.
    const stdio: (number | 'ignore' | 'pipe')[] = ['ignore', 'pipe'];
    while (stdio.length <= fourth) stdio.push('ignore');
    [stdio[first], stdio[second], stdio[third], stdio[fourth]] = [second, first, fourth, third];
    const program = spawn(
      'sh',
      ['-c', [first, second, third, fourth].map((fd) => `cat /proc/self/fd/${String(fd)}; echo`).join(';')],
      {
        stdio,
      },
    );
    expect(await text(outputSocket(program))).toBe('one\nzero\nthree\ntwo\n');
    await program.ended;
    files.forEach(closeSync);
  });

  test('has no other descriptors, whether they are close-on-exec or not', async () => {
    // Given by number, so that a descriptor above exists that is not close-on-exec in a child of this program.
    const inner = `ls -l /proc/self/fd | sed -n 's/.* \\([0-9]*\\) -> .*/\\1/p' | tr '\\n' ' '`;
    const open = openSync('/dev/null', 'r');
    const seen = (await outputOf('sh', ['-c', inner])).trim().split(' ');
    closeSync(open);
    // 3 is that of ls itself on the folder.
    expect(seen).toEqual(['0', '1', '2', '3']);
  });

  test('ignored standard streams are /dev/null, also when there are none to inherit', async () => {
    const script = 'readlink /proc/self/fd/0 /proc/self/fd/2';
    expect(await outputOf('sh', ['-c', script], { stdio: ['ignore', 'pipe', 'ignore'] })).toBe(
      '/dev/null\n/dev/null\n',
    );
    expect(await outputOf('sh', ['-c', script], { stdio: ['ignore', 'pipe'] })).toBe('/dev/null\n/dev/null\n');
  });

  test('a pipe goes both ways', async () => {
    const program = spawn('cat', [], { stdio: ['pipe', 'pipe', 'inherit'] });
    program.stdio[0]?.end('there and back');
    expect(await text(outputSocket(program))).toBe('there and back');
    expect(await program.ended).toMatchObject({ code: 0 });
  });

  test('has no signal blocked or ignored, and a session of its own if asked', async () => {
    const status = await outputOf('cat', ['/proc/self/status']);
    const mask = (name: string): bigint =>
      BigInt(`0x${new RegExp(`^${name}:\\s*(\\w+)$`, 'm').exec(status)?.[1] ?? 'f'}`);
    expect(mask('SigBlk')).toBe(0n);
    // 32 and 33 are the C library's own: posix_spawn ignores them, whatever it is told.
    expect(mask('SigIgn') & ~(3n << 31n)).toBe(0n);
    const sessionOf = async (options: SpawnOptions): Promise<string | undefined> =>
      (await outputOf('cat', ['/proc/self/stat'], options)).split(') ')[1]?.split(' ')[3];
    const own = readFileSync('/proc/self/stat', 'utf8').split(') ')[1]?.split(' ')[3];
    expect(await sessionOf({})).toBe(own);
    expect(await sessionOf({ newSession: true })).not.toBe(own);
  });

  test(`${String(IN_A_ROW)} in a row and 40 at once leave no descriptor and no zombie`, async () => {
    const before = descriptors().length;
    for (let i = 0; i < IN_A_ROW; i++) {
      const program = spawn('true', [], { stdio: ['pipe'] });
      program.stdio[0]?.destroy();
      await program.ended;
    }
    const many = Array.from({ length: 40 }, () => spawn('true', [], { stdio: ['ignore', 'ignore', 'ignore'] }));
    expect((await Promise.all(many.map(({ ended }) => ended))).every(({ code }) => code === 0)).toBe(true);
    await expect.poll(zombies, { timeout: 5000 }).toEqual([]);
    await expect.poll(() => descriptors().length, { timeout: 5000 }).toBeLessThanOrEqual(before);
  });

  test('misuse is refused by the name of the argument', () => {
    expect(() => spawn(loose(1))).toThrow(/^file must be a string/);
    expect(() => spawn('a\0b')).toThrow(/^file must not hold a NUL/);
    expect(() => spawn('true', loose('x'))).toThrow(/^args must be an array/);
    expect(() => spawn('true', [loose(5)])).toThrow(/^args\[0\] must be a string/);
    expect(() => spawn('true', [], loose(null))).toThrow(/^options must be an object/);
    expect(() => spawn('true', [], { stdio: loose('inherit') })).toThrow(/^stdio must be an array/);
    expect(() => spawn('true', [], { stdio: [-1] })).toThrow(/^stdio must hold/);
    expect(() => spawn('true', [], { stdio: Array.from({ length: 65 }, () => 'ignore' as const) })).toThrow(
      /at most 64/,
    );
    expect(() => spawn('true', [], { env: { 'A=B': 'c' } })).toThrow(/^env has no variable/);
    expect(() => spawn('true', [], { env: loose({ A: 5 }) })).toThrow(/^env\.A must be a string/);
    expect(() => spawn('true', [], { cwd: 'a\0' })).toThrow(/^cwd must not hold a NUL/);
    expect(() => spawn('true', [], { newSession: loose('yes') })).toThrow(/^newSession must be a boolean/);
    const sleeper = spawn('sleep', ['9']);
    expect(() => {
      sleeper.kill(loose('SIGSTOP'));
    }).toThrow(/^signal must be one of/);
    sleeper.kill('SIGKILL');
    return sleeper.ended;
  });

  test('works in a worker thread, whose end it outlives', async () => {
    const code = `
      const { parentPort, workerData } = require('node:worker_threads');
      const addon = require(workerData);
      addon.setErrorFactory((errno, syscall) => new Error(syscall + errno));
      const into = new Float64Array(2);
      addon.spawn('sleep', ['sleep', '100'], null, null, Int32Array.of(-1, -1, -1), false, into);
      parentPort.postMessage(into[0]);`;
    const { addonPath } = await import('../../lib/native.js');
    const worker = new Worker(code, { eval: true, workerData: addonPath() });
    const pid = await new Promise<number>((resolve, reject) => {
      worker.once('message', resolve);
      worker.once('error', reject);
    });
    await worker.terminate();
    expect(readFileSync(`/proc/${String(pid)}/comm`, 'utf8')).toBe('sleep\n');
    process.kill(pid, 'SIGKILL');
    // Nobody waits for it any more but whoever starts the next.
    await expect.poll(zombies).toEqual([String(pid)]);
    await spawn('true').ended;
    expect(zombies()).toEqual([]);
  });
});

describe.skipIf(readSysctls().overcommitMemory !== 0)('where fork is refused memory', () => {
  test('child_process.spawn fails with ENOMEM, and posix_spawn works', async () => {
    const { spawnSync } = await import('node:child_process');
    const { memTotalPages, swapTotalPages } = readHostFacts(process.pid);
    const pages = memTotalPages + swapTotalPages + 1;
    const memory = mmap({ pages: Math.ceil(pages / 2) });
    memory.grow(pages);
    try {
      expect(spawnSync('true').error).toMatchObject({ code: 'ENOMEM' });
      expect(await spawn('true').ended).toMatchObject({ code: 0 });
    } finally {
      memory.unmap();
    }
    expect(spawnSync('true').status).toBe(0);
  });
});

describe('mremap of a mapping of Node', () => {
  test('keeps the pages, and what was forked before keeps its own', () => {
    const memory = mmap({ pages: 10 });
    memory.write({}, 7n);
    memory.grow(1000);
    expect(memory.pages).toBe(1000);
    expect(memory.length).toBe(1000 * 4096);
    expect(countPages(process.pid, memory)).toMatchObject({ exclusive: 10, 'not-present': 990 });
    expect(memory.read({ pages: 10 }).sum).toBe(70n);
    memory.write();
    memory.unmap();
  });

  test('is refused for what JavaScript has a view of, and for memory with nothing behind new pages', () => {
    const seen = mmap({ pages: 1 });
    expect(seen.buffer.byteLength).toBe(4096);
    expect(() => {
      seen.grow(2);
    }).toThrow(/private anonymous memory without an ArrayBuffer/);
    const shared = mmap({ pages: 1, sharing: 'shared' });
    expect(() => {
      shared.grow(2);
    }).toThrow(TypeError);
    const memory = mmap({ pages: 5 });
    expect(() => {
      memory.grow(5);
    }).toThrow(/^pages must be/);
    for (const one of [seen, shared, memory]) one.unmap();
    expect(() => {
      memory.grow(9);
    }).toThrow('the mapping has been unmapped');
  });
});

describe('a fresh Node in the command loop', () => {
  test('maps, writes and forks like a forked process, and has nothing of this one', async () => {
    const memory = mmap({ pages: 3 });
    const fresh = spawnFresh();
    expect(fresh.has(memory)).toBe(false);
    const region = await fresh.map({ pages: 100 });
    expect((await fresh.write(region)).minorFaults).toBe(100);
    const child = await fresh.fork();
    expect((await child.write(region, { pages: 40 })).minorFaults).toBe(40);
    expect(countPages(fresh.pid, fresh.placement(region))).toMatchObject({ exclusive: 40, shared: 60 });
    expect(await child.exit(3)).toMatchObject({ code: 3 });
    expect(await fresh.exit(4)).toMatchObject({ code: 4 });
    memory.unmap();
    expect(zombies()).toEqual([]);
  });

  test('ends when its socket does, when it is killed, and when Node is', async () => {
    const fresh = spawnFresh();
    await fresh.map({ pages: 1 });
    await fresh.close();
    expect(fresh.status).toMatchObject({ signal: 'SIGKILL' });
    const script = `
      import { spawnFresh } from ${JSON.stringify(new URL('../../dist/index.js', import.meta.url).href)};
      const fresh = spawnFresh();
      await fresh.map({ pages: 1 });
      console.log(fresh.pid);
      process.kill(process.pid, 'SIGKILL');`;
    let output = '';
    try {
      execFileSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' });
    } catch (error) {
      output = (error as { stdout: string }).stdout;
    }
    const pid = Number(output);
    expect(pid).toBeGreaterThan(1);
    const lives = (): boolean => {
      try {
        return !/\) [ZX] /.test(readFileSync(`/proc/${String(pid)}/stat`, 'utf8'));
      } catch {
        return false;
      }
    };
    await expect.poll(lives, { timeout: 5000 }).toBe(false);
  });
});
