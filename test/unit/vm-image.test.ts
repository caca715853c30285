import { execFileSync } from 'node:child_process';
import { closeSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { FeatureUnavailableError } from '../../lib/errors.js';
import { Image, parseLdd } from '../../lib/vm/image.js';
import { encodeEntry, encodeTrailer } from '../../lib/vm/newc.js';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'cowlab-image-'));
});
afterAll(() => {
  rmSync(folder, { recursive: true });
});

interface Parsed {
  path: string;
  inode: number;
  mode: number;
  links: number;
  content: string;
  device: [number, number];
}

/** Reads an archive by the field offsets of buffer-format.rst, and by none of what wrote it. */
function parseNewc(archive: Buffer): Parsed[] {
  const found: Parsed[] = [];
  for (let at = 0; ;) {
    expect(at % 4).toBe(0);
    const head = archive.toString('latin1', at, at + 110);
    expect(head).toMatch(/^070701[0-9a-f]{104}$/);
    const field = (index: number): number => parseInt(head.slice(6 + 8 * index, 14 + 8 * index), 16);
    const nameEnd = at + 110 + field(11);
    const path = archive.toString('utf8', at + 110, nameEnd - 1);
    expect(archive[nameEnd - 1]).toBe(0);
    const start = (nameEnd + 3) & ~3;
    const end = start + field(6);
    const content = archive.toString('utf8', start, end);
    if (path === 'TRAILER!!!') return found;
    found.push({ path, inode: field(0), mode: field(1), links: field(4), content, device: [field(9), field(10)] });
    at = (end + 3) & ~3;
  }
}

function written(image: Image): Buffer {
  const path = join(folder, 'image.cpio');
  const fd = openSync(path, 'w');
  const length = image.write(fd);
  closeSync(fd);
  const archive = readFileSync(path);
  expect(archive.length).toBe(length);
  return archive;
}

/** One of everything, with names and contents of every length modulo four. */
function sample(): Image {
  const image = new Image();
  image.characterDevice('/dev/console', 5, 1);
  image.directory('/tmp', 0o1777);
  image.file('/a', Buffer.from(''));
  image.file('/bin/ab', Buffer.from('x'), true);
  image.file('/abc', Buffer.from('xy'));
  image.file('/ab/cd', Buffer.from('xyz'));
  image.file('/é', Buffer.from('wxyz'));
  image.symlink('/bin/link', '../ab/cd');
  return image;
}

const SAMPLE = [
  ['dev', 0o40755, '', [0, 0]],
  ['dev/console', 0o20600, '', [5, 1]],
  ['tmp', 0o41777, '', [0, 0]],
  ['a', 0o100644, '', [0, 0]],
  ['bin', 0o40755, '', [0, 0]],
  ['bin/ab', 0o100755, 'x', [0, 0]],
  ['abc', 0o100644, 'xy', [0, 0]],
  ['ab', 0o40755, '', [0, 0]],
  ['ab/cd', 0o100644, 'xyz', [0, 0]],
  ['é', 0o100644, 'wxyz', [0, 0]],
  ['bin/link', 0o120777, '../ab/cd', [0, 0]],
];

