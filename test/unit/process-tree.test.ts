/** A saved /proc, without the addon: it may be looked at on any machine. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { FeatureUnavailableError } from '../../lib/errors.js';
import { native } from '../../lib/native.js';
import { readProcessTree, readTreeMemory } from '../../lib/proc/process-tree.js';

let saved: string;

/** @param kb Rss, Pss, Private_Clean and Private_Dirty; without them there is no smaps_rollup. */
function save(pid: number, comm: string, state: string, parent: number, kb?: readonly number[]): void {
  const folder = join(saved, String(pid));
  mkdirSync(folder);
  const rest = Array.from({ length: 48 }, (_, index) => pid * 100 + index + 5).join(' ');
  writeFileSync(join(folder, 'stat'), `${String(pid)} (${comm}) ${state} ${String(parent)} ${rest}\n`);
  if (!kb) return;
  const fields = ['Rss', 'Pss', 'Private_Clean', 'Private_Dirty'].map((name, at) => `${name}: ${String(kb[at])} kB\n`);
  writeFileSync(join(folder, 'smaps_rollup'), `1000-3000 ---p 00000000 00:00 0     [rollup]\n${fields.join('')}`);
}

beforeAll(() => {
  vi.stubEnv('COWLAB_ADDON', '/no/such/addon.node');
  saved = mkdtempSync(join(tmpdir(), 'cowlab-proc-'));
  mkdirSync(join(saved, 'sys'));
  // Those that are no process of the tree: another's child, a zombie, and one that has gone while the copy was made.
  save(100, 'a (b) c', 'S', 1, [1000, 600, 200, 300]);
  save(9, 'late', 'S', 100, [100, 60, 20, 30]);
  save(1001, 'grandchild', 'R', 9, [10, 6, 2, 3]);
  save(101, 'dead', 'Z', 100);
  save(7, 'stranger', 'S', 1, [5, 5, 5, 5]);
  mkdirSync(join(saved, '102'));
});
afterAll(() => {
  vi.unstubAllEnvs();
  rmSync(saved, { recursive: true });
});

describe('a saved /proc', () => {
  test('has a tree, parents first, without the addon', () => {
    expect(() => native()).toThrow(FeatureUnavailableError);
    expect(readProcessTree(100, saved)).toEqual([
      { pid: 100, parent: 1, comm: 'a (b) c', startTicks: 10_022 },
      { pid: 9, parent: 100, comm: 'late', startTicks: 922 },
      { pid: 1001, parent: 9, comm: 'grandchild', startTicks: 100_122 },
    ]);
    expect(readProcessTree(102, saved)).toEqual([]);
  });

  test('has the memory of a tree, without the addon', () => {
    expect(readTreeMemory(100, saved)).toMatchObject({ rssKb: 1110, pssKb: 666, ussKb: 555 });
    expect(readTreeMemory(9, saved).processes.map(({ pid, pssKb }) => [pid, pssKb])).toEqual([
      [9, 60],
      [1001, 6],
    ]);
  });

  test('that is not there is an error', () => {
    expect(() => readProcessTree(1, join(saved, 'none'))).toThrow(/ENOENT.*none/);
  });
});
