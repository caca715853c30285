import { describe, expect, test } from 'vitest';
import { inheritedVmas, lostSharing, sharedParts } from '../../lib/proc/copied.js';
import type { SharedPart } from '../../lib/proc/copied.js';
import { parseSmaps } from '../../lib/proc/smaps.js';

function part(start: number, end: number, sharedKb: number, name = ''): SharedPart {
  return { start: BigInt(start), end: BigInt(end), name, sharedKb };
}

describe('memory that stopped being shared', () => {
  test('is the decline of each mapping', () => {
    const then = [part(0, 10, 40), part(20, 30, 40, '[heap]')];
    expect(lostSharing(then, [part(0, 10, 40), part(20, 30, 12, '[heap]')])).toEqual([
      { start: 20n, end: 30n, name: '[heap]', lostKb: 28 },
    ]);
  });

  test('is not lost when neighbours merge, a mapping is split, or one grows', () => {
    const whole = [part(0, 30, 100)];
    const parts = [part(0, 10, 60), part(10, 20, 30), part(20, 30, 10)];
    expect(lostSharing(whole, parts)).toEqual([]);
    expect(lostSharing(parts, whole)).toEqual([]);
    expect(lostSharing(whole, [part(0, 90, 100)])).toEqual([]);
  });

  test('of a split mapping it is what the parts have less, and mappings that only touch stay apart', () => {
    expect(
      lostSharing([part(0, 20, 100), part(20, 30, 8)], [part(0, 10, 50), part(10, 20, 30), part(20, 30, 8)]),
    ).toEqual([{ start: 0n, end: 20n, name: '', lostKb: 20 }]);
  });

  test('is all of what was unmapped, and none of what was shared anew', () => {
    expect(lostSharing([part(0, 10, 40)], [part(50, 60, 99)])).toEqual([{ start: 0n, end: 10n, name: '', lostKb: 40 }]);
  });

  test('only private memory without a file is looked at', () => {
    const record = (range: string, perms: string, inode: number, path: string) =>
      `${range} ${perms} 00000000 00:00 ${String(inode)}    ${path}\nShared_Clean: 3 kB\nShared_Dirty: 5 kB\n`;
    const vmas = parseSmaps(
      record('1000-2000', 'rw-p', 0, '[heap]') +
        record('2000-3000', 'rw-s', 0, '/dev/zero') +
        record('3000-4000', 'r--p', 7, '/usr/lib/x.so') +
        record('4000-5000', 'rw-p', 0, ''),
    );
    expect(sharedParts(inheritedVmas(vmas))).toEqual([part(0x1000, 0x2000, 8, '[heap]'), part(0x4000, 0x5000, 8)]);
  });
});