function hasCpio(): boolean {
  try {
    execFileSync('cpio', ['--version'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

describe('an archive', () => {
  test('holds each entry with its type, mode, content and device, and directories before what is in them', () => {
    const parsed = parseNewc(written(sample()));
    expect(parsed.map(({ path, mode, content, device }) => [path, mode, content, device])).toEqual(SAMPLE);
  });

  test('has no hard links: every entry has an inode of its own', () => {
    const parsed = parseNewc(written(sample()));
    expect(new Set(parsed.map(({ inode }) => inode)).size).toBe(parsed.length);
    expect(new Set(parsed.map(({ links }) => links))).toEqual(new Set([1]));
  });

  test.skipIf(!hasCpio())('is read by cpio as it was written (skipped: there is no cpio)', () => {
    const listing = execFileSync('cpio', ['-itv', '--quiet'], { input: written(sample()), encoding: 'utf8' });
    const lines = listing.trim().split('\n');
    expect(lines.map((line) => line.slice(0, 10))).toEqual(
      // cpio writes mode 1777 with its t, and what is no file with its letter.
      [
        'drwxr-xr-x',
        'crw-------',
        'drwxrwxrwt',
        '-rw-r--r--',
        'drwxr-xr-x',
        '-rwxr-xr-x',
        '-rw-r--r--',
        'drwxr-xr-x',
      ].concat(['-rw-r--r--', '-rw-r--r--', 'lrwxrwxrwx']),
    );
    expect(lines[1]).toMatch(/ 5, +1 .* dev\/console$/);
    expect(lines[10]).toMatch(/bin\/link -> \.\.\/ab\/cd$/);
  });

  test('a later entry of the same path takes the place of the earlier', () => {
    const image = new Image();
    image.file('/cowlab/argv', Buffer.from('first'));
    image.file('/cowlab/argv', Buffer.from('second'));
    const files = parseNewc(written(image)).filter(({ path }) => path === 'cowlab/argv');
    expect(files.map(({ content }) => content)).toEqual(['second']);
  });

  test('what does not fit into eight hexadecimal digits is refused', () => {
    const content = { length: 2 ** 32 } as unknown as Uint8Array;
    expect(() => encodeEntry(1, { path: 'big', kind: 'file', mode: 0o644, content })).toThrow(/big: its size/);
  });

  test('an empty archive is its trailer', () => {
    expect(parseNewc(Buffer.from(encodeTrailer()))).toEqual([]);
  });
});

test('a tree is copied with its links, its executables, and without what is refused', () => {
  const tree = join(folder, 'tree');
  mkdirSync(join(tree, 'node_modules'), { recursive: true });
  writeFileSync(join(tree, 'node_modules', 'x'), 'x');
  writeFileSync(join(tree, 'run'), 'r', { mode: 0o700 });
  symlinkSync('run', join(tree, 'link'));
  const image = new Image();
  image.tree('/host/tree', tree, (path) => !path.endsWith('node_modules'));
  const parsed = parseNewc(written(image)).map(({ path, mode, content }) => [path, mode, content]);
  expect(parsed.slice(2)).toEqual(
    expect.arrayContaining([
      ['host/tree/run', 0o100755, 'r'],
      ['host/tree/link', 0o120777, 'run'],
    ]),
  );
  expect(parsed).toHaveLength(4);
});

describe('the output of ldd', () => {
  test('of glibc gives the libraries and the loader, and not what the kernel maps', () => {
    const output = `\tlinux-vdso.so.1 (0x00007ffd)
\tlibm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x00007f2532a9d000)
\tlibx.so => /opt/a b/libx.so (0x00007f2532a9d000)
\t/lib64/ld-linux-x86-64.so.2 (0x00007f2532b96000)\n`;
    const expected = ['/lib/x86_64-linux-gnu/libm.so.6', '/opt/a b/libx.so', '/lib64/ld-linux-x86-64.so.2'];
    expect(parseLdd('node', output)).toEqual(expected);
  });

  test('of musl gives the loader, which is its libc', () => {
    const output = `\t/lib/ld-musl-x86_64.so.1 (0x7f1)
\tlibc.musl-x86_64.so.1 => /lib/ld-musl-x86_64.so.1 (0x7f1)\n`;
    expect(new Set(parseLdd('node', output))).toEqual(new Set(['/lib/ld-musl-x86_64.so.1']));
  });

  test('with a library that is missing is an error that names it', () => {
    const output = '\tlibnode.so.115 => not found\n';
    expect(() => parseLdd('/usr/bin/node', output)).toThrow(FeatureUnavailableError);
    expect(() => parseLdd('/usr/bin/node', output)).toThrow(/libnode\.so\.115 of \/usr\/bin\/node/);
  });
});
