/** Programs of others: talk by lines, and nothing is left of them, whatever they start and however we end. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, describe, expect, test } from 'vitest';
import { findPython, startProgram } from '../../lib/api/foreign-program.js';
import type { ForeignProgram } from '../../lib/api/foreign-program.js';
import { fork } from '../../lib/api/forked-process.js';
import { pythonOrWhyNot } from '../../lib/experiments/cpython.js';
import { descendantsOf, readProcessTree, readTreeMemory } from '../../lib/proc/process-tree.js';
import { readSmapsRollup } from '../../lib/proc/smaps.js';

const python = pythonOrWhyNot();
const SHORT = process.env['COWLAB_SHORT'] === '1';
const programs: ForeignProgram[] = [];

function start(file: string, args: string[] = []): ForeignProgram {
  const program = startProgram(file, args);
  programs.push(program);
  return program;
}

afterEach(async () => {
  for (const program of programs.splice(0)) await program.close();
});

function lives(pid: number): boolean {
  try {
    return !/\) [ZX] /.test(readFileSync(`/proc/${String(pid)}/stat`, 'utf8'));
  } catch {
    return false;
  }
}

const ended = (pids: readonly number[]) => expect.poll(() => pids.filter(lives), { timeout: 10_000 }).toEqual([]);

/** A shell that has started one child, one that has made a session of its own, and one whose parent has gone. */
const FAMILY = `
  sleep 1000 & echo $!
  setsid sh -c 'echo $$; exec sleep 1000' &
  (sh -c 'echo $$; exec sleep 1000' &) &
  wait`;

async function family(program: ForeignProgram): Promise<number[]> {
  return [Number(await program.line()), Number(await program.line()), Number(await program.line())];
}

