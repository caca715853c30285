import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { ResultDocument } from '../../lib/schema/result.js';
import { cowlab, start, unbroken } from './command.js';

const STRICT = ['enomem', '--param', 'mode=strict'];
const ROOT = process.getuid?.() === 0;

/** A limit that the scenario reaches within some children, whatever is committed on this machine. */
function limit(): string[] {
  const committedKb = Number(/Committed_AS: *(\d+)/.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1]);
  return ['--param', `limit=${String(Math.ceil(committedKb / 1024) + 900)}MiB`, '--param', 'size=64MiB'];
}

function mode(): string {
  return readFileSync('/proc/sys/vm/overcommit_memory', 'utf8').trim();
}

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'cowlab-test-'));
});
afterAll(() => {
  rmSync(folder, { recursive: true });
});

describe('strict overcommit', () => {
  test('is not run without leave, and the reason says what would help', async () => {
    const { code, stdout } = await cowlab(['run', ...STRICT, '--param', 'size=1MiB', ...limit().slice(0, 2)]);
    expect(code).toBe(3);
    expect(stdout.replace(/\s+/g, ' ')).toMatch(
      /SKIP: it changes vm.overcommit_memory .*--allow-system-changes, as root/,
    );
  });

  test.skipIf(!ROOT)('an ordinary user with leave is told that it takes root, or a guest', async () => {
    const args = ['run', ...STRICT, ...limit(), '--allow-system-changes'];
    const { code, stderr } = await cowlab(args, { uid: 65534 });
    expect(code).toBe(3);
    expect(unbroken(stderr)).toMatch(/only root may \(EACCES\)\. Run it as root, or .*cowlab vm run/);
  });

  test.each([
    [['--param', 'limit=1GiB'], /limit is for mode=strict/],
    [['--param', 'mode=strict', '--param', 'limit=1GiB', '--param', 'ratio=5'], /either limit or ratio/],
    [['--param', 'mode=strict', '--param', 'children=0'], /children must be/],
  ])('bad parameters are bad usage: %j', async (args, message) => {
    const { code, stderr } = await cowlab(['run', 'enomem', '--allow-system-changes', ...args]);
    expect(unbroken(stderr)).toMatch(message);
    expect(code).toBe(2);
  });

  test('--dry-run says what would be changed', async () => {
    const { stdout } = await cowlab(['run', ...STRICT, ...limit(), '--dry-run']);
    expect(stdout).toMatch(/up to 64 MiB of memory and change vm.overcommit_memory and its limits of the system/);
  });

  test.skipIf(!ROOT)('names the child that is refused, in 80 columns, and leaves no trace', async () => {
    const before = mode();
    const file = join(folder, 'strict.json');
    const { code, stdout } = await cowlab([
      ...['run', ...STRICT, ...limit(), '--param', 'children=20'],
      ...['--allow-system-changes', '--export-json', file],
    ]);
    expect(stdout).toMatch(/Under strict overcommit\s+child \d+ of 20/);
    expect(stdout).toMatch(/^PASS: /m);
    expect(code).toBe(0);
    for (const line of stdout.split('\n')) expect(Array.from(line).length).toBeLessThanOrEqual(80);
    expect(mode()).toBe(before);

    const refused = await cowlab(['replay', file]);
    expect(refused.code).toBe(3);
    expect(unbroken(refused.stderr)).toMatch(/its steps change vm.overcommit_memory.*--allow-system-changes/);
    const replayed = await cowlab(['replay', file, '--model']);
    expect(replayed.stdout).toMatch(/ 0 differ/);
    const { trace } = JSON.parse(readFileSync(file, 'utf8')) as ResultDocument;
    expect(trace.filter(({ step }) => step.op === 'overcommit')).toHaveLength(3);
  });

  test.skipIf(!ROOT)('an interrupt puts the settings back before it ends with 130', async () => {
    const before = mode();
    const child = start(['run', ...STRICT, ...limit(), '--param', 'children=64', '--allow-system-changes']);
    const exited = once(child, 'exit');
    while (mode() === before && child.exitCode === null) await new Promise(setImmediate);
    child.kill('SIGINT');
    const [code] = (await exited) as [number];
    expect(code).toBe(130);
    expect(mode()).toBe(before);
  });
});

describe('doctor', () => {
  test('finds nothing left behind, and has nothing to put back', async () => {
    expect((await cowlab(['doctor'])).stdout).toMatch(/^ok +left-behind +no run has left a setting changed/m);
    const text = await cowlab(['doctor', '--restore']);
    expect(text).toMatchObject({ code: 0, stdout: 'Nothing to put back.\n' });
    expect(JSON.parse((await cowlab(['doctor', '--restore', '--json'])).stdout)).toEqual({ restored: [] });
  });
});
