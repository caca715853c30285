import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, test } from 'vitest';
import { applyJournal, journalPath, parseJournal, readJournal } from '../../lib/api/journal.js';
import type { Journal, RestoreStep } from '../../lib/api/journal.js';
import { restoreOvercommit } from '../../lib/api/system-changes.js';

const JOURNAL: Journal = {
  version: 1,
  bootId: 'b007',
  pid: 42,
  purpose: 'a test',
  startedAt: '2026-11-25T12:00:00.000Z',
  steps: [{ action: 'write', path: '/proc/sys/vm/overcommit_memory', value: '0' }],
};

function withSteps(...steps: unknown[]): string {
  return JSON.stringify({ ...JOURNAL, steps });
}

/** The settings in the order in which they are written, as name=value. */
function order(steps: readonly RestoreStep[]): string[] {
  return steps.map((step) => `${step.path.replace('/proc/sys/vm/', '')}=${step.action === 'write' ? step.value : ''}`);
}

describe('how overcommit is put back', () => {
  const before = { mode: 0 as const, ratio: 50, kbytes: 0, adminReserveKbytes: 8192 };

  it('leaves strict mode before the limit changes', () => {
    expect(order(restoreOvercommit(before))).toEqual([
      'overcommit_memory=0',
      'admin_reserve_kbytes=8192',
      'overcommit_ratio=50',
    ]);
  });

  it('enters strict mode after the limit is back', () => {
    expect(order(restoreOvercommit({ ...before, mode: 2 }))).toEqual([
      'admin_reserve_kbytes=8192',
      'overcommit_ratio=50',
      'overcommit_memory=2',
    ]);
  });

  it('writes kbytes or the ratio, whichever was set, since each unsets the other', () => {
    expect(order(restoreOvercommit({ ...before, ratio: 0, kbytes: 7000 }))).toContain('overcommit_kbytes=7000');
    expect(order(restoreOvercommit({ ...before, ratio: 0, kbytes: 7000 })).join()).not.toContain('ratio');
    expect(order(restoreOvercommit({ ...before, ratio: 0 }))).toContain('overcommit_ratio=0');
  });
});

describe('a journal', () => {
  it('is what was written', () => {
    expect(parseJournal(JSON.stringify(JOURNAL))).toEqual(JOURNAL);
  });

  it('may ask for the settings of ksmd', () => {
    const text = withSteps({ action: 'write', path: '/sys/kernel/mm/ksm/run', value: '0' });
    expect(parseJournal(text).steps).toHaveLength(1);
  });

  test.each([
    ['no JSON', '{', /not JSON/],
    ['another version', JSON.stringify({ ...JOURNAL, version: 2 }), /another version/],
    ['null', 'null', /another version/],
    ['no pid', JSON.stringify({ ...JOURNAL, pid: 'x' }), /pid is missing/],
    ['no boot', JSON.stringify({ ...JOURNAL, bootId: 1 }), /bootId is missing/],
    ['a file of others', withSteps({ action: 'write', path: '/etc/passwd', value: '0' }), /never changes/],
    ['a way out', withSteps({ action: 'remove', path: '/sys/fs/cgroup/../../../home/cowlab-1' }), /never changes/],
    ['another setting', withSteps({ action: 'write', path: '/proc/sys/kernel/panic', value: '1' }), /never changes/],
    ['another of KSM', withSteps({ action: 'write', path: '/sys/kernel/mm/ksm/full_scans', value: '1' }), /never/],
    ['another value', withSteps({ action: 'write', path: '/proc/sys/vm/overcommit_ratio', value: 'x' }), /never/],
    ['a cgroup of others', withSteps({ action: 'remove', path: '/sys/fs/cgroup/memory/system.slice' }), /never/],
    ['swap of others', withSteps({ action: 'swapoff', path: '/swapfile' }), /never changes/],
    ['another action', withSteps({ action: 'run', path: '/proc/sys/vm/overcommit_ratio' }), /never changes/],
  ])('with %s is refused', (_, text, message) => {
    expect(() => parseJournal(text)).toThrow(message);
  });

  describe('on the disk', () => {
    let directory: string;
    beforeEach(() => {
      directory = mkdtempSync(join(tmpdir(), 'cowlab-test-'));
    });
    afterEach(() => {
      rmSync(directory, { recursive: true });
    });

    it('that is not there is none', () => {
      expect(readJournal(directory)).toBeUndefined();
    });

    it('that makes no sense says which file, and what to do', () => {
      writeFileSync(journalPath(directory), 'x');
      expect(() => readJournal(directory)).toThrow(/journal\.json cannot be used.*by hand, and remove it/);
    });

    it('is carried out by the boot that wrote it, and then goes', () => {
      const gone: RestoreStep = { action: 'remove', path: join(directory, 'not-there') };
      writeFileSync(journalPath(directory), '');
      const restored = applyJournal(directory, { ...JOURNAL, steps: [gone] }, 'b007');
      expect(restored).toEqual([{ step: gone, result: 'not needed', detail: 'it has gone' }]);
      expect(existsSync(journalPath(directory))).toBe(false);
    });

    it('stays when a step fails', () => {
      const bad: RestoreStep = { action: 'write', path: join(directory, 'no', 'such'), value: '1' };
      writeFileSync(journalPath(directory), '');
      expect(applyJournal(directory, { ...JOURNAL, steps: [bad] }, 'b007')[0]?.result).toBe('failed');
      expect(existsSync(journalPath(directory))).toBe(true);
    });

    it('of another boot removes the swap file, which that has turned off', () => {
      const path = join(directory, 'cowlab-swap');
      writeFileSync(path, 'no swap area');
      writeFileSync(journalPath(directory), '');
      const step: RestoreStep = { action: 'swapoff', path };
      const [restored] = applyJournal(directory, { ...JOURNAL, steps: [step] }, 'b008');
      expect([restored?.result, existsSync(path)]).toEqual(['done', false]);
    });

    it('of another boot changes nothing', () => {
      const file = join(directory, 'setting');
      writeFileSync(file, 'as it is');
      writeFileSync(journalPath(directory), '');
      const step: RestoreStep = { action: 'write', path: file, value: '1' };
      expect(applyJournal(directory, { ...JOURNAL, steps: [step] }, 'b008')[0]?.result).toBe('not needed');
      expect(existsSync(journalPath(directory))).toBe(false);
    });
  });
});
