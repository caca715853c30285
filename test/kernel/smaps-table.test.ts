import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { spawnFresh } from '../../lib/api/fresh-process.js';
import type { ForkedProcess } from '../../lib/api/forked-process.js';
import { native } from '../../lib/native.js';
import { ProcFormatError } from '../../lib/proc/read.js';
import {
  SMAPS_PERMS,
  parseSmapsTable,
  readSmapsRollupTable,
  readSmapsTable,
  type SmapsTable,
} from '../../lib/proc/smaps-table.js';
import { parseSmaps, readSmaps, readSmapsRollup, type SmapsVma } from '../../lib/proc/smaps.js';
import { KERNEL_THREAD, whyNoKernelThread } from './kernel-thread.js';

const PAGE = BigInt(native().pageSizeBytes);

function vmasOf(table: SmapsTable): SmapsVma[] {
  return Array.from({ length: table.length }, (_, index) => table.vma(index));
}

/** What a column or a bit says is what the object of the same VMA says. */
function expectColumnsToAgree(table: SmapsTable): void {
  vmasOf(table).forEach((vma, index) => {
    expect([table.starts[index], table.ends[index], table.path(index)]).toEqual([vma.start, vma.end, vma.path]);
    const perms = table.perms[index] ?? 0;
    const letters = (['read', 'write', 'execute'] as const).map((kind, at) =>
      perms & SMAPS_PERMS[kind] ? 'rwx'[at] : '-',
    );
    expect(letters.join('') + (perms & SMAPS_PERMS.shared ? 's' : 'p')).toBe(vma.perms);
    expect((perms & SMAPS_PERMS.file) !== 0).toBe(vma.inode !== 0n);
    const flags = table.vmFlagNames.filter((flag) => table.hasVmFlag(index, flag));
    expect(flags.sort()).toEqual([...new Set(vma.vmFlags)].sort());
  });
}

const hex = (max: bigint): fc.Arbitrary<string> => fc.bigInt({ min: 0n, max }).map((value) => value.toString(16));

const header = fc
  .record({
    start: hex(2n ** 64n - 1n),
    end: hex(2n ** 64n - 1n),
    perms: fc.tuple(
      fc.constantFrom('r', '-'),
      fc.constantFrom('w', '-'),
      fc.constantFrom('x', '-'),
      fc.constantFrom('p', 's'),
    ),
    offset: hex(2n ** 64n - 1n),
    device: fc.constantFrom('00:00', 'fe:01', '103:12345'),
    inode: fc.constantFrom('0', '77', '18446744073709551615'),
    path: fc.constantFrom('', ' [heap]', '      /tmp/a b\\012c (deleted)', '  /tmp/\u00fcber', ' Rss: 4 kB'),
  })
  .map((one) => `${one.start}-${one.end} ${one.perms.join('')} ${one.offset} ${one.device} ${one.inode}${one.path}`);

const FIELDS = ['Size', 'Rss', 'Pss', 'Pss_Dirty', 'Shared_Clean', 'Private_Dirty', 'Field_Of_2031'];
/** A line as the kernel writes it, or with the figure elsewhere. */
const figureLine = (name: string, value: number, asKernel = true): string =>
  `${`${name}:`.padEnd(asKernel ? 16 : 0)}${String(value).padStart(8)} kB`;
const kb = fc.oneof(fc.nat({ max: 20 }), fc.integer({ min: 10 ** 7, max: 10 ** 9 }), fc.maxSafeNat());
const figures = fc
  .record({ names: fc.oneof(fc.subarray(FIELDS), fc.shuffledSubarray(FIELDS)), asKernel: fc.boolean() })
  .chain(({ names, asKernel }) =>
    fc.tuple(...names.map((name) => kb.map((value) => figureLine(name, value, asKernel)))),
  );
const others = fc.subarray(['THPeligible:           1', 'ProtectionKey:         7', 'Odd: a b ']);
const flags = fc
  .subarray(['rd', 'wr', 'ac', 'dc', '??'])
  .map((all) => `VmFlags: ${all.map((flag) => `${flag} `).join('')}`);
const record = fc
  .tuple(header, figures, others, fc.option(flags))
  .map(([first, ...rest]) => [first, ...rest.flat(), ''].filter((line) => line !== null).join('\n'));
/** The same fields again and again, as the kernel shows them, and others. */
const texts = fc
  .array(record, { maxLength: 6 })
  .chain((records) => fc.shuffledSubarray([...records, ...records]).map((all) => all.join('')));

