/** `cowlab watch`, as a user runs it. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { fork } from '../../lib/api/forked-process.js';
import type { ForkedProcess } from '../../lib/api/forked-process.js';
import { findPython } from '../../lib/api/foreign-program.js';
import { MAIN, ROOT, cowlab } from './command.js';

const root = process.geteuid?.() === 0;

let folder = '';
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'cowlab-watch-'));
});
afterAll(() => {
  rmSync(folder, { recursive: true });
});
const opened: ForkedProcess[] = [];
afterEach(async () => {
  for (const one of opened.splice(0).reverse()) await one.close();
});

interface SampleJson {
  elapsedMs: number;
  costMs: number;
  pssKb: number;
  processes: { pid: number; comm: string; pssKb: number; ussKb: number; minorFaults: number; ageMs: number }[];
}

interface SummaryJson {
  summary: {
    code?: number;
    samples: number;
    peakPssKb: number;
    broken: { pid: number; lostKb: number; name: string }[];
  };
}

function linesOf(text: string): { samples: SampleJson[]; summary: SummaryJson['summary'] } {
  const lines = text.trim().split('\n');
  const { summary } = JSON.parse(lines.pop() ?? '') as SummaryJson;
  return { samples: lines.map((line) => JSON.parse(line) as SampleJson), summary };
}

/** 100,000 lists, of which a forked child reads all. */
const PYTHON = `
import os, time
data = [[i] for i in range(100_000)]
pid = os.fork()
if pid == 0:
    time.sleep(0.5)
    for item in data: item
    time.sleep(0.5)
    os._exit(0)
os.waitpid(pid, 0)
print('done')
raise SystemExit(7)
`;

/** For a signal, but not for ever. */
const WAIT = 'n=0; while [ $n -lt 200 ]; do sleep 0.1; n=$((n+1)); done; exit 9';

