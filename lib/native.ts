/** The one importer of the addon, and its typed interface. Everything above calls through `native()`. */
import { createRequire } from 'node:module';
import { constants } from 'node:os';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { getSystemErrorName } from 'node:util';
import { FeatureUnavailableError, SystemError, notLinux } from './errors.js';

/** Memory of this process, known to JavaScript only through this object. */
export interface NativeMapping {
  address(): bigint;
  /**
   * Touches pages; `into` receives minor faults, major faults and nanoseconds.
   * @returns The sum of the first 64-bit words of the pages read, modulo 2^64.
   */
  access(
    write: boolean,
    first: number,
    pages: number,
    from: number,
    to: number,
    stride: number,
    pattern: number,
    seed: number,
    value: bigint,
    into: Float64Array,
  ): bigint;
  advise(firstPage: number, pages: number, advice: number): void;
  /** Can be called once: V8 allows one ArrayBuffer over an address. */
  buffer(): ArrayBuffer;
  /** mremap to `pages` pages, at a new address. Only private anonymous memory that has no buffer() can. */
  grow(pages: number): void;
  close(): void;
  /**
   * Adds 1 to the slot at `offset` bytes, so many times.
   * @param guard 0: none, 1: atomic, 2: under the slot's lock.
   * @returns The value after it.
   */
  count(offset: number, guard: number, times: number): number;
  /** @returns Whether the last owner of the slot's lock died with it. */
  lock(offset: number, milliseconds: number): boolean;
  unlock(offset: number): void;
}

export interface NativeProbeResults {
  /** 0, or the errno that the probe met. */
  pagemapScan: number;
  procmapQuery: number;
  softDirty: number;
  userfaultfdWpAsync: number;
  pageFrameNumbers: number;
  capSysAdmin: boolean;
}

/** SmapsTable of native/core/smaps.h: an element a VMA, or a body, which may be that of many. */
export interface NativeSmaps {
  starts: BigUint64Array;
  ends: BigUint64Array;
  perms: Uint8Array;
  vmFlags: BigUint64Array;
  vmFlagNames: string[];
  /** Which body each VMA has. */
  bodies: Uint32Array;
  fieldNames: string[];
  /** Body by body, one for each name; NaN for a body without the field. */
  figuresKb: Float64Array;
  /** The first lines, with where that of each VMA begins. */
  text: Buffer;
  textStarts: Float64Array;
  /** The lines without a unit, with where those of each body begin. */
  others: Buffer;
  otherStarts: Float64Array;
}

/** A line of another form. */
export interface NativeSmapsError {
  lineNumber: number;
  line: Buffer;
  expected: string;
}

