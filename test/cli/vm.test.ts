import { once } from 'node:events';
import { chmodSync, copyFileSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Value } from 'typebox/value';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { pythonOrWhyNot } from '../../lib/experiments/cpython.js';
import { ResultSchema } from '../../lib/schema/result.js';
import type { ResultDocument } from '../../lib/schema/result.js';
import { findKernels } from '../../lib/vm/kernel.js';
import { findQemu } from '../../lib/vm/qemu.js';
import { cowlab, start, unbroken } from './command.js';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'cowlab-vm-'));
  chmodSync(folder, 0o755);
});
afterAll(() => {
  rmSync(folder, { recursive: true });
});

/** The processes with this argument that have not ended. */
function livingWith(argument: string): string[] {
  return readdirSync('/proc').filter((pid) => {
    try {
      return /^\d+$/.test(pid) && readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').includes(argument);
    } catch {
      return false;
    }
  });
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 20));
}

describe('what is wrong or missing is said before anything is booted', () => {
  test.each([
    [2, ['no-such'], /there is no experiment no-such/],
    [2, ['enomem', '--param', 'sise=1'], /enomem has no parameter sise/],
    [2, ['cow-growth', '--param', 'size=5000'], /multiple of the page size/],
    [2, ['enomem', '--memory', 'banana'], /"banana" is not a size/],
    [2, ['enomem', '--memory', '64MiB'], /--memory must be whole MiB, and at least 512 MiB/],
    [2, ['enomem', '--memory', '536870913'], /--memory must be whole MiB/],
    [2, ['enomem', '--cpus', '0'], /--cpus must be a whole number from 1 to 64/],
    [2, ['enomem', '--cgroup', 'v3'], /--cgroup must be one of v1, v2/],
    [2, ['enomem', '--accel', 'hvf'], /--accel must be one of kvm, tcg/],
    [2, ['enomem', '--timeout', 'soon'], /--timeout must be a whole number from 1 to 86400, not soon/],
  ])('exit code %d: %j', async (expected, args, message) => {
    const { code, stdout, stderr } = await cowlab(['vm', 'run', ...args]);
    expect(unbroken(stderr)).toMatch(message);
    expect({ code, stdout }).toEqual({ code: expected, stdout: '' });
    expect(stderr).not.toMatch(/booting/);
  });

  test('no qemu: exit code 3, and how to install it', async () => {
    const { code, stderr } = await cowlab(['vm', 'run', 'enomem'], { env: { ...process.env, PATH: folder } });
    expect(code).toBe(3);
    expect(unbroken(stderr)).toMatch(/is not in PATH\. Install qemu: `apt-get install qemu-system-/);
  });

  test('kernels: none is no error and says how to get one; fetch wants a version', async () => {
    const env = { ...process.env, XDG_CACHE_HOME: folder };
    const { code, stdout } = await cowlab(['vm', 'kernels', '--json'], { env });
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toBeInstanceOf(Array);
    const fetched = await cowlab(['vm', 'fetch', '../6.1'], { env });
    expect(fetched.code).toBe(2);
    expect(unbroken(fetched.stderr)).toMatch(/\.\.\/6\.1 is no version: write 6\.1 or 6\.12/);
  });
});

/** Why nothing can be booted here, or undefined. */
function whyNoGuest(): string | undefined {
  try {
    findQemu();
  } catch {
    return 'there is no qemu';
  }
  return findKernels().length === 0 ? 'there is no kernel' : undefined;
}

const lacking = whyNoGuest();

describe.skipIf(lacking !== undefined)(`a guest${lacking === undefined ? '' : ` (skipped: ${lacking})`}`, () => {
  let kernel: string;
  beforeAll(() => {
    // Where any user may read it: what root fetched is in root's own cache.
    kernel = join(folder, 'vmlinuz-test');
    copyFileSync(findKernels()[0]?.path ?? '', kernel);
    chmodSync(kernel, 0o644);
  });

  function run(args: readonly string[], options?: Parameters<typeof cowlab>[1]) {
    return cowlab(['vm', 'run', ...args, '--kernel', kernel, '--memory', '1GiB', '--accel', 'tcg'], options);
  }

  test.skipIf(process.getuid?.() !== 0)(
    'an ordinary user is root on another kernel, and the results of both experiments come out whole',
    { timeout: 600_000 },
    async () => {
      const env = { PATH: process.env['PATH'], HOME: '/nonexistent' };
      const small = ['--param', 'size=1MiB', '--param', 'children=2', '--param', 'steps=2', '--json'];
      const { code, stdout, stderr } = await run(['enomem', 'cow-growth', ...small], { env, uid: 65534 });
      expect({ code, stderr }).toMatchObject({ code: 0 });
      const results = JSON.parse(stdout) as ResultDocument[];
      expect(results.map(({ experiment, verdict }) => [experiment, verdict])).toEqual([
        ['enomem', 'pass'],
        ['cow-growth', 'pass'],
      ]);
      for (const result of results) {
        expect([...Value.Errors(ResultSchema, result)]).toEqual([]);
        const { privileged, virtualMachine, memTotalBytes, startedAt } = result.environment;
        expect(privileged).toBe(true);
        expect(virtualMachine).toEqual({ accelerator: 'tcg', memoryBytes: 2 ** 30, cpus: 2 });
        expect(memTotalBytes).toBeLessThan(2 ** 30);
        // The guest has the time of day.
        expect(Math.abs(Date.parse(startedAt) - Date.now())).toBeLessThan(600_000);
      }
    },
  );

  test.skipIf(typeof pythonOrWhyNot() === 'string')(
    "Python goes along, and says the article's own OSError under strict overcommit",
    { timeout: 600_000 },
    async () => {
      const params = ['mode=strict', 'children=4'].flatMap((pair) => ['--param', pair]);
      const { code, stdout, stderr } = await run(['multiprocessing', ...params, '--json']);
      expect({ code, stderr }).toMatchObject({ code: 0 });
      const result = JSON.parse(stdout) as ResultDocument;
      expect(result).toMatchObject({ verdict: 'pass', claim: { outcome: 'holds' } });
      expect(JSON.stringify(result.measurement?.tables)).toContain('OSError: [Errno 12] Cannot allocate memory');
    },
  );

  test('an exit code and what is said on standard error come out as well', { timeout: 600_000 }, async () => {
    const { code, stdout, stderr } = await run(['cow-growth', '--param', 'size=8TiB']);
    expect(stdout).toMatch(/Host: .* a virtual\s+machine \(tcg\) of 1 GiB/);
    expect(stdout).toMatch(/SKIP: it needs 40 TiB of memory/);
    expect(stderr).toMatch(/cowlab: running cow-growth/);
    expect(code).toBe(3);
  });

  test('a file that is no kernel is a failure that shows what qemu says', { timeout: 600_000 }, async () => {
    const args = ['vm', 'run', 'enomem', '--kernel', join(process.cwd(), 'package.json'), '--accel', 'tcg'];
    const { code, stderr } = await cowlab(args);
    expect(code).toBe(1);
    expect(unbroken(stderr)).toMatch(/the guest failed: it ended while it booted; its last lines were:\n.*kernel/s);
  });

  test('a guest that takes too long is ended, and that is said', async () => {
    const { code, stderr } = await run(['enomem', '--timeout', '1']);
    expect(code).toBe(1);
    expect(unbroken(stderr)).toMatch(/the guest failed: it was not done after 1 s \(--timeout\)/);
  });

  // The memory in the arguments of qemu tells one test's from the others.
  test.each([
    ['SIGKILL', null, '701M'],
    ['SIGINT', 130, '702M'],
    ['SIGTERM', 130, '703M'],
  ] as const)('%s to the harness leaves no qemu and no file', async (signal, expected, memory) => {
    const files = (): string[] => readdirSync(tmpdir()).filter((name) => name.endsWith('.cpio'));
    const before = files();
    const child = start(['vm', 'run', 'enomem', '--kernel', kernel, '--accel', 'tcg', '--memory', memory]);
    // Ours has the size among its arguments too.
    await until(() => livingWith(memory).length === 2);
    child.kill(signal);
    const [code] = (await once(child, 'close')) as [number | null];
    expect(code).toBe(expected);
    await until(() => livingWith(memory).length === 0);
    expect(files()).toEqual(before);
  });
});
