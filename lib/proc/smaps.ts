/**
 * /proc/PID/smaps and smaps_rollup: one record for each VMA [fs/proc/task_mmu.c: show_smap, show_map_vma;
 * proc_pid_smaps(5)]. The figures keep the kernel's names and its unit, kB (1024 bytes).
 */
import { PROC_ROOT, ProcFormatError, readPidFile, type Pid } from './read.js';

/** One VMA as maps tells it. */
export interface MapsVma {
  /** First address. */
  start: bigint;
  /** Address after the last byte. */
  end: bigint;
  /** Four letters as in maps: r w x (or -), then p for MAP_PRIVATE and s for MAP_SHARED. */
  perms: string;
  /** Offset in the file, in bytes. */
  offset: bigint;
  /** Device of the file, 'major:minor' in hexadecimal. */
  device: string;
  /** Inode of the file; 0 for anonymous memory. */
  inode: bigint;
  /** As the kernel writes it (a newline in a name is \012, ' (deleted)' may follow); '' for anonymous memory. */
  path: string;
}

/** One VMA as smaps tells it. */
export interface SmapsVma extends MapsVma {
  /** Every field whose unit is kB, known to cowlab or not. */
  fieldsKb: Record<string, number>;
  /** Every other field but VmFlags: THPeligible, ProtectionKey, and what later kernels add. */
  other: Record<string, string>;
  /** The two-letter flags of the VmFlags line: ac (VM_ACCOUNT), dc (DONTFORK), wf (WIPEONFORK), nr (NORESERVE) ... */
  vmFlags: string[];
}

/** The sums over a whole process, as smaps_rollup tells them. */
export type SmapsRollup = Pick<SmapsVma, 'start' | 'end' | 'fieldsKb' | 'other'>;

const SPACE = 32;
const ZERO = 48;
const COLON = 58;
const UPPER_A = 65;
const UPPER_B = 66;
const UPPER_Z = 90;
/** [fs/proc/task_mmu.c: show_vma_header_prefix]. */
const HEADER =
  /^([0-9a-f]{1,16})-([0-9a-f]{1,16}) ([r-][w-][x-][ps]) ([0-9a-f]{1,16}) ([0-9a-f]+:[0-9a-f]+) ([0-9]{1,20})(?: +([^]*))?$/;
/** [fs/proc/task_mmu.c: show_smap_vma_flags]. */
const FLAGS = /^(?: [a-z0-9?]{2})* ?$/;

/**
 * Walks the text once, by character codes. Records repeat the same fields in the same order, so a name is compared
 * with that of the record before and seldom cut out anew, and an object of figures begins as a copy of the last one:
 * V8 would turn one built name by name into a hash table, which doubles the time.
 */
class SmapsParser {
  private readonly vmas: SmapsVma[] = [];
  /** The names of a record's fields in order. */
  private readonly keys: string[] = [];
  /** Names and figures of the kB fields of the record at hand. */
  private names: string[] = [];
  private figures: number[] = [];
  /** A record's figures, and their names in order, to copy from. */
  private template: Record<string, number> = {};
  private templateNames: string[] = [];
  private lineStart = 0;
  private lineEnd = 0;
  private lineNumber = 0;

  constructor(
    private readonly text: string,
    private readonly file: string,
  ) {}

  parse(): SmapsVma[] {
    const { text } = this;
    let vma: SmapsVma | undefined;
    let field = 0;
    while (this.lineStart < text.length) {
      const newline = text.indexOf('\n', this.lineStart);
      this.lineEnd = newline === -1 ? text.length : newline;
      this.lineNumber++;
      const first = text.charCodeAt(this.lineStart);
      if (first >= UPPER_A && first <= UPPER_Z) {
        if (!vma) throw this.error('the address range of a VMA before its first field');
        this.field(vma, field++);
      } else {
        if (vma) vma.fieldsKb = this.takeFigures();
        vma = this.header();
        this.vmas.push(vma);
        field = 0;
      }
      this.lineStart = this.lineEnd + 1;
    }
    if (vma) vma.fieldsKb = this.takeFigures();
    return this.vmas;
  }

  /** The kB fields of the record at hand as an object, and makes ready for the next. */
  private takeFigures(): Record<string, number> {
    const { names, figures, templateNames } = this;
    if (names.length !== templateNames.length || names.some((name, index) => name !== templateNames[index])) {
      this.template = JSON.parse(
        JSON.stringify(Object.fromEntries(names.map((name) => [name, 0]))),
      ) as typeof this.template;
      this.templateNames = names;
      this.names = [];
    }
    const taken = { ...this.template };
    for (let index = 0; index < figures.length; index++) taken[this.templateNames[index] ?? ''] = figures[index] ?? 0;
    this.names.length = 0;
    figures.length = 0;
    return taken;
  }

  private error(expected: string): ProcFormatError {
    return new ProcFormatError(this.file, this.lineNumber, this.text.slice(this.lineStart, this.lineEnd), expected);
  }

  /** 'start-end perms offset device inode  path' [show_map_vma]. */
  private header(): SmapsVma {
    const match = HEADER.exec(this.text.slice(this.lineStart, this.lineEnd));
    if (!match) throw this.error('start-end perms offset device inode [path]');
    const [, start = '', end = '', perms = '', offset = '', device = '', inode = '', path = ''] = match;
    return {
      start: BigInt(`0x${start}`),
      end: BigInt(`0x${end}`),
      perms,
      offset: BigInt(`0x${offset}`),
      device,
      inode: BigInt(inode),
      path,
      fieldsKb: {},
      other: {},
      vmFlags: [],
    };
  }