/** What native/binding exports. Arguments are checked there once more, so that none can crash the process. */
export interface NativeAddon {
  readonly pageSizeBytes: number;
  setErrorFactory(factory: (errno: number, syscall: string) => Error): void;
  Mapping: new (
    pages: number,
    shared: boolean,
    noreserve: boolean,
    populate: boolean,
    hugePages: boolean,
    fd: number,
    offsetPages: number,
  ) => NativeMapping;
  /** `into` receives the pid, nanoseconds, and our end of the socket to the child, which is the caller's to close. */
  fork(into: Float64Array): void;
  openChannel(): [ours: number, theirs: number];
  openPipe(): [reader: number, writer: number];
  sendCommand(fd: number, words: BigUint64Array, passedFd: number): void;
  /** For what fork() and spawn() made. False while it lives; else `into` holds status, minor and major faults, max RSS in bytes, user and system us. */
  waitProcess(pid: number, into: Float64Array): boolean;
  /** SCHED_FIFO, which runs before all ordinary processes, or SCHED_OTHER [sched_setscheduler(2)]. */
  preferProcess(pid: number, preferred: boolean): void;
  /**
   * posix_spawnp(3). `into` receives the pid and nanoseconds; waitProcess() is to be called until it has ended.
   * @param args With the name that the program is told.
   * @param env 'NAME=value' each; null: that of this process.
   * @param descriptors What becomes 0, 1, 2, ... there; -1: nothing.
   */
  spawn(
    file: string,
    args: string[],
    env: string[] | null,
    directory: string | null,
    descriptors: Int32Array,
    newSession: boolean,
    into: Float64Array,
  ): void;
  /** Never returns. @param parent The pid of this process's parent, with which it ends. */
  enterCommandLoop(channel: number, parent: number): never;
  createMemfd(pages: number): number;
  readPagemap(pid: number, address: bigint, pages: number, entries: BigUint64Array): void;
  /**
   * By one reading of pagemap.
   * @param frames Receives the frame of each page, 0 for none. SystemError EPERM where frames are not shown.
   */
  readPages(
    pid: number,
    address: bigint,
    pages: number,
    checkHuge: boolean,
    checkZero: boolean,
    states: Uint8Array,
    frames: Float64Array | null,
  ): void;
  countPages(
    pid: number,
    address: bigint,
    pages: number,
    checkHuge: boolean,
    checkZero: boolean,
    counts: Float64Array,
  ): void;
  /** @param address Null for all VMAs, else of those in the range. */
  readSmaps(path: string, address: bigint | null, pages: number): NativeSmaps | NativeSmapsError;
  /**
   * The line of /proc/PID/stat of each process, without those that end meanwhile or are hidden from this user.
   * @param but Pids that are passed over.
   */
  readStats(procRoot: string, but: Int32Array): string[];
  parseSmaps(text: Uint8Array): NativeSmaps | NativeSmapsError;
  /** A descriptor that holds the file's lock until its last copy is closed. EAGAIN if another has it. */
  lockFile(path: string): number;
  /**
   * @param steps In threes: 'write', 'remove' or 'swapoff', the path, the value.
   * @param into Receives the pid and our end of the socket; once that is closed the steps are carried out.
   */
  startRestorer(lock: number, journalPath: string, journal: string, steps: string[], into: Float64Array): void;
  reapRestorer(pid: number): boolean;
  swapOn(path: string): void;
  /** Also where it is not on. */
  swapOff(path: string): void;
  /** Whether a read of untouched private memory allocates a page, where others map the zero page. */
  forbidsZeroPage(): boolean;
  /**
   * `into` receives start, end, flags (1 readable, 2 writable, 4 executable, 8 shared), offset, inode and the device's
   * major and minor number. @returns The name.
   */
  queryVma(pid: number, address: bigint, into: BigUint64Array): string;
  /**
   * Write-protects the pages of a process that tracks its writes there.
   * @param pagemapFd Its /proc/PID/pagemap.
   * @param strictly EPERM where some are not tracked, which else are passed over.
   */
  protectPages(pagemapFd: number, address: bigint, pages: number, strictly: boolean): void;
  /**
   * Those written since.
   * @param memory 0: nothing was given back since; else 1: private and anonymous, 2: private of an object, 3: shared.
   * @returns First page and length of each run, one after the other, ascending.
   */
  findWritten(pagemapFd: number, address: bigint, pages: number, memory: number): Float64Array;
  probe(): NativeProbeResults;
  systemMemory(): { totalPages: number; swapPages: number };
}

/** The name of an errno, such as 'ENOMEM'. @param errno Positive, as C has it. */
export function errnoName(errno: number): string {
  const known = ((): string => {
    try {
      return getSystemErrorName(-errno);
    } catch {
      return 'Unknown';
    }
  })();
  if (!known.startsWith('Unknown')) return known;
  // Those that libuv does not know, such as EDEADLK.
  const [name = `errno ${String(errno)}`] =
    Object.entries(constants.errno).find(([, number]) => number === errno) ?? [];
  return name;
}

/** @param errno Positive, as C has it. */
export function systemError(errno: number, syscall: string): SystemError {
  return new SystemError({ code: errnoName(errno), errno: -errno, syscall });
}

/** The file of the addon. @throws Error if there is none. */
export function addonPath(): string {
  // COWLAB_ADDON is for tests of another build of the addon, such as the one with sanitizers.
  const override = process.env['COWLAB_ADDON'];
  if (override) return override;
  const packageRoot = dirname(dirname(fileURLToPath(import.meta.url)));
  const { resolve } = createRequire(import.meta.url)('node-gyp-build') as { resolve: (root: string) => string };
  return resolve(packageRoot);
}

let loaded: NativeAddon | undefined;

function load(): NativeAddon {
  if (process.platform !== 'linux') throw notLinux();
  const require = createRequire(import.meta.url);
  try {
    const addon = require(addonPath()) as NativeAddon;
    addon.setErrorFactory(systemError);
    return addon;
  } catch (error) {
    const reason = error instanceof Error ? (error.message.split('\n')[0] ?? '') : String(error);
    throw new FeatureUnavailableError('The native addon', reason, 'Build it with `npm run build:native`.');
  }
}

/** The addon, loaded at the first call. @throws FeatureUnavailableError where there is none. */
export function native(): NativeAddon {
  return (loaded ??= load());
}
