/** A swap file of cowlab's own, which a run makes and the restorer takes away. */
import { closeSync, existsSync, fsyncSync, openSync, statfsSync, unlinkSync, writeSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { FeatureUnavailableError, SystemError } from '../errors.js';
import { native } from '../native.js';
import { formatBytes } from '../schema/units.js';

/** Where it is: beside the journal. */
export function swapFilePath(directory: string): string {
  return join(directory, 'cowlab-swap');
}

/** @throws FeatureUnavailableError where no swap can be turned on, whatever file it is in. */
export function requireSwapRights(): void {
  const feature = 'Turning swap on';
  if (!existsSync('/proc/swaps')) {
    throw new FeatureUnavailableError(feature, 'this kernel has none', 'A kernel with CONFIG_SWAP.');
  }
  if (process.geteuid?.() !== 0) throw new FeatureUnavailableError(feature, 'only root may', 'Run it as root.');
}

/** The first page of a swap area [include/linux/swap.h: union swap_header]. Pure. */
export function swapHeader(pages: number, pageSizeBytes: number): Buffer {
  const header = Buffer.alloc(pageSizeBytes);
  header.writeUInt32LE(1, 1024);
  header.writeUInt32LE(pages - 1, 1028);
  header.write('SWAPSPACE2', pageSizeBytes - 10, 'latin1');
  return header;
}

const CHUNK_BYTES = 2 ** 20;

function writeZeros(fd: number, from: number, end: number): void {
  const zeros = Buffer.alloc(CHUNK_BYTES);
  for (let at = from; at < end;) at += writeSync(fd, zeros, 0, Math.min(CHUNK_BYTES, end - at), at);
}

/** Twice the file must be free: others want to write too. */
function requireRoom(path: string, bytes: number): void {
  const { bavail, bsize } = statfsSync(dirname(path));
  if (bavail * bsize >= 2 * bytes) return;
  throw new FeatureUnavailableError(
    `A swap file of ${formatBytes(bytes)}`,
    `${dirname(path)} has ${formatBytes(bavail * bsize)} free`,
    'Free some space there.',
  );
}

/**
 * Makes the file and turns it on, at the lowest priority. One page of it is the header's.
 * @param pages Of the whole file.
 * @throws FeatureUnavailableError where there is no room, or the file system takes no swap file (tmpfs, overlay).
 * @throws SystemError of swapon(2).
 */
export function turnSwapOn(path: string, pages: number): void {
  const { pageSizeBytes } = native();
  const bytes = pages * pageSizeBytes;
  requireRoom(path, bytes);
  // Every block has to be there: a file with holes is refused [mm/swapfile.c: setup_swap_extents].
  const fd = openSync(path, 'w', 0o600);
  try {
    writeSync(fd, swapHeader(pages, pageSizeBytes));
    writeZeros(fd, pageSizeBytes, bytes);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
  try {
    native().swapOn(path);
  } catch (error) {
    if (!(error instanceof SystemError) || (error.code !== 'EINVAL' && error.code !== 'EPERM')) throw error;
    throw new FeatureUnavailableError(
      `Swap in ${path}`,
      error.code === 'EPERM' ? 'only root of the host may' : 'its file system takes no swap file',
      'Run it as root of a machine whose disk is ext4 or xfs.',
    );
  }
}

/** Turns it off, if it is on, and removes the file. @throws SystemError of swapoff(2); errors of unlink(2). */
export function removeSwapFile(path: string): void {
  native().swapOff(path);
  if (existsSync(path)) unlinkSync(path);
}