/** Bytes cut off, left out, doubled or made others. */
const garbled = fc
  .tuple(
    texts,
    fc.array(
      fc.record({
        at: fc.double({ min: 0, max: 1, noNaN: true }),
        length: fc.nat({ max: 40 }),
        how: fc.nat({ max: 4 }),
        put: fc.constantFrom(' ', '\n', ':', '-', '0', 'x', 'Z', ' kB', '9'.repeat(17), '\0', '\u00a0'),
      }),
      { minLength: 1, maxLength: 3 },
    ),
  )
  .map(([text, faults]) =>
    faults.reduce((now, { at, length, how, put }) => {
      const from = Math.floor(at * now.length);
      const [before, part, after] = [now.slice(0, from), now.slice(from, from + length), now.slice(from + length)];
      return (
        [
          before,
          before + after,
          before + part + part + after,
          before + put + part + after,
          before + put + part.slice(1) + after,
        ][how] ?? ''
      );
    }, text),
  );

type Parsed = { vmas: unknown } | { refused: string };

function outcomeOf(parse: () => SmapsVma[]): Parsed {
  try {
    return { vmas: parse() };
  } catch (error) {
    if (error instanceof ProcFormatError) return { refused: error.message };
    throw error;
  }
}

/** What no kernel's rules decide is left out of the guests of scripts/test-vm.js, which are slow. */
const describeTexts = describe.skipIf(process.env['COWLAB_GUEST'] === '1');

describeTexts('the native parser and parseSmaps', () => {
  it('find the same in every text of the form of smaps', () => {
    fc.assert(
      fc.property(texts, (text) => {
        const table = parseSmapsTable(Buffer.from(text));
        expect(vmasOf(table)).toEqual(parseSmaps(text));
        expectColumnsToAgree(table);
      }),
      { numRuns: 500 },
    );
  });

  it('find the same in a text cut short or garbled, or refuse the same line for the same reason', () => {
    const seen = { accepted: 0, refused: 0 };
    fc.assert(
      fc.property(garbled, (text) => {
        const expected = outcomeOf(() => parseSmaps(text, 'here'));
        expect(outcomeOf(() => vmasOf(parseSmapsTable(Buffer.from(text), 'here')))).toEqual(expected);
        seen['vmas' in expected ? 'accepted' : 'refused']++;
      }),
      { numRuns: 3000 },
    );
    expect(Math.min(seen.accepted, seen.refused)).toBeGreaterThan(300);
  });

  it('agree about bytes that are no text at all', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        const expected = outcomeOf(() => parseSmaps(Buffer.from(bytes).toString()));
        expect(outcomeOf(() => vmasOf(parseSmapsTable(bytes)))).toEqual(expected);
      }),
      { numRuns: 2000 },
    );
  });

  it.each([
    ['2^53 - 1', '9007199254740991', 9007199254740991],
    ['leading zeros', '0'.repeat(400) + '4', 4],
  ])('take %s for a number', (_, digits, value) => {
    const text = `1000-2000 rw-p 0 00:00 0\nRss: ${digits} kB\n`;
    expect(parseSmaps(text)[0]?.fieldsKb).toEqual({ Rss: value });
    expect(parseSmapsTable(Buffer.from(text)).sumKb('Rss')).toBe(value);
  });

  it.each([
    ['a number that a double cannot hold', 'Rss: 9007199254740992 kB', 'a number of kB'],
    ['a number of 400 digits', `Rss: ${'9'.repeat(400)} kB`, 'a number of kB'],
    ['a number after another word', 'Rss: x 4 kB', 'a number of kB'],
    ['a field for the second time', 'Rss: 4 kB\nPss: 4 kB\nRss: 4 kB', 'a field that the record has not got yet'],
    ['a flag of three letters', 'VmFlags: rdx ', 'flags of two letters'],
  ])('refuse %s', (_, lines, expected) => {
    const text = `1000-2000 rw-p 0 00:00 0\nRss: 1 kB\n1000-2000 rw-p 0 00:00 0\n${lines}\n`;
    expect(() => parseSmaps(text)).toThrow(expected);
    expect(() => parseSmapsTable(Buffer.from(text))).toThrow(expected);
  });
});

