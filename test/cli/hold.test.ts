/** What `cowlab hold` prints is true, by a reader of its own (check_truth.py), and nothing is left of it. */
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { spawn } from 'node:child_process';
import { Value } from 'typebox/value';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { fixtures } from '../../lib/fixtures/catalogue.js';
import { HoldErrorSchema, TruthSchema } from '../../lib/schema/fixture.js';
import type { Truth } from '../../lib/schema/fixture.js';
import { MAIN, ROOT, cowlab, run, unbroken } from './command.js';
import { pythonWith } from './python.js';

const CHECKER = join(import.meta.dirname, 'check_truth.py');
const NOBODY = 65534;
const isRoot = process.getuid?.() === 0;

interface Checked {
  compared: number;
  differences: string[];
  steps: number;
  refused: (string | null)[];
  processes: number;
}

/** @returns Why there was nothing to check, where this host cannot hold it. */
async function check(steps: number, args: readonly string[], uid?: number): Promise<Checked | string> {
  const found = pythonWith('json', uid);
  if ('lacking' in found) return found.lacking;
  const command = [CHECKER, String(steps), process.execPath, MAIN, 'hold', ...args];
  const { code, stdout, stderr } = await run(found.python, command, uid === undefined ? {} : { uid });
  if (stderr.includes('is not available')) return stderr;
  expect(stderr).not.toContain('Traceback');
  expect(code).toBe(0);
  return JSON.parse(stdout) as Checked;
}

describe('every fixture is as it is said to be', () => {
  const params: Record<string, string[]> = {
    'deep-tree': ['--param', 'size=256KiB'],
  };

  test.each(fixtures.map(({ name }) => name))('%s, and after each of two steps', async (name) => {
    const checked = await check(name === 'many-vmas' ? 0 : 2, [name, ...(params[name] ?? [])]);
    if (typeof checked === 'string') {
      // Only huge pages, and the heuristic mode, are not everywhere.
      expect(['huge-pages', 'enomem']).toContain(name);
      return;
    }
    expect(checked.differences).toEqual([]);
    expect(checked.compared).toBeGreaterThan(40);
    if (name === 'deep-tree') expect(checked.processes).toBe(64);
    if (name === 'enomem') expect(checked.refused).toEqual([null, 'ENOMEM', 'ENOMEM']);
  });

  test.skipIf(!isRoot)('for an ordinary user too, who is told what could not be checked', async (context) => {
    for (const name of ['half-written', 'zero-page', 'memfd']) {
      const checked = await check(1, [name], NOBODY);
      if (typeof checked === 'string') return context.skip(checked);
      expect(checked.differences).toEqual([]);
      expect(checked).toMatchObject({ unchecked: ['frames: the kernel shows them to CAP_SYS_ADMIN only'] });
    }
  });
});

describe('a saved result', () => {
  let folder: string;
  let saved: string;
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'cowlab-hold-'));
    saved = join(folder, 'saved.json');
    const params = ['size=256KiB', 'children=2', 'steps=2'].flatMap((pair) => ['--param', pair]);
    expect((await cowlab(['run', 'cow-growth', ...params, '--export-json', saved])).code).toBe(0);
  });
  afterAll(() => {
    rmSync(folder, { recursive: true });
  });

  test('is held at each of its observations', async (context) => {
    const checked = await check(100, [saved]);
    if (typeof checked === 'string') return context.skip(checked);
    expect(checked.differences).toEqual([]);
    expect(checked.steps).toBe(3);
    expect(await check(0, [saved, '--param', 'moment=4'])).toMatchObject({ differences: [], processes: 3 });
  });

  test('that there is not, and a moment that it has not, are bad usage', async () => {
    expect(await cowlab(['hold', '/no/such/file'])).toMatchObject({ code: 2, stdout: '' });
    const { code, stderr } = await cowlab(['hold', saved, '--param', 'moment=5']);
    expect({ code, stderr }).toMatchObject({ code: 2, stderr: expect.stringMatching(/from 1 to 4/) as string });
  });
});

/** A holder that is spoken to line by line. */
class Holder {
  readonly child;
  readonly #lines: AsyncIterator<string>;

  constructor(args: readonly string[]) {
    this.child = spawn(process.execPath, [MAIN, 'hold', ...args], { cwd: ROOT, stdio: ['pipe', 'pipe', 'inherit'] });
    // What is said to one that has ended is of no interest.
    this.child.stdin.on('error', () => undefined);
    this.#lines = createInterface({ input: this.child.stdout })[Symbol.asyncIterator]();
  }

  say(line: string): void {
    this.child.stdin.write(`${line}\n`);
  }

  async hear(): Promise<unknown> {
    const next = await this.#lines.next();
    return next.done === true ? undefined : JSON.parse(next.value);
  }

  async truth(): Promise<Truth> {
    const heard = await this.hear();
    expect([...Value.Errors(TruthSchema, heard)]).toEqual([]);
    return heard as Truth;
  }

  async end(): Promise<{ code: number | null; signal: NodeJS.Signals | null }> {
    const [code, signal] = (await once(this.child, 'close')) as [number | null, NodeJS.Signals | null];
    return { code, signal };
  }
}

const SMALL = ['half-written', '--param', 'size=64KiB'];

function stillThere({ processes }: Truth): number[] {
  return processes.map(({ pid }) => pid).filter((pid) => existsSync(`/proc/${String(pid)}`));
}

/** The processes end by themselves, nobody tells us when: looked for until they have. */
async function haveEnded(truth: Truth): Promise<void> {
  await expect.poll(() => stillThere(truth), { timeout: 20_000 }).toEqual([]);
}

