/**
 * smaps in columns, read and parsed natively (native/core/smaps.h): no object is built for a VMA until it is asked for,
 * which readSmaps does for each.
 */
import { native } from '../native.js';
import type { NativeSmaps, NativeSmapsError } from '../native.js';
import { MAX_REGION_PAGES, requireInteger, requireObject } from '../schema/arguments.js';
import type { PagemapRange } from './pagemap.js';
import { PROC_ROOT, ProcFormatError, pidError, pidPath } from './read.js';
import type { Pid } from './read.js';
import { parseSmaps } from './smaps.js';
import type { SmapsVma } from './smaps.js';

/** The bits of {@link SmapsTable.perms}, in the order of native/core/smaps.h. */
export const SMAPS_PERMS = { read: 1, write: 2, execute: 4, shared: 8, file: 16 } as const;

/** An object whose values are made when they are first asked for. */
function lazily<Value>(names: readonly string[], make: (index: number) => Value): Record<string, Value> {
  const all: Record<string, Value> = {};
  for (const [index, name] of names.entries()) {
    const get = (): Value => {
      const value = make(index);
      Object.defineProperty(all, name, { value });
      return value;
    };
    Object.defineProperty(all, name, { get, enumerable: true, configurable: true });
  }
  return all;
}

function rowOf(lines: string): SmapsVma {
  const [vma] = parseSmaps(lines);
  if (!vma) throw new Error('a row of the table has no text');
  return vma;
}

/** VMAs in address order: element i of each column is about VMA i. */
export class SmapsTable {
  /** First addresses. */
  readonly starts: BigUint64Array;
  /** Addresses after the last byte. */
  readonly ends: BigUint64Array;
  /** Bits of {@link SMAPS_PERMS}: `shared` is MAP_SHARED, `file` that the inode is not 0. */
  readonly perms: Uint8Array;
  /** Bit i stands for `vmFlagNames[i]`; {@link hasVmFlag} tells one. */
  readonly vmFlags: BigUint64Array;
  /** The two-letter flags that occur, such as 'ac'. Each table has an order of its own. */
  readonly vmFlagNames: readonly string[];
  /**
   * Every field whose unit is kB, known to cowlab or not, in the kernel's order; NaN for a VMA without it. A column is made
   * when it is first asked for.
   */
  readonly fieldsKb: Readonly<Record<string, Float64Array>>;
  /** What the columns are made of, and the lines that none holds, as the kernel wrote them. */
  readonly #found: NativeSmaps;

  constructor(found: NativeSmaps) {
    this.starts = found.starts;
    this.ends = found.ends;
    this.perms = found.perms;
    this.vmFlags = found.vmFlags;
    this.vmFlagNames = found.vmFlagNames;
    this.fieldsKb = lazily(found.fieldNames, (field) => {
      const column = new Float64Array(this.length);
      for (let row = 0; row < column.length; row++) column[row] = this.#figureKb(row, field);
      return column;
    });
    this.#found = found;
  }

  /** How many VMAs there are. */
  get length(): number {
    return this.starts.length;
  }

  /** The sum of a field over all VMAs, in kB; 0 for one that this kernel does not have. */
  sumKb(field: string): number {
    let sum = 0;
    for (const kb of this.fieldsKb[field] ?? []) if (!Number.isNaN(kb)) sum += kb;
    return sum;
  }

  /** Whether a VMA has a flag of two letters, such as 'dc' (DONTFORK). @throws RangeError for a VMA that is not there. */
  hasVmFlag(index: number, flag: string): boolean {
    this.#require(index);
    const bit = this.vmFlagNames.indexOf(flag);
    return bit !== -1 && (((this.vmFlags[index] ?? 0n) >> BigInt(bit)) & 1n) === 1n;
  }