describe('records in the form of the kernel', () => {
  const HEADER = '08048000-08052000 r-xp 00000000 08:01 1234                               /bin/\u00e9';
  const FLAGS = 'VmFlags: rd ex mr mw me ';
  const LINES = [
    HEADER,
    ...['Size', 'KernelPageSize', 'MMUPageSize', 'Rss', 'Pss', 'Private_Hugetlb'].map((name, at) =>
      figureLine(name, 64 + at),
    ),
    'THPeligible:           0',
    FLAGS,
  ];
  /** A record with some of its lines replaced, left out (''), or with another before them. */
  const recordWith = (changes: Record<number, string>): string =>
    LINES.map((line, at) => changes[at] ?? line)
      .filter((line) => line !== '')
      .map((line) => `${line}\n`)
      .join('');
  const plain = recordWith({});

  it.each([
    [
      'figures of eight digits and of more',
      [1, 99_999_999, 100_000_000, 99_999_999, 123_456_789_012, 7].map((kb) =>
        recordWith({ 4: figureLine('Rss', kb) }),
      ),
    ],
    [
      'digits before the place of the figure',
      ['0000000000000000004', '0000000000100000004', '0000000000100000005', '4'].map((digits) =>
        recordWith({ 4: `Rss: ${digits} kB` }),
      ),
    ],
    [
      'a field left out in the middle, and at the end',
      [plain, recordWith({ 4: '' }), plain, recordWith({ 7: '', 8: '' })],
    ],
    ['no field at all', [plain, `${HEADER}\n`, plain]],
    [
      'a new field in the middle',
      [plain, recordWith({ 4: `${figureLine('Rss', 1)}\n${figureLine('Rss_New', 2)}` }), plain],
    ],
    ['fields in another order', [plain, recordWith({ 4: figureLine('Pss', 1), 5: figureLine('Rss', 2) }), plain]],
    [
      'a name that begins as the one before',
      [plain, recordWith({ 4: figureLine('Rss_', 1) }), recordWith({ 4: figureLine('Rs', 2) })],
    ],
    [
      'a name of more letters than the place for it',
      [recordWith({ 4: 'Rss_Of_What_Is: 99999999 kB' }), recordWith({ 4: 'Rss_Of_What_Is_N: 999999 kB' }), plain],
    ],
    [
      'a field that has a unit only sometimes',
      [plain, recordWith({ 4: 'Rss:                   4 k!' }), plain, recordWith({ 4: 'Rss:                 VIII' })],
    ],
    [
      'other flags in each, and other lines without a unit',
      [FLAGS, 'VmFlags: rd wr mr mw me ac ', 'VmFlags: ', 'VmFlags: ac rd '].map((line, at) =>
        recordWith({ 7: `THPeligible:           ${at}`, 8: line }),
      ),
    ],
  ])('are read as parseSmaps reads them: %s', (_, records) => {
    const text = [plain, ...records, ...records].join('');
    const table = parseSmapsTable(Buffer.from(text));
    expect(vmasOf(table)).toEqual(parseSmaps(text));
    expectColumnsToAgree(table);
  });

  it.each([
    'Rss:                 1x4 kB',
    'Rss:               1 4 kB',
    'Rss:                     kB',
    'Rss:                 -4 kB',
    'Rss:               4\u00a0 kB',
  ])('are refused where there is no figure: %s', (line) => {
    // Records that say the same of three VMAs, whose lines count too.
    const text = plain.repeat(3) + recordWith({ 4: line }) + plain;
    const outcome = outcomeOf(() => parseSmaps(text, 'here'));
    expect(outcome).toMatchObject({ refused: expect.stringContaining('here:32: ') as string });
    expect(outcomeOf(() => vmasOf(parseSmapsTable(Buffer.from(text), 'here')))).toEqual(outcome);
  });

  it('are read or refused as parseSmaps does with each letter in each place of a figure', () => {
    const printable = Array.from({ length: 0x7f - 0x20 }, (_, index) => String.fromCharCode(0x20 + index));
    for (const eight of ['       0', '    1234', '87654321']) {
      for (let place = 0; place < 8; place++) {
        for (const letter of printable) {
          const other = `${eight.slice(0, place)}${letter}${eight.slice(place + 1)}`;
          const text = plain + recordWith({ 4: `Rss:            ${other} kB` }) + plain;
          const outcome = outcomeOf(() => parseSmaps(text));
          expect(outcomeOf(() => vmasOf(parseSmapsTable(Buffer.from(text))))).toEqual(outcome);
        }
      }
    }
  });
});