/** No kernel's rules decide these: they are left out of the guests of scripts/test-vm.js, where shells and Node are slow. */
describe.skipIf(process.env['COWLAB_GUEST'] === '1')('a program of others', () => {
  test('is talked to by lines, and ends as it likes', async () => {
    const program = start('sh', ['-c', 'while read line; do echo "got $line"; [ "$line" = last ] && exit 7; done']);
    program.send('one');
    expect(await program.line()).toBe('got one');
    program.send('last');
    expect(await program.line()).toBe('got last');
    expect(await program.ended).toMatchObject({ code: 7 });
    await expect(start('sh', ['-c', 'kill -TERM $$']).ended).resolves.toMatchObject({ signal: 'SIGTERM' });
  });

  test('that ends or says nothing is an error that shows what it complained of', async () => {
    await expect(start('sh', ['-c', 'echo no such thing >&2; exit 1']).line()).rejects.toThrow(
      /^sh ended; it complained:\nno such thing$/,
    );
    await expect(start('sleep', ['100']).line(50)).rejects.toThrow(/^sleep said nothing in time$/);
    await expect(start('echo', ['{"half":']).json()).rejects.toThrow(/no JSON/);
    await expect(start('cowlab-no-such-program').line()).rejects.toThrow(/No such file or directory/);
    expect(await start('cowlab-no-such-program').ended).toMatchObject({ code: 127 });
  });

  test('can say much, and its last lines are not lost', async () => {
    const program = start('sh', ['-c', 'i=0; while [ $i -lt 20000 ]; do echo "line $i"; i=$((i+1)); done']);
    for (let i = 0; i < 20_000; i++) expect(await program.line()).toBe(`line ${String(i)}`);
    await expect(program.line()).rejects.toThrow(/ended/);
    await program.close();
    await expect(program.line()).rejects.toThrow(/ended/);
    const closed = start('sleep', ['100']);
    await closed.close();
    await expect(closed.line(1000)).rejects.toThrow(/sleep ended/);
  });

  test('is gone with all that it has started when it is closed: children, sessions of their own, orphans', async () => {
    const program = start('sh', ['-c', FAMILY]);
    const pids = await family(program);
    expect(pids.filter(lives)).toHaveLength(3);
    await program.close();
    await ended(pids);
    await program.close();
    expect(await program.ended).toMatchObject({ signal: 'SIGTERM' });
  });

  test('is asked once to end, and killed when it does not', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'cowlab-test-'));
    try {
      // An orphan ends a while after it was asked, which has the keeper look again whom it has to ask.
      const script = `(sh -c 'trap "sleep 0.3; exit" TERM; echo $$; while :; do sleep 0.05; done' &)
        trap 'echo asked >> ${folder}/log' TERM
        echo $$; while :; do sleep 0.05; done`;
      const program = start('sh', ['-c', script]);
      const pids = [Number(await program.line()), Number(await program.line())];
      await program.close();
      expect(await program.ended).toMatchObject({ signal: 'SIGKILL' });
      expect(readFileSync(join(folder, 'log'), 'utf8')).toBe('asked\n');
      await ended(pids);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  test.skipIf(typeof python === 'string')('leaves no name of its semaphores, however Python ends', async () => {
    if (typeof python === 'string') expect.unreachable();
    const script = `
import multiprocessing, os, sys
locks = [multiprocessing.get_context('spawn').Lock() for _ in range(8)]
print(os.getpid(), flush=True)
sys.stdin.readline()
os._exit(3)`;
    const before = readdirSync('/dev/shm');
    const made = () => readdirSync('/dev/shm').filter((name) => !before.includes(name));
    const ways: ((program: ForeignProgram, pid: number) => void)[] = [
      (program) => void program.close(),
      (program) => {
        program.send('end');
      },
      (_, pid) => process.kill(pid, 'SIGKILL'),
    ];
    for (const end of ways) {
      const program = start(python.executable, ['-c', script]);
      const pid = Number(await program.line());
      expect(made()).toHaveLength(8);
      end(program, pid);
      await program.ended;
      expect(made()).toEqual([]);
    }
  });

  test('that ends by itself leaves nothing behind either', async () => {
    const program = start('sh', ['-c', `${FAMILY.replace('wait', '')} sleep 0.2; exit 5`]);
    const pids = await family(program);
    expect(await program.ended).toMatchObject({ code: 5 });
    await ended(pids);
  });

  test('is gone when Node is killed, at whatever moment', async () => {
    const script = `
      import { startProgram } from ${JSON.stringify(new URL('../../dist/api/foreign-program.js', import.meta.url).href)};
      const program = startProgram('sh', ['-c', ${JSON.stringify(FAMILY)}]);
      for (let i = 0; i < 3; i++) console.log(await program.line());
      await new Promise(() => setInterval(() => undefined, 1000));`;
    for (let round = 0; round < (SHORT ? 3 : 12); round++) {
      const node = spawn(process.execPath, ['--input-type=module', '-e', script], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      const lines: number[] = [];
      createInterface({ input: node.stdout }).on('line', (line) => lines.push(Number(line)));
      const keepers = () => readProcessTree(node.pid ?? 0).filter(({ pid }) => pid !== node.pid);
      if (round % 2 === 0) await expect.poll(() => lines.length, { timeout: 10_000 }).toBe(3);
      else await delay(60 + round * 15);
      const before = keepers().map(({ pid }) => pid);
      node.kill('SIGKILL');
      await once(node, 'exit');
      await ended([...lines, ...before]);
    }
  });

  test('leaves no descriptor', async () => {
    await startProgram('true').close();
    const before = readdirSync('/proc/self/fd').length;
    for (let i = 0; i < 20; i++) await startProgram('cat').close();
    await expect.poll(() => readdirSync('/proc/self/fd').length, { timeout: 5000 }).toBeLessThanOrEqual(before);
  });

  test('python is found, and asked what it is', () => {
    const { executable, version, release } = findPython();
    expect(executable).toMatch(/^\/.*python/);
    expect(release.startsWith(version.join('.'))).toBe(true);
    expect(() => findPython('/nowhere')).toThrow(/python3 is not available|python3.*none in PATH/);
  });

  test('python is started once to be asked, however often it is looked for', () => {
    const { executable } = findPython();
    const folder = mkdtempSync(join(tmpdir(), 'cowlab-test-'));
    const front = `#!/bin/sh\necho asked >> ${folder}/log\nexec ${executable} "$@"\n`;
    writeFileSync(join(folder, 'python3'), front, { mode: 0o755 });
    try {
      expect(findPython(folder)).toEqual(findPython(folder));
      expect(readFileSync(join(folder, 'log'), 'utf8')).toBe('asked\n');
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

describe('a process tree', () => {
  const process1 = (pid: number, parent: number) => ({ pid, parent, startTicks: pid * 10, comm: `p${String(pid)}` });

  test('is all that descends from a process, parents first, and nothing else', () => {
    const all = [process1(7, 3), process1(1, 0), process1(3, 2), process1(2, 1), process1(9, 1), process1(8, 3)];
    expect(descendantsOf(2, all).map(({ pid }) => pid)).toEqual([2, 3, 7, 8]);
    expect(descendantsOf(5, all)).toEqual([]);
    // Two that are each other's parents, as a torn look at pids that are used again may show.
    expect(descendantsOf(4, [process1(4, 5), process1(5, 4)]).map(({ pid }) => pid)).toEqual([4, 5]);
  });

  test('of forked processes is read with their memory, whose sums count shared pages once in Pss alone', async () => {
    const root = fork();
    try {
      const region = await root.map({ pages: 2000 });
      await root.write(region);
      const child = await root.fork();
      const grandchild = await child.fork();
      // Once before, so that what the child writes of its own, such as its stack, is written.
      await child.write(region, { first: 1000, pages: 1 });
      const before = readTreeMemory(root.pid);
      expect(before.processes.map(({ pid, parent }) => [pid, parent])).toEqual([
        [root.pid, process.pid],
        [child.pid, root.pid],
        [grandchild.pid, child.pid],
      ]);
      expect(new Set(before.processes.map(({ startTicks }) => startTicks > 0))).toEqual(new Set([true]));
      await child.write(region, { pages: 500 });
      const after = readTreeMemory(root.pid);
      // 500 pages of 4 kB were copied. Node shares pages with them as well, and what it writes meanwhile is theirs.
      expect(after.pssKb - before.pssKb).toBeGreaterThanOrEqual(1997);
      expect(after.rssKb).toBe(before.rssKb);
      const { fieldsKb } = readSmapsRollup(child.pid);
      expect(after.processes[1]?.ussKb).toBe((fieldsKb['Private_Clean'] ?? 0) + (fieldsKb['Private_Dirty'] ?? 0));
      await grandchild.exit();
      expect(readProcessTree(root.pid).map(({ pid }) => pid)).toEqual([root.pid, child.pid]);
    } finally {
      await root.close();
    }
    expect(readProcessTree(root.pid)).toEqual([]);
  });

  test('is read while processes come and go', async () => {
    const program = start('sh', ['-c', 'echo ready; while :; do true & env true; done']);
    await program.line();
    const [keeper] = readProcessTree(process.pid).filter(({ comm }) => comm === 'cowlab-keeper');
    if (!keeper) expect.unreachable('the keeper is a child of this process');
    for (let i = 0; i < (SHORT ? 30 : 100); i++) {
      const { processes } = readTreeMemory(keeper.pid);
      expect(processes.length).toBeGreaterThanOrEqual(1);
    }
  });
});
