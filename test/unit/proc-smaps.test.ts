import { describe, expect, it } from 'vitest';
import { ProcFormatError } from '../../lib/proc/read.js';
import { isChargedAtFork, parseSmaps, parseSmapsRollup, vmaPages } from '../../lib/proc/smaps.js';

// Every figure differs from every other, so that a misrouted one shows.
const HEAP = `55d0a1e00000-55d0a1e21000 rw-p 00000000 00:00 0                          [heap]
Size:                132 kB
KernelPageSize:        4 kB
MMUPageSize:           5 kB
Rss:                 101 kB
Pss:                 102 kB
Pss_Dirty:           103 kB
Shared_Clean:        104 kB
Shared_Dirty:        105 kB
Private_Clean:       106 kB
Private_Dirty:       107 kB
Referenced:          108 kB
Anonymous:           109 kB
KSM:                 110 kB
LazyFree:            111 kB
AnonHugePages:       112 kB
Swap:                113 kB
SwapPss:             114 kB
Locked:              115 kB
Field_Of_2031:       116 kB
THPeligible:           1
ProtectionKey:         7
VmFlags: rd wr mr mw me ac sd 
`;
const FILE = `7f10aa000000-7f10aa002000 r-xs 0001f000 fe:01 18446744073709551615       /tmp/a b\\012c (deleted)
Size:                  8 kB
Rss:                 201 kB
THPeligible:           0
VmFlags: rd ex sh mr mw me ms dc 
`;

describe('parseSmaps', () => {
  it('routes every field of a record, and keeps those it does not know', () => {
    expect(parseSmaps(HEAP)).toEqual([
      {
        start: 0x55d0a1e00000n,
        end: 0x55d0a1e21000n,
        perms: 'rw-p',
        offset: 0n,
        device: '00:00',
        inode: 0n,
        path: '[heap]',
        fieldsKb: {
          Size: 132,
          KernelPageSize: 4,
          MMUPageSize: 5,
          Rss: 101,
          Pss: 102,
          Pss_Dirty: 103,
          Shared_Clean: 104,
          Shared_Dirty: 105,
          Private_Clean: 106,
          Private_Dirty: 107,
          Referenced: 108,
          Anonymous: 109,
          KSM: 110,
          LazyFree: 111,
          AnonHugePages: 112,
          Swap: 113,
          SwapPss: 114,
          Locked: 115,
          Field_Of_2031: 116,
        },
        other: { THPeligible: '1', ProtectionKey: '7' },
        vmFlags: ['rd', 'wr', 'mr', 'mw', 'me', 'ac', 'sd'],
      },
    ]);
  });

  it('reads records whose fields differ, one after the other, and a path with a space', () => {
    const [heap, file, again] = parseSmaps(HEAP + FILE + HEAP);
    expect(again).toEqual(heap);
    expect(file).toMatchObject({
      start: 0x7f10aa000000n,
      perms: 'r-xs',
      offset: 0x1f000n,
      device: 'fe:01',
      inode: 18446744073709551615n,
      path: '/tmp/a b\\012c (deleted)',
      fieldsKb: { Size: 8, Rss: 201 },
      other: { THPeligible: '0' },
    });
  });

  it('takes a name that begins as a known one does for another field', () => {
    const text = '1000-2000 rw-p 00000000 00:00 0 \nPss:   1 kB\n2000-3000 rw-p 00000000 00:00 0 \nPss_Dirty:   2 kB\n';
    expect(parseSmaps(text).map((vma) => vma.fieldsKb)).toEqual([{ Pss: 1 }, { Pss_Dirty: 2 }]);
  });

  it('finds no VMA in an empty text, as a kernel thread gives it, and none is named in anonymous memory', () => {
    expect(parseSmaps('')).toEqual([]);
    expect(parseSmaps('1000-2000 rw-p 00000000 00:00 0 ')[0]?.path).toBe('');
  });

  it.each([
    ['a field before any VMA', 'Rss: 4 kB\n', 1],
    ['a line without a colon', `${HEAP}Rss 4 kB\n`, 24],
    ['a figure that is no number', `${HEAP}Rss: x kB\n`, 24],
    ['a figure with a sign', `${HEAP}Rss: -4 kB\n`, 24],
    ['a unit without a figure', `${HEAP}Rss: kB\n`, 24],
    ['a range that is not hexadecimal', 'xyz-2000 rw-p 00000000 00:00 0\n', 1],
    ['a header cut short', '1000-2000 rw-p\n', 1],
    ['a header without an inode', '1000-2000 rw-p 00000000 00:00 \n', 1],
  ])('says file and line of %s', (_, text, line) => {
    let thrown: unknown;
    try {
      parseSmaps(text, '/proc/7/smaps');
    } catch (error) {
      thrown = error;
    }
    expect(thrown).toBeInstanceOf(ProcFormatError);
    expect(String(thrown)).toContain(`/proc/7/smaps:${line}: cannot parse`);
  });

  it('parses 5,000 VMAs to the last', () => {
    const vmas = parseSmaps((HEAP + FILE).repeat(2500));
    expect(vmas).toHaveLength(5000);
    expect(vmas.at(-1)?.fieldsKb['Rss']).toBe(201);
  });
});

describe('parseSmapsRollup', () => {
  it('reads the one record', () => {
    const rollup = parseSmapsRollup('1000-3000 ---p 00000000 00:00 0     [rollup]\nRss: 11 kB\nPss_Anon: 12 kB\n');
    expect(rollup).toEqual({ start: 0x1000n, end: 0x3000n, fieldsKb: { Rss: 11, Pss_Anon: 12 }, other: {} });
  });

  it('refuses none and two', () => {
    expect(() => parseSmapsRollup('')).toThrow(ProcFormatError);
    expect(() => parseSmapsRollup(HEAP + HEAP)).toThrow('exactly one record');
  });
});

describe('the charge of a VMA', () => {
  it('is its length in pages', () => {
    const [heap] = parseSmaps(HEAP);
    expect(heap && vmaPages(heap, 4096)).toBe(33);
  });

  it('is asked for at fork if accounted (ac) and not dontfork (dc)', () => {
    expect(isChargedAtFork({ vmFlags: ['rd', 'ac'] })).toBe(true);
    expect(isChargedAtFork({ vmFlags: ['rd', 'ac', 'wf'] })).toBe(true);
    expect(isChargedAtFork({ vmFlags: ['rd', 'ac', 'dc'] })).toBe(false);
    expect(isChargedAtFork({ vmFlags: ['rd'] })).toBe(false);
  });
});