describe('a table', () => {
  it('keeps a field that only some have, and counts it for these', () => {
    const table = parseSmapsTable(
      Buffer.from(
        '1000-2000 rw-p 0 00:00 0\nNew: 5 kB\n2000-3000 rw-p 0 00:00 0\nRss: 4 kB\n3000-4000 rw-p 0 00:00 0\nNew: 6 kB\n',
      ),
    );
    expect(table.fieldsKb).toEqual({ New: Float64Array.of(5, NaN, 6), Rss: Float64Array.of(NaN, 4, NaN) });
    expect([table.sumKb('New'), table.sumKb('Rss'), table.sumKb('Pss')]).toEqual([11, 4, 0]);
  });

  it('takes no more than 64 names of fields, 64 flags and 256 lines a VMA, however long the text', () => {
    const lines = (count: number, line: (index: number) => string): string =>
      `1-2 rw-p 0 00:00 0\n${Array.from({ length: count }, (_, index) => line(index)).join('\n')}\n`;
    const parse = (text: string) => () => parseSmapsTable(Buffer.from(text)).length;
    const flag = (index: number): string =>
      `VmFlags: ${'abc'[index % 3] ?? ''}${String.fromCharCode(97 + Math.floor(index / 3))} `;
    const flagged = (count: number): string =>
      Array.from({ length: count }, (_, index) => lines(1, () => flag(index))).join('');
    expect(parse(lines(64, (index) => `F${String(index)}: 1 kB`))()).toBe(1);
    expect(parse(lines(65, (index) => `F${String(index)}: 1 kB`))).toThrow('at most 64 fields');
    expect(parse(flagged(64))()).toBe(64);
    expect(parse(flagged(65))).toThrow(ProcFormatError);
    expect(parse(lines(256, (index) => `F${String(index)}: 1`))()).toBe(1);
    expect(parse(lines(257, (index) => `F${String(index)}: 1`))).toThrow(ProcFormatError);
  });

  it('refuses an index, bytes, a pid and a range that are none', () => {
    const table = parseSmapsTable(Buffer.from('1000-2000 rw-p 0 00:00 0\n'));
    for (const index of [-1, 1, 0.5, NaN]) {
      for (const read of [() => table.vma(index), () => table.path(index), () => table.hasVmFlag(index, 'ac')]) {
        expect(read).toThrow(RangeError);
      }
    }
    expect(() => parseSmapsTable('text' as never)).toThrow(TypeError);
    expect(() => readSmapsTable(-1)).toThrow(RangeError);
    expect(() => readSmapsTable('self', { address: 4096 as never, pages: 1 })).toThrow(TypeError);
    expect(() => readSmapsTable('self', { address: 1n, pages: 1 })).toThrow(RangeError);
    expect(() => readSmapsTable('self', { address: 0n, pages: 0 })).toThrow(RangeError);
    const addon = native() as unknown as Record<'readSmaps' | 'parseSmaps', (...args: unknown[]) => unknown>;
    for (const args of [
      [],
      ['/proc/self/smaps'],
      ['a\0b', null, 0],
      ['x', -1n, 1],
      ['x', 2n ** 63n, 1],
      ['x', 0n, NaN],
    ]) {
      expect(() => addon.readSmaps(...args)).toThrow();
    }
    expect(() => addon.parseSmaps(new Float64Array(1))).toThrow(TypeError);
  });
});