describe('watch -- COMMAND', () => {
  test('passes on the exit code and the output, and says what a reading child of CPython copied', async () => {
    const { executable } = findPython();
    const file = join(folder, 'samples.json');
    const csv = join(folder, 'samples.csv');
    const exports = ['--export-json', file, '--export-csv', csv];
    const { code, stdout, stderr } = await cowlab([
      'watch',
      '--interval',
      '0.1',
      ...exports,
      '--',
      executable,
      '-c',
      PYTHON,
    ]);
    expect({ code, stdout }).toEqual({ code: 7, stdout: 'done\n' });
    expect(stderr).toMatch(/has ended with code 7; watched for/);
    expect(stderr).toContain('Whose sharing was broken, how much of it, and when');
    expect(stderr).toMatch(/arenas of objects/);
    expect(stderr).toMatch(/gc\.freeze\(\)/);
    for (const line of stderr.split('\n')) expect(Array.from(line).length).toBeLessThanOrEqual(80);
    const { samples, summary } = linesOf(readFileSync(file, 'utf8'));
    expect(summary).toMatchObject({ code: 7, samples: samples.length });
    expect(Math.max(...samples.map(({ pssKb }) => pssKb))).toBe(summary.peakPssKb);
    const pids = new Set(samples.flatMap(({ processes }) => processes.map(({ pid }) => pid)));
    expect(pids.size).toBe(2);
    // A list is 56 bytes with its GC head: all of the pages that they lie on are copied.
    const [parent] = pids;
    const copied = summary.broken.filter(({ pid, name }) => pid !== parent && name === '');
    expect(copied.reduce((all, { lostKb }) => all + lostKb, 0)).toBeGreaterThan(100_000 * (56 / 1024));
    const rows = readFileSync(csv, 'utf8').trim().split('\n');
    expect(rows[0]).toMatch(/^elapsed_ms,pid,parent,program,rss_kb,/);
    expect(rows).toHaveLength(1 + samples.reduce((all, { processes }) => all + processes.length, 0));
  });

  test('with --json only samples are on standard output, and what the command prints is not lost', async () => {
    const { code, stdout, stderr } = await cowlab(['watch', '--json', '--', 'sh', '-c', 'echo hello; sleep 0.5']);
    expect(code).toBe(0);
    expect(stderr).toMatch(/^hello$/m);
    const { samples, summary } = linesOf(stdout);
    expect(summary.code).toBe(0);
    expect(samples.length).toBeGreaterThan(1);
    expect(samples[0]?.processes[0]?.comm).toBe('sh');
    // The one who watches is no part of what is watched.
    expect(samples.flatMap(({ processes }) => processes.map(({ comm }) => comm))).not.toContain('node');
  });

  test.each([
    ['--export-csv', /^elapsed_ms,pid,.*\n([\d.]+,\d+,\d+,"[^"]+",[\d.,-]+\n)+$/],
    ['--export-json', /^(\{"elapsedMs":.*\}\n)+\{"summary":.*\}\n$/],
  ])('%s - is standard output, and nothing else is', async (option, form) => {
    const watched = ['--', 'sh', '-c', 'echo hello; sleep 0.5'];
    const { code, stdout, stderr } = await cowlab(['watch', option, '-', ...watched], { cwd: folder });
    expect(code).toBe(0);
    expect(stdout).toMatch(form);
    expect(stderr).toMatch(/^hello$/m);
    expect(stderr).toMatch(/sh has ended with code 0/);
    expect(existsSync(join(folder, '-'))).toBe(false);
  });

  test.each([
    ['exit 3', 3],
    ['kill -9 $$', 137],
    ['true', 0],
  ])('%s gives code %d', async (script, expected) => {
    const { code, stderr } = await cowlab(['watch', '--', 'sh', '-c', script]);
    expect(code).toBe(expected);
    expect(stderr).toMatch(/sh has ended/);
  });

  test.each(['SIGINT', 'SIGTERM'] as const)(
    '%s reaches the program, which decides what comes of it',
    async (signal) => {
      const script = `trap 'echo caught; exit 5' INT TERM; echo ready; ${WAIT}`;
      const child = spawn(process.execPath, [MAIN, 'watch', '--', 'sh', '-c', script], {
        cwd: ROOT,
        stdio: ['ignore', 'pipe', 'pipe'],
      });
      let output = '';
      child.stdout.setEncoding('utf8').on('data', (text: string) => (output += text));
      child.stderr.resume();
      await expect.poll(() => output, { timeout: 20_000 }).toContain('ready');
      child.kill(signal);
      const [code] = (await once(child, 'close')) as [number];
      expect({ code, output }).toEqual({ code: 5, output: 'ready\ncaught\n' });
    },
  );

  test.each(['INT', 'TERM'])('a SIG%s that comes at once is passed on too', async (signal) => {
    const script = `trap 'exit 5' ${signal}; kill -${signal} $PPID; ${WAIT}`;
    const { code, signal: endedBy } = await cowlab(['watch', '--', 'sh', '-c', script]);
    expect({ code, endedBy }).toEqual({ code: 5, endedBy: null });
  });

  test('--until ends the watching, not the program', async () => {
    const script = 'sleep 1; echo still here; exit 4';
    const { code, stdout } = await cowlab(['watch', '--until', '0.2', '--', 'sh', '-c', script]);
    expect({ code, stdout }).toEqual({ code: 4, stdout: 'still here\n' });
  });
});

describe('watch --max-load', () => {
  /** It has faults in each look. */
  const busy = 'import time\nfor i in range(20): bytearray(2 ** 22); time.sleep(0.05)';

  test('reads memory less often to keep below it, and says so', async () => {
    const { executable } = findPython();
    const file = join(folder, 'paced.json');
    const options = ['--interval', '0.1', '--max-load', '0.1', '--export-json', file];
    const { code, stderr } = await cowlab(['watch', ...options, '--', executable, '-c', busy]);
    expect(code).toBe(0);
    expect(stderr.replace(/\s+/g, ' ')).toMatch(
      /\d+ of them did not read memory, to stay below 0.1% of a core: .* --max-load 100 reads it in each/,
    );
    for (const line of stderr.split('\n')) expect(Array.from(line).length).toBeLessThanOrEqual(80);
    const { samples } = linesOf(readFileSync(file, 'utf8'));
    const ages = samples.flatMap(({ processes }) => processes.map(({ ageMs }) => ageMs));
    expect(ages.some((ageMs) => ageMs > 0)).toBe(true);
    expect(ages[0]).toBe(0);
  });

  test('100 reads it in each sample where something stirs', async () => {
    const { executable } = findPython();
    const options = ['--interval', '0.1', '--max-load', '100'];
    const { code, stderr } = await cowlab(['watch', ...options, '--', executable, '-c', busy]);
    expect(code).toBe(0);
    expect(stderr).not.toContain('did not read memory');
  });
});

describe('watch --pid', () => {
  test('follows a tree until it is stopped, and takes what it sees from the kernel', async () => {
    const parent = fork();
    opened.push(parent);
    await parent.write(await parent.map({ pages: 1024 }));
    opened.push(await parent.fork());
    const { code, stdout, stderr } = await cowlab(['watch', '--pid', String(parent.pid), '--until', '0.5', '--json']);
    expect(code).toBe(0);
    expect(stderr).toMatch(/goes on; watched for 0\.\d s/);
    const { samples } = linesOf(stdout);
    const csv = await cowlab(['watch', '--pid', String(parent.pid), '--until', '0', '--export-csv', '-']);
    expect(csv.stdout).toMatch(/^elapsed_ms,pid,.*\n([\d.]+,\d+,\d+,"[^"]+",[\d.,-]+\n){2}$/);
    expect(csv.stderr).toMatch(/goes on; watched for/);
    expect(samples.at(-1)?.processes.map(({ pid }) => pid)).toEqual(opened.map(({ pid }) => pid));
    expect(samples.at(-1)?.pssKb).toBeGreaterThan(4096);
    // The last one is read whole, though nothing has stirred.
    expect(samples.at(-1)?.processes.map(({ ageMs }) => ageMs)).toEqual([0, 0]);
  });

  test('ends when the tree does, and Ctrl-C ends the watching with 130', async () => {
    const parent = fork();
    opened.push(parent);
    const child = spawn(process.execPath, [MAIN, 'watch', '--json', '--pid', String(parent.pid)], { cwd: ROOT });
    child.stderr.resume();
    await once(child.stdout, 'data');
    child.kill('SIGINT');
    expect(await once(child, 'close')).toEqual([130, null]);
    const second = spawn(process.execPath, [MAIN, 'watch', '--json', '--pid', String(parent.pid)], { cwd: ROOT });
    second.stderr.resume();
    await once(second.stdout, 'data');
    await parent.kill();
    expect(await once(second, 'close')).toEqual([0, null]);
  });

  test.skipIf(!root)("an ordinary user is told why at another's process", async () => {
    const parent = fork();
    opened.push(parent);
    const { code, stderr } = await cowlab(['watch', '--pid', String(parent.pid)], { uid: 65534 });
    expect(code).toBe(3);
    expect(stderr).toMatch(/EACCES/);
  });
});

test.each([
  [[], /give either --pid PID or a command/],
  [['--pid', '1', '--', 'true'], /give either/],
  [['--pid', 'abc'], /must be the number of a process/],
  [['--pid', '4194999'], /there is no process 4194999/],
  [['--interval', '0', '--', 'true'], /--interval must be seconds/],
  [['--max-load', '0', '--', 'true'], /--max-load must be percent of one core, above 0 and up to 100/],
  [['--max-load', '101', '--', 'true'], /--max-load must be percent/],
  [['--max-load', 'all', '--', 'true'], /--max-load must be percent/],
  [['--until', 'soon', '--', 'true'], /--until must be seconds/],
  [['--', '/no/such/program'], /cannot be run: there is no such program/],
])('%j is refused with exit code 2', async (args, message) => {
  const { code, stdout, stderr } = await cowlab(['watch', ...args]);
  expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
  expect(stderr).toMatch(message);
});
