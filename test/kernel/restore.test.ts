import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { journalPath, readJournal, stateDirectory } from '../../lib/api/journal.js';
import { swapFilePath } from '../../lib/api/swap-file.js';
import { SystemChanges, findLeftBehind, restoreLeftBehind } from '../../lib/api/system-changes.js';
import { takeSwap } from '../swap.js';

const CHANGER = fileURLToPath(new URL('changer.mjs', import.meta.url));
const SWAP_CHANGER = fileURLToPath(new URL('swap-changer.mjs', import.meta.url));
const LIBRARY = new URL('../../dist/index.js', import.meta.url).href;
const NAMES = ['overcommit_memory', 'overcommit_ratio', 'overcommit_kbytes', 'admin_reserve_kbytes'];
const WHY = 'vm.overcommit_memory is changed, for which one must be root';
/** Loops of the changer take some 20 ms; its start is waited for. */
const LONGEST_MS = 60;
const KILLS = process.env['COWLAB_SHORT'] === '1' ? 20 : 200;

function settings(): Record<string, string> {
  return Object.fromEntries(NAMES.map((name) => [name, readFileSync(`/proc/sys/vm/${name}`, 'utf8').trim()]));
}

/** Pids of living processes of this name. */
function named(comm: string): number[] {
  return readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry))
    .filter((pid) => {
      try {
        const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
        return stat.includes(`(${comm})`) && !/\) [ZX]/.test(stat);
      } catch {
        return false;
      }
    })
    .map(Number);
}

const RESTORER = 'cowlab-restorer';

/** The end of a restorer is what there is to wait for; it has no handle here, so its name is looked for. */
async function restorersHaveEnded(): Promise<void> {
  const deadline = Date.now() + 10_000;
  while (named(RESTORER).length > 0) {
    if (Date.now() > deadline) expect.unreachable('a restorer goes on');
    await delay(2);
  }
}

/** In a process group of its own. @param viaShell As a child of a shell, which stays. */
function startChanger(viaShell: boolean, changer = CHANGER): ChildProcess {
  const env = { ...process.env, COWLAB_LIBRARY: LIBRARY };
  const options = { env, detached: true, stdio: ['ignore', 'pipe', 'ignore'] as const };
  if (!viaShell) return spawn(process.execPath, [changer], { ...options, stdio: [...options.stdio] });
  const script = `"${process.execPath}" "${changer}" & wait`;
  return spawn('sh', ['-c', script], { ...options, stdio: [...options.stdio] });
}

function childrenOf(pid: number): number[] {
  const text = readFileSync(`/proc/${String(pid)}/task/${String(pid)}/children`, 'utf8');
  return text.split(' ').filter(Boolean).map(Number);
}

type Way = (changer: ChildProcess) => void;

const WAYS: Record<string, { viaShell: boolean; kill: Way }> = {
  'the harness': { viaShell: false, kill: (changer) => changer.kill('SIGKILL') },
  'its whole process group': {
    viaShell: true,
    kill: ({ pid = 0 }) => process.kill(-pid, 'SIGKILL'),
  },
  'its parent shell and then it': {
    viaShell: true,
    kill: (changer) => {
      const children = childrenOf(changer.pid ?? 0);
      changer.kill('SIGKILL');
      for (const child of children) process.kill(child, 'SIGKILL');
    },
  },
  'it by Ctrl-C': { viaShell: false, kill: ({ pid = 0 }) => process.kill(-pid, 'SIGINT') },
};