describe('commands', () => {
  test('are answered with one line of JSON each, and those that there are not with an error', async () => {
    const holder = new Holder(SMALL);
    const first = await holder.truth();
    expect(first).toMatchObject({ step: 0, more: true, totals: { ussKb: 64 } });
    for (const line of ['step', 'frobnicate', '', 'observe', ' step ']) holder.say(line);
    expect(await holder.truth()).toMatchObject({ step: 1, totals: { ussKb: 72 } });
    for (const name of ['frobnicate', '']) {
      const answer = await holder.hear();
      expect(Value.Check(HoldErrorSchema, answer)).toBe(true);
      expect(answer).toEqual({ error: `there is no command "${name}"; commands: step, observe, quit` });
    }
    expect(await holder.truth()).toMatchObject({ step: 1, did: 'nothing was changed' });
    expect(await holder.truth()).toMatchObject({ step: 2 });
    const ended = holder.end();
    holder.say('quit');
    expect(await holder.hear()).toEqual({ quit: true });
    expect(stillThere(first)).toEqual([]);
    expect(await ended).toEqual({ code: 0, signal: null });
  });

  test('a step too many is an error, and the fixture holds on', async () => {
    const holder = new Holder(['forked', '--param', 'size=64KiB']);
    expect(await holder.truth()).toMatchObject({ more: false });
    holder.say('step');
    expect(await holder.hear()).toEqual({ error: 'forked has no step after 0' });
    holder.say('observe');
    expect(await holder.truth()).toMatchObject({ step: 0 });
    const ended = holder.end();
    holder.child.stdin.end();
    expect(await ended).toEqual({ code: 0, signal: null });
  });

  test('where somebody has interfered there is no truth, and the exit code says so', async () => {
    const holder = new Holder(SMALL);
    const { processes } = await holder.truth();
    process.kill(processes.find(({ process }) => process === 'root.1')?.pid ?? 0, 'SIGKILL');
    await haveEnded({ processes: processes.slice(1) } as Truth);
    holder.say('observe');
    const answer = (await holder.hear()) as { error: string; differences: unknown[] };
    expect(answer.error).toMatch(/model and kernel differ.*root\.1: is alive.*cowlab doctor/s);
    expect(answer.differences.length).toBeGreaterThan(0);
    const ended = holder.end();
    holder.say('quit');
    expect(await ended).toEqual({ code: 1, signal: null });
  });
});

describe('nothing is left', () => {
  test('when standard input closes', async () => {
    const holder = new Holder(SMALL);
    const truth = await holder.truth();
    const ended = holder.end();
    holder.child.stdin.end();
    expect(await ended).toEqual({ code: 0, signal: null });
    expect(stillThere(truth)).toEqual([]);
  });

  test.each(['SIGINT', 'SIGTERM', 'SIGHUP'] as const)('after %s', async (signal) => {
    const holder = new Holder(SMALL);
    const truth = await holder.truth();
    const ended = holder.end();
    holder.child.kill(signal);
    expect(await ended).toEqual({ code: 130, signal: null });
    expect(stillThere(truth)).toEqual([]);
  });

  test('after SIGKILL, which nobody can answer', async () => {
    const holder = new Holder(['deep-tree', '--param', 'size=256KiB', '--param', 'processes=16']);
    const truth = await holder.truth();
    expect(truth.processes).toHaveLength(16);
    const ended = holder.end();
    holder.child.kill('SIGKILL');
    expect(await ended).toEqual({ code: null, signal: 'SIGKILL' });
    await haveEnded(truth);
  });

  test('when nobody reads any more', async () => {
    const holder = new Holder(SMALL);
    const truth = await holder.truth();
    const ended = once(holder.child, 'exit');
    holder.child.stdout.destroy();
    holder.say('step');
    expect(await ended).toEqual([0, null]);
    expect(stillThere(truth)).toEqual([]);
  });

  test('when it is ended before it has begun', async () => {
    const holder = new Holder(['many-vmas']);
    const ended = holder.end();
    await expect
      .poll(() => run('pgrep', ['-P', String(holder.child.pid), 'cowlab-bare']).then(({ stdout }) => stdout))
      .not.toBe('');
    const { stdout: pid } = await run('pgrep', ['-P', String(holder.child.pid), 'cowlab-bare']);
    holder.child.kill('SIGTERM');
    expect(await ended).toEqual({ code: 130, signal: null });
    expect(existsSync(`/proc/${pid.trim()}`)).toBe(false);
  });
});

describe('bad input is exit code 2, and what this host cannot is 3', () => {
  test.each([
    [['hold'], 2, /give a fixture; cowlab hold --list names them/],
    [['hold', 'no-such'], 2, /there is no fixture no-such.*half-written/],
    [['hold', 'fresh', '--param', 'sise=1MiB'], 2, /fresh has no parameter sise; it has: size/],
    [['hold', 'forked', '--param', 'children=65'], 2, /children must be a whole number from 1 to 64/],
    [['hold', 'package.json'], 2, /is not a result of cowlab/],
    [['hold', 'forked', '--param', 'size=8TiB'], 3, /it needs 8 TiB of memory/],
  ])('%j', async (args, expected, message) => {
    const { code, stdout, stderr } = await cowlab(args);
    expect(unbroken(stderr)).toMatch(message);
    expect({ code, stdout }).toEqual({ code: expected, stdout: '' });
  });

  test('--list is a table for people, and for programs JSON', async () => {
    expect((await cowlab(['hold', '--list'])).stdout).toMatch(/^half-written +children, one of which/m);
    const { stdout } = await cowlab(['hold', '--list', '--json']);
    expect((JSON.parse(stdout) as { name: string }[]).map(({ name }) => name)).toContain('deep-tree');
  });
});
