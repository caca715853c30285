/**
 * The cpio format "newc", of which the kernel unpacks an initramfs [Documentation/driver-api/early-userspace/
 * buffer-format.rst]: no root and no cpio program is needed to write device nodes into one.
 */

export type CpioEntry = { path: string; mode: number } & (
  | { kind: 'directory' }
  | { kind: 'file'; content: Uint8Array }
  | { kind: 'symlink'; target: string }
  | { kind: 'character device'; major: number; minor: number }
);

/** The bits of st_mode that say what an entry is, from inode(7). */
const TYPE_BITS = { directory: 0o040000, file: 0o100000, symlink: 0o120000, 'character device': 0o020000 };

const TRAILER = 'TRAILER!!!';

const NOTHING = new Uint8Array();

/** Names and contents begin at multiples of four. */
function padding(length: number): Uint8Array {
  return new Uint8Array(-length & 3);
}

function header(name: string, fields: { inode: number; mode: number; size: number; device?: [number, number] }) {
  const bytes = Buffer.from(`${name}\0`);
  const [major, minor] = fields.device ?? [0, 0];
  const numbers = [
    ['inode', fields.inode],
    ['mode', fields.mode],
    ['uid', 0],
    ['gid', 0],
    ['links', 1],
    ['mtime', 0],
    ['size', fields.size],
    ['major of the file system', 0],
    ['minor of the file system', 0],
    ['major', major],
    ['minor', minor],
    ['name size', bytes.length],
    ['checksum', 0],
  ] as const;
  const digits = numbers.map(([what, number]) => {
    if (number > 0xffffffff) throw new RangeError(`${name}: its ${what}, ${String(number)}, is too large for cpio`);
    return number.toString(16).padStart(8, '0');
  });
  const text = Buffer.from(`070701${digits.join('')}`);
  return Buffer.concat([text, bytes, padding(text.length + bytes.length)]);
}

function contentOf(entry: CpioEntry): Uint8Array {
  if (entry.kind === 'file') return entry.content;
  return entry.kind === 'symlink' ? Buffer.from(entry.target) : NOTHING;
}

/**
 * One entry. A directory must come before what is in it.
 * @param inode Of its own for each entry: entries of one inode would be hard links.
 * @param entry Its path has no leading slash; its mode is the permission bits alone.
 * @returns Pieces to be written one after the other.
 * @throws RangeError for a file of 4 GiB or more.
 */
export function encodeEntry(inode: number, entry: CpioEntry): Uint8Array[] {
  const content = contentOf(entry);
  const fields = { inode, mode: TYPE_BITS[entry.kind] | entry.mode, size: content.length };
  const isDevice = entry.kind === 'character device';
  const head = header(entry.path, isDevice ? { ...fields, device: [entry.major, entry.minor] } : fields);
  return [head, content, padding(content.length)];
}

/** What ends an archive. */
export function encodeTrailer(): Uint8Array {
  return header(TRAILER, { inode: 0, mode: 0, size: 0 });
}