describe.skipIf(process.geteuid?.() !== 0)(`settings are put back (${WHY})`, () => {
  let before: Record<string, string>;
  beforeEach(() => {
    before = settings();
    expect(findLeftBehind()).toEqual({ state: 'nothing' });
  });
  afterEach(() => {
    expect(settings()).toEqual(before);
    expect(existsSync(journalPath(stateDirectory()))).toBe(false);
  });

  test.each(Object.entries(WAYS))(
    `after SIGKILL of %s at ${String(KILLS / 4)} random moments`,
    { timeout: 300_000 },
    async (_, { viaShell, kill }) => {
      for (let round = 0; round < KILLS / 4; round++) {
        const changer = startChanger(viaShell);
        const exited = once(changer, 'exit');
        if (changer.stdout) await once(changer.stdout, 'data');
        await delay((round * LONGEST_MS) / (KILLS / 4) + Math.random());
        kill(changer);
        await exited;
        changer.stdout?.destroy();
        await restorersHaveEnded();
        expect({ round, ...settings() }).toEqual({ round, ...before });
        expect(readJournal(stateDirectory())).toBeUndefined();
      }
    },
  );

  test('after success, and everything is as it was when restore() resolves', async () => {
    const changes = SystemChanges.begin({ overcommit: true, purpose: 'a test' });
    changes.setOvercommit({ mode: 1, ratio: 33, adminReserveKbytes: 4096 });
    expect(settings()).toMatchObject({ overcommit_memory: '1', overcommit_ratio: '33', admin_reserve_kbytes: '4096' });
    await changes.restore();
    expect(settings()).toEqual(before);
    expect(() => {
      changes.setOvercommit({ mode: 1 });
    }).toThrow('the settings have been put back');
  });

  test('a limit in kbytes comes back as kbytes', async () => {
    const outer = SystemChanges.begin({ overcommit: true, purpose: 'what was there before' });
    outer.setOvercommit({ mode: 0, kbytes: 123_456_789 });
    const directory = mkdtempSync(join(tmpdir(), 'cowlab-test-'));
    try {
      const inner = SystemChanges.begin({ overcommit: true, purpose: 'a test', directory });
      inner.setOvercommit({ mode: 1, ratio: 44 });
      expect(settings()).toMatchObject({ overcommit_kbytes: '0', overcommit_ratio: '44' });
      await inner.restore();
      expect(settings()).toMatchObject({ overcommit_kbytes: '123456789', overcommit_ratio: '0' });
    } finally {
      await outer.restore();
      rmSync(directory, { recursive: true });
    }
  });

  test('by doctor --restore when the restorer was killed too; until then no run begins', async () => {
    const changer = startChanger(false);
    const exited = once(changer, 'exit');
    if (changer.stdout) await once(changer.stdout, 'data');
    while (findLeftBehind().state !== 'in use') await delay(1);
    // The restorer first: while it lives nothing is left behind.
    for (const pid of named(RESTORER)) process.kill(pid, 'SIGKILL');
    changer.kill('SIGKILL');
    await exited;
    await restorersHaveEnded();
    expect(findLeftBehind().state).toBe('changed');
    expect(() => SystemChanges.begin({ overcommit: true, purpose: 'a test' })).toThrow(/doctor --restore/);
    expect(restoreLeftBehind()?.every(({ result }) => result === 'done')).toBe(true);
    expect(restoreLeftBehind()).toBeUndefined();
  });

  test('swap is off again and its file gone, also after SIGKILL', { timeout: 300_000 }, async ({ skip }) => {
    const taken = await takeSwap();
    if (typeof taken === 'string') return skip(taken);
    const path = swapFilePath(stateDirectory());
    expect(readFileSync('/proc/swaps', 'utf8')).toContain(path);
    await taken.restore();
    const swapsBefore = readFileSync('/proc/swaps', 'utf8');
    expect(swapsBefore).not.toContain(path);
    for (let round = 0; round < KILLS / 8; round++) {
      const changer = startChanger(false, SWAP_CHANGER);
      const exited = once(changer, 'exit');
      if (changer.stdout) await once(changer.stdout, 'data');
      await delay((round * LONGEST_MS) / (KILLS / 8) + Math.random());
      changer.kill('SIGKILL');
      await exited;
      await restorersHaveEnded();
      expect({ round, swaps: readFileSync('/proc/swaps', 'utf8') }).toEqual({ round, swaps: swapsBefore });
      expect(existsSync(path)).toBe(false);
    }
  });

  test('swap that a killed restorer has left is taken away by doctor --restore', async ({ skip }) => {
    const taken = await takeSwap();
    if (typeof taken === 'string') return skip(taken);
    for (const pid of named(RESTORER)) process.kill(pid, 'SIGKILL');
    await expect(taken.restore()).rejects.toThrow(/cowlab-swap is still there.*doctor --restore/);
    expect(findLeftBehind().state).toBe('changed');
    expect(restoreLeftBehind()?.map(({ step, result }) => [step.action, result])).toEqual([['swapoff', 'done']]);
    expect(readFileSync('/proc/swaps', 'utf8')).not.toContain('cowlab-swap');
  });

  test('a journal of another boot changes nothing and goes', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'cowlab-test-'));
    try {
      const changes = SystemChanges.begin({ overcommit: true, purpose: 'a test', directory });
      const journal = readFileSync(journalPath(directory), 'utf8');
      await changes.restore();
      const old = { ...(JSON.parse(journal) as object), bootId: '00000000-0000-0000-0000-000000000000' };
      writeFileSync(journalPath(directory), JSON.stringify(old).replace('"value":"0"', '"value":"1"'));
      expect(restoreLeftBehind(directory)?.every(({ result }) => result === 'not needed')).toBe(true);
      expect(existsSync(journalPath(directory))).toBe(false);
    } finally {
      rmSync(directory, { recursive: true });
    }
  });
});