  /** As {@link SmapsVma.path}. @throws RangeError for a VMA that is not there. */
  path(index: number): string {
    return rowOf(this.#firstLine(index)).path;
  }

  /** A VMA as readSmaps gives it. @throws RangeError for one that is not there. */
  vma(index: number): SmapsVma {
    const first = this.#firstLine(index);
    const { bodies, others, otherStarts, fieldNames } = this.#found;
    const body = bodies[index] ?? 0;
    const vma = rowOf(first + others.toString('utf8', otherStarts[body], otherStarts[body + 1]));
    for (const [field, name] of fieldNames.entries()) {
      const kb = this.#figureKb(index, field);
      if (!Number.isNaN(kb)) vma.fieldsKb[name] = kb;
    }
    return vma;
  }

  #figureKb(row: number, field: number): number {
    const { bodies, fieldNames, figuresKb } = this.#found;
    return figuresKb[(bodies[row] ?? 0) * fieldNames.length + field] ?? NaN;
  }

  #firstLine(index: number): string {
    this.#require(index);
    const { text, textStarts } = this.#found;
    return text.toString('utf8', textStarts[index], textStarts[index + 1]);
  }

  #require(index: number): void {
    requireInteger('index', index, 0, this.length - 1);
  }
}

function tableOf(outcome: NativeSmaps | NativeSmapsError, file: string): SmapsTable {
  if ('starts' in outcome) return new SmapsTable(outcome);
  throw new ProcFormatError(file, outcome.lineNumber, outcome.line.toString(), outcome.expected);
}

/**
 * Parses the bytes of smaps, as {@link parseSmaps} does a text.
 * @param file Name for error messages.
 * @throws ProcFormatError for a line of another form; also beyond 64 different fields or flags, or 256 fields of one VMA.
 */
export function parseSmapsTable(bytes: Uint8Array, file = 'smaps'): SmapsTable {
  if (!(bytes instanceof Uint8Array)) throw new TypeError('bytes must be a Uint8Array');
  return tableOf(native().parseSmaps(bytes), file);
}

function readTable(pid: Pid, name: string, range: PagemapRange | undefined, procRoot: string): SmapsTable {
  const path = pidPath(pid, name, procRoot);
  const { address, pages } = range ?? { address: null, pages: 1 };
  const outcome = ((): NativeSmaps | NativeSmapsError => {
    try {
      return native().readSmaps(path, address, pages);
    } catch (error) {
      throw pidError(error, pid, path);
    }
  })();
  return tableOf(outcome, path);
}

/**
 * The VMAs of a process in columns: all, or those that have a page in a range. Without rows for a kernel thread or a
 * zombie, which have no memory. The kernel walks the pages of all VMAs below the range as well, since smaps can be read
 * from its beginning only [fs/seq_file.c: traverse]; those above it are spared.
 * A process that runs meanwhile may change between two reads of the kernel's, so stop it where that matters.
 * @throws SystemError ESRCH (open): there is no such process; EACCES: it belongs to another user.
 * @throws ProcFormatError as {@link parseSmapsTable}.
 */
export function readSmapsTable(pid: Pid, range?: PagemapRange, procRoot: string = PROC_ROOT): SmapsTable {
  if (range !== undefined) {
    requireObject('range', range);
    if (typeof range.address !== 'bigint') throw new TypeError('address must be a bigint');
    requireInteger('pages', range.pages, 1, MAX_REGION_PAGES);
  }
  return readTable(pid, 'smaps', range, procRoot);
}

/** The sums over a process, as a table of one row. @throws SystemError and ProcFormatError as readSmapsRollup. */
export function readSmapsRollupTable(pid: Pid, procRoot: string = PROC_ROOT): SmapsTable {
  const table = readTable(pid, 'smaps_rollup', undefined, procRoot);
  if (table.length !== 1) {
    throw new ProcFormatError(pidPath(pid, 'smaps_rollup', procRoot), 1, `${String(table.length)} records`, 'one');
  }
  return table;
}
