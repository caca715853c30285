/** Objects that several regions and processes can map: memfds, and temporary files that have no name. */
import {
  accessSync,
  statfsSync,
  closeSync,
  constants,
  fsync as fsyncWithCallback,
  openSync,
  unlinkSync,
  write as writeWithCallback,
} from 'node:fs';
import { randomUUID } from 'node:crypto';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { FeatureUnavailableError } from '../errors.js';
import { native } from '../native.js';
import { requireMemory } from '../proc/meminfo.js';
import { MAX_REGION_PAGES, requireInteger, requireRange } from '../schema/arguments.js';
import type { PageRange } from '../schema/arguments.js';

const write = promisify(writeWithCallback);
const fsync = promisify(fsyncWithCallback);

/**
 * Pages written by one call of write(2). To a file, one: a longer write makes large folios in the page cache of
 * ext4 (Linux 6.16) and its like, and a write fault on a shared mapping then maps a whole folio [finish_fault].
 */
const PAGES_PER_WRITE = { memfd: 256, file: 1 };

export class FileObject {
  readonly backing: 'memfd' | 'file';
  readonly pages: number;
  #fd: number;

  /** @internal Use createMemfd() or createTemporaryFile(). */
  constructor(backing: 'memfd' | 'file', fd: number, pages: number) {
    this.backing = backing;
    this.#fd = fd;
    this.pages = pages;
  }

  /**
   * write(2) of zeros into whole pages: afterwards they are allocated and in the page cache; a memfd's are dirty.
   * A file's are written out at once, because fault-around passes over pages that writeback has locked
   * [filemap_map_pages].
   */
  async write(range?: PageRange): Promise<void> {
    const { first, pages } = requireRange(range, this.pages);
    const pageSize = native().pageSizeBytes;
    requireMemory(pages * pageSize);
    const zeros = Buffer.alloc(Math.min(pages, PAGES_PER_WRITE[this.backing]) * pageSize);
    const end = (first + pages) * pageSize;
    // Of our own: if the object is closed meanwhile, its number may be another file's before the write comes to it.
    const fd = this.duplicate();
    try {
      for (let position = first * pageSize; position < end;) {
        const { bytesWritten } = await write(fd, zeros, 0, Math.min(zeros.length, end - position), position);
        position += bytesWritten;
      }
      if (this.backing === 'file') await fsync(fd);
    } finally {
      closeSync(fd);
    }
  }

  /** A new descriptor of the same object, for the caller to close or to send away. */
  duplicate(): number {
    return openSync(`/proc/self/fd/${String(this.#openFd())}`, 'r+');
  }

  /** Regions that map the object keep it alive; may be called again. */
  close(): void {
    if (this.#fd >= 0) closeSync(this.#fd);
    this.#fd = -1;
  }

  #openFd(): number {
    if (this.#fd < 0) throw new TypeError('the object has been closed');
    return this.#fd;
  }
}

/**
 * memfd_create(2): `pages` pages of shared memory, none allocated yet. It is sealed against shrinking, so that
 * touching a mapping of it inside its length can never raise SIGBUS.
 */
export function createMemfd(pages: number): FileObject {
  requireInteger('pages', pages, 1, MAX_REGION_PAGES);
  return new FileObject('memfd', native().createMemfd(pages), pages);
}

/** O_TMPFILE of open(2), from asm-generic/fcntl.h: a file without a name, gone when its last user is. */
const O_TMPFILE = 0o20000000 | constants.O_DIRECTORY;

function openNameless(directory: string): number {
  try {
    return openSync(directory, O_TMPFILE | constants.O_RDWR, 0o600);
  } catch {
    // Some file systems have no O_TMPFILE: then a name that exists for a moment.
    const path = join(directory, `cowlab-${randomUUID()}`);
    const fd = openSync(path, 'wx+', 0o600);
    unlinkSync(path);
    return fd;
  }
}

/**
 * File systems without a disk, from linux/magic.h: a file of tmpfs is shared memory, and behaves as a memfd does; one of
 * ramfs, the root of an initramfs, is never written out, so that a first write through a shared mapping is not noticed.
 */
const WITHOUT_DISK = new Set([0x01021994, 0x858458f6]);

/** Where temporary files are files: /tmp is tmpfs on many systems. */
function directoryOnDisk(): string {
  const found = [tmpdir(), '/var/tmp', process.cwd()].find((directory) => {
    try {
      accessSync(directory, constants.W_OK);
      return !WITHOUT_DISK.has(statfsSync(directory).type);
    } catch {
      return false;
    }
  });
  if (found !== undefined) return found;
  throw new FeatureUnavailableError(
    'A temporary file',
    'neither the temporary folder, nor /var/tmp, nor this folder is writable and on a disk',
    'Set TMPDIR to a folder that is.',
  );
}

/** A temporary file without a name, every page written and in the page cache. */
export async function createTemporaryFile(pages: number, directory = directoryOnDisk()): Promise<FileObject> {
  requireInteger('pages', pages, 1, MAX_REGION_PAGES);
  const file = new FileObject('file', openNameless(directory), pages);
  try {
    await file.write();
    return file;
  } catch (error) {
    file.close();
    throw error;
  }
}
