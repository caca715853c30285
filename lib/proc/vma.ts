/**
 * The one VMA that holds an address. Linux 6.11 answers that by itself (PROCMAP_QUERY, however many others there are);
 * before, /proc/PID/maps is read and parsed whole [fs/proc/task_mmu.c: do_procmap_query, show_map_vma].
 */
import { FeatureUnavailableError, SystemError } from '../errors.js';
import { native } from '../native.js';
import { or, requireObject, requireOneOf } from '../schema/arguments.js';
import { PROC_ROOT, pidError, pidPath, readPidFile, type Pid } from './read.js';
import { parseSmaps, type MapsVma } from './smaps.js';

export interface VmaOptions {
  /** 'query' is PROCMAP_QUERY, 'maps' the text. Default: the first that works. */
  by?: 'query' | 'maps';
}

/** VmFlags of PROCMAP_QUERY [include/uapi/linux/fs.h: procmap_query_flags]. */
const READABLE = 1n;
const WRITABLE = 2n;
const EXECUTABLE = 4n;
const SHARED = 8n;

/** From here on addresses are the kernel's own, where x86 has its vsyscall page: maps shows it, and no query finds it. */
const KERNEL_HALF = 1n << 63n;

/**
 * Parses the text of maps into its VMAs, in address order.
 * @param file Name for error messages.
 * @throws ProcFormatError for a line of another form.
 */
export function parseMaps(text: string, file = 'maps'): MapsVma[] {
  return parseSmaps(text, file).map(({ start, end, perms, offset, device, inode, path }) => {
    return { start, end, perms, offset, device, inode, path };
  });
}

function findInMaps(pid: Pid, address: bigint, procRoot: string): MapsVma | undefined {
  const vmas = parseMaps(readPidFile(pid, 'maps', procRoot), pidPath(pid, 'maps', procRoot));
  return vmas.find(({ start, end }) => start <= address && address < end);
}

function hexadecimal(number: bigint): string {
  return number.toString(16).padStart(2, '0');
}

/** @throws SystemError ENOTTY before Linux 6.11; ENAMETOOLONG for a path that is longer than PATH_MAX. */
function query(pid: Pid, address: bigint): MapsVma | undefined {
  const into = new BigUint64Array(7);
  let name: string;
  try {
    name = native().queryVma(pid === 'self' ? process.pid : pid, address, into);
  } catch (error) {
    if (error instanceof SystemError && error.syscall === 'ioctl') {
      // No VMA there; or the process has ended since the file was opened, or never had memory: maps is empty then.
      if (error.code === 'ENOENT' || error.code === 'ESRCH') return undefined;
      throw error;
    }
    throw pidError(error, pid, pidPath(pid, 'maps'));
  }
  const [start = 0n, end = 0n, flags = 0n, offset = 0n, inode = 0n, major = 0n, minor = 0n] = into;
  const letter = (flag: bigint, set: string, unset = '-'): string => ((flags & flag) === 0n ? unset : set);
  return {
    start,
    end,
    perms: letter(READABLE, 'r') + letter(WRITABLE, 'w') + letter(EXECUTABLE, 'x') + letter(SHARED, 's', 'p'),
    offset,
    device: `${hexadecimal(major)}:${hexadecimal(minor)}`,
    inode,
    // As seq_path() writes it into maps.
    path: name.replaceAll('\n', '\\012'),
  };
}

/** The errors of query() with which the text still tells. */
const TEXT_TELLS = ['ENOTTY', 'ENAMETOOLONG'];

/**
 * The VMA of a process that holds an address; undefined where none does, and for a process without memory (a kernel
 * thread, a zombie). Both ways give the same.
 * @param address Any byte of it.
 * @param procRoot Another than /proc is read as text.
 * @throws SystemError ESRCH (open): there is no such process; EACCES: it belongs to another user.
 * @throws FeatureUnavailableError for `by: 'query'` before Linux 6.11.
 */
export function readVma(
  pid: Pid,
  address: bigint,
  options: VmaOptions = {},
  procRoot: string = PROC_ROOT,
): MapsVma | undefined {
  if (typeof address !== 'bigint') throw new TypeError('address must be a bigint');
  if (address < 0n || address >= 1n << 64n) throw new RangeError('address must be of 64 bits');
  requireObject('options', options);
  const by = requireOneOf('by', or(options.by, procRoot === PROC_ROOT ? 'any' : 'maps'), ['any', 'query', 'maps']);
  // Checks the pid as well.
  const path = pidPath(pid, 'maps', procRoot);
  if (by === 'maps' || address >= KERNEL_HALF) return findInMaps(pid, address, procRoot);
  try {
    return query(pid, address);
  } catch (error) {
    if (!(error instanceof SystemError) || !TEXT_TELLS.includes(error.code)) throw error;
    if (by === 'any') return findInMaps(pid, address, procRoot);
    if (error.code === 'ENAMETOOLONG') throw error;
    throw new FeatureUnavailableError('PROCMAP_QUERY', `${path} refuses it with ENOTTY`, 'Linux 6.11 or later.');
  }
}