describeTexts('a saved tree of /proc', () => {
  let root: string;

  beforeEach(() => {
    root = mkdtempSync(join(tmpdir(), 'cowlab-proc-'));
    mkdirSync(join(root, '7'));
  });

  afterEach(() => {
    rmSync(root, { recursive: true });
  });

  it('is read to the last line, whatever its length', () => {
    const path = `/${'long '.repeat(5000)}`;
    const text = `1000-2000 rw-p 0 00:00 0\n2000-3000 rw-p 0 fe:01 5 ${path}\nRss: 4 kB\nRss_Of_Last: 5 kB`;
    writeFileSync(join(root, '7/smaps'), text);
    const table = readSmapsTable(7, undefined, root);
    expect(vmasOf(table)).toEqual(parseSmaps(text));
    expect(table.path(1)).toBe(path);
  });

  it.each([
    ['after each read', { address: 0n, pages: 2 ** 30 }, 10],
    ['after many reads', undefined, 110],
  ])('is read the same wherever a read ends in a record, if parsed %s', (_, range, records) => {
    const body = `Rss:                 123 kB\nPss:           123456789 kB\nPrivate_Hugetlb:       4 kB\nField: of others\nVmFlags: rd wr \n`;
    const record = (path: number): string => `1000-2000 rw-p 0 fe:01 5 /${'a'.repeat(path)}\n${body}`;
    const bytes = record(500).length;
    const rest = Array.from({ length: records }, (__, at) => record(500).replace('123 kB', `${at + 100} kB`)).join('');
    const kb = Float64Array.from({ length: records + 1 }, (__, at) => (at === 0 ? 123 : at + 99));
    for (let shift = 0; shift < bytes; shift++) {
      writeFileSync(join(root, '7/smaps'), record(shift) + rest);
      const table = readSmapsTable(7, range, root);
      expect(table.fieldsKb['Rss']).toEqual(kb);
      expect([table.sumKb('Pss'), table.sumKb('Private_Hugetlb')]).toEqual([123456789 * kb.length, 4 * kb.length]);
      expect(table.path(records)).toBe(`/${'a'.repeat(500)}`);
    }
  });

  it('names file and line of what it cannot parse, but only up to the end of the range', () => {
    writeFileSync(join(root, '7/smaps'), '1000-2000 rw-p 0 00:00 0\n5000-6000 rw-p 0 00:00 0\nRss 4 kB\n');
    expect(() => readSmapsTable(7, undefined, root)).toThrow(`${root}/7/smaps:3: cannot parse "Rss 4 kB"`);
    expect(readSmapsTable(7, { address: 0n, pages: 1 }, root)).toHaveLength(0);
  });

  it('is one record in smaps_rollup', () => {
    writeFileSync(join(root, '7/smaps_rollup'), '1-2 ---p 0 00:00 0\n3-4 ---p 0 00:00 0\n');
    expect(() => readSmapsRollupTable(7, root)).toThrow(ProcFormatError);
  });
});

/** Both readings, made when nothing changed around them: others that map the same libc come and go. */
function readBoth(pid: number): { table: SmapsTable; vmas: SmapsVma[] } {
  for (let before = readSmapsTable(pid); ;) {
    const vmas = readSmaps(pid);
    const table = readSmapsTable(pid);
    if (isDeepStrictEqual(before.fieldsKb, table.fieldsKb)) return { table, vmas };
    before = table;
  }
}

describe('a process that is parked', () => {
  let child: ForkedProcess;

  beforeEach(() => {
    // Not forked from here: what we write would change what it shares with us.
    child = spawnFresh();
  });

  afterEach(async () => {
    await child.exit();
  });

  it('is in columns what it is in objects', async () => {
    const region = await child.map({ pages: 1000 });
    await child.write(region, { pages: 100 });
    const { table, vmas } = readBoth(child.pid);
    expect(vmasOf(table)).toEqual(vmas);
    expectColumnsToAgree(table);
    const { fieldsKb } = readSmapsRollup(child.pid);
    expect(table.sumKb('Rss')).toBe(fieldsKb['Rss']);
    expect(table.sumKb('Private_Dirty')).toBe(fieldsKb['Private_Dirty']);
    expect(readSmapsRollupTable(child.pid).sumKb('Rss')).toBe(fieldsKb['Rss']);
  });

  it('shows of a range the VMAs that have a page in it, and no other', async () => {
    const { address, pages } = child.placement(await child.map({ pages: 64 }));
    const all = readSmaps(child.pid);
    const startsIn = (range: { address: bigint; pages: number }): bigint[] => [
      ...readSmapsTable(child.pid, range).starts,
    ];
    expect(startsIn({ address, pages })).toEqual([address]);
    expect(startsIn({ address: address + 63n * PAGE, pages: 1 })).toEqual([address]);
    const around = all.filter(({ start, end }) => end > address - PAGE && start <= address + 64n * PAGE);
    expect(startsIn({ address: address - PAGE, pages: 66 })).toEqual(around.map(({ start }) => start));
    expect(startsIn({ address: 0n, pages: 1 })).toEqual([]);
  });

  it('with a thousand small VMAs is read whole, each VMA once', async () => {
    const region = await child.map({ pages: 2000 });
    for (let page = 0; page < 2000; page += 2) await child.protect(region, 'none', { first: page, pages: 1 });
    const { table, vmas } = readBoth(child.pid);
    expect(table.length).toBeGreaterThan(2000);
    expect(vmasOf(table)).toEqual(vmas);
  });
});

it('a kernel thread has no VMAs', ({ skip }) => {
  const lacking = whyNoKernelThread();
  if (lacking !== undefined) skip(lacking);
  expect(readSmapsTable(KERNEL_THREAD)).toHaveLength(0);
});

it('a pid that cannot be is ESRCH', () => {
  expect(() => readSmapsTable(2 ** 22 + 1)).toThrow(
    expect.objectContaining({ code: 'ESRCH', syscall: 'open' }) as Error,
  );
});