  /** 'Key:   123 kB', 'THPeligible:  0' or 'VmFlags: rd wr ...'. */
  private field(vma: SmapsVma, index: number): void {
    const { text, lineEnd } = this;
    const key = this.key(index);
    const valueStart = this.lineStart + key.length + 1;
    if (text.charCodeAt(lineEnd - 1) === UPPER_B && text.startsWith(' kB', lineEnd - 3)) {
      this.names.push(key);
      this.figures.push(this.figure(valueStart, lineEnd - 3));
      return;
    }
    if (key === 'VmFlags' && !FLAGS.test(text.slice(valueStart, lineEnd))) throw this.error('flags of two letters');
    const value = text.slice(valueStart, lineEnd).trim();
    if (key === 'VmFlags') vma.vmFlags = value.split(' ').filter((flag) => flag !== '');
    else vma.other[key] = value;
  }

  /** Spaces, and then digits to the end. */
  private figure(start: number, end: number): number {
    const { text } = this;
    let at = start;
    while (at < end && text.charCodeAt(at) === SPACE) at++;
    let value = at < end ? 0 : NaN;
    for (; at < end; at++) {
      const digit = text.charCodeAt(at) - ZERO;
      value = digit >= 0 && digit <= 9 ? value * 10 + digit : NaN;
    }
    if (!Number.isSafeInteger(value)) throw this.error('a number of kB');
    return value;
  }

  private key(index: number): string {
    const { text, lineStart } = this;
    const known = this.keys[index];
    if (
      known !== undefined &&
      text.startsWith(known, lineStart) &&
      text.charCodeAt(lineStart + known.length) === COLON
    ) {
      return known;
    }
    const colon = text.indexOf(':', lineStart);
    if (colon === -1 || colon >= this.lineEnd) throw this.error("a field, 'Name: value'");
    const key = text.slice(lineStart, colon);
    // From here on the record is not as the one before was.
    this.keys.length = index;
    if (this.keys.includes(key)) throw this.error('a field that the record has not got yet');
    this.keys.push(key);
    return key;
  }
}

/**
 * Parses the text of smaps into its VMAs, in address order. Fields that cowlab does not know are kept.
 * @param file Name for error messages.
 * @throws ProcFormatError for a line of another form.
 */
export function parseSmaps(text: string, file = 'smaps'): SmapsVma[] {
  return new SmapsParser(text, file).parse();
}

/**
 * The VMAs of a process. Empty for a kernel thread or a zombie, which have no memory.
 * A process that runs meanwhile may change between two reads of the kernel's, so stop it where that matters.
 * @throws SystemError ESRCH (open): there is no such process; EACCES: it belongs to another user.
 */
export function readSmaps(pid: Pid, procRoot: string = PROC_ROOT): SmapsVma[] {
  return parseSmaps(readPidFile(pid, 'smaps', procRoot), `${procRoot}/${String(pid)}/smaps`);
}

/**
 * Parses smaps_rollup (Linux 4.14): the sums of smaps over all VMAs, with Pss kept unrounded until the end, so that
 * it may exceed the sum of the VMAs' floored figures.
 * @throws ProcFormatError unless the text is exactly one record.
 */
export function parseSmapsRollup(text: string, file = 'smaps_rollup'): SmapsRollup {
  const [rollup, second] = parseSmaps(text, file);
  if (!rollup || second) throw new ProcFormatError(file, 1, text.slice(0, 80), 'exactly one record');
  return { start: rollup.start, end: rollup.end, fieldsKb: rollup.fieldsKb, other: rollup.other };
}

/**
 * The sums over a process.
 * @throws SystemError ESRCH: there is no such process, or it has no memory (a kernel thread, a zombie); EACCES.
 */
export function readSmapsRollup(pid: Pid, procRoot: string = PROC_ROOT): SmapsRollup {
  return parseSmapsRollup(readPidFile(pid, 'smaps_rollup', procRoot), `${procRoot}/${String(pid)}/smaps_rollup`);
}

/** Length of a VMA in pages. */
export function vmaPages(vma: Pick<SmapsVma, 'start' | 'end'>, pageSizeBytes: number): number {
  return Number(vma.end - vma.start) / pageSizeBytes;
}

/** The sum of some figures of a VMA, or of a rollup. */
export function sumKb({ fieldsKb }: Pick<SmapsVma, 'fieldsKb'>, fields: readonly string[]): number {
  return fields.reduce((total, field) => total + (fieldsKb[field] ?? 0), 0);
}

/** Fields that are properties of the mapping, not amounts of memory. */
const NOT_FIGURES = new Set(['KernelPageSize', 'MMUPageSize']);

/** The sum of each figure over some VMAs. */
export function totalsKb(vmas: readonly Pick<SmapsVma, 'fieldsKb'>[]): Record<string, number> {
  const totals: Record<string, number> = {};
  for (const { fieldsKb } of vmas) {
    for (const [field, kb] of Object.entries(fieldsKb)) {
      if (!NOT_FIGURES.has(field)) totals[field] = (totals[field] ?? 0) + kb;
    }
  }
  return totals;
}

/** What this process alone maps; of a whole process its USS. */
export function privateKb(vma: Pick<SmapsVma, 'fieldsKb'>): number {
  return sumKb(vma, ['Private_Clean', 'Private_Dirty']);
}

/** What others map too. */
export function sharedKb(vma: Pick<SmapsVma, 'fieldsKb'>): number {
  return sumKb(vma, ['Shared_Clean', 'Shared_Dirty']);
}

/**
 * Whether fork asks for this VMA's whole length again: VM_ACCOUNT without VM_DONTCOPY [kernel/fork.c: dup_mmap].
 */
export function isChargedAtFork(vma: Pick<SmapsVma, 'vmFlags'>): boolean {
  return vma.vmFlags.includes('ac') && !vma.vmFlags.includes('dc');
}
