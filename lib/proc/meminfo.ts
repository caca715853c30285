/** /proc/meminfo [fs/proc/meminfo.c; proc_meminfo(5)]. Inside LXC it may be lxcfs that writes it, and not the kernel. */
import { join } from 'node:path';
import { FeatureUnavailableError } from '../errors.js';
import { formatBytes } from '../schema/units.js';
import { PROC_ROOT, ProcFormatError, linesOf, readHostFile } from './read.js';

export interface Meminfo {
  /** Every field whose unit is kB, under the kernel's name. */
  fieldsKb: Record<string, number>;
  /** The fields without a unit: HugePages_Total and its like. */
  counts: Record<string, number>;
}

/**
 * Parses meminfo; every field is kept.
 * @throws ProcFormatError for a line of another form.
 */
export function parseMeminfo(text: string, file = 'meminfo'): Meminfo {
  const meminfo: Meminfo = { fieldsKb: {}, counts: {} };
  linesOf(text).forEach((line, index) => {
    const colon = line.indexOf(':');
    const rest = line.slice(colon + 1).trim();
    const inKb = rest.endsWith(' kB');
    const digits = inKb ? rest.slice(0, -3) : rest;
    // HugePages_Rsvd is unsigned, and falls below zero for a while (lib/machine/model/kernel-rules.ts, owesReservations).
    const value = /^\d{20}$/.test(digits) ? Number(BigInt.asIntN(64, BigInt(digits))) : Number(digits);
    if (colon <= 0 || digits === '' || !Number.isSafeInteger(value)) {
      throw new ProcFormatError(file, index + 1, line, "'Name: 123 kB'");
    }
    (inKb ? meminfo.fieldsKb : meminfo.counts)[line.slice(0, colon)] = value;
  });
  return meminfo;
}

/** @throws SystemError when /proc is not there. */
export function readMeminfo(procRoot: string = PROC_ROOT): Meminfo {
  const path = join(procRoot, 'meminfo');
  return parseMeminfo(readHostFile(path), path);
}

/** What commit accounting needs of meminfo. */
export interface CommitFigures {
  /** CommitLimit: what mode 2 holds Committed_AS below; shown in every mode. */
  commitLimitPages: number;
  /** Committed_AS, the exact sum over all CPUs (the check itself reads a less exact counter: MODEL.md rule 14). */
  committedAsPages: number;
  memTotalPages: number;
  memTotalBytes: number;
  memFreeBytes: number;
  memAvailableBytes: number;
  swapTotalPages: number;
  swapTotalBytes: number;
  swapFreeBytes: number;
}

/**
 * The figures of commit accounting in pages and bytes.
 * @throws RangeError when one of the fields is missing, which no kernel since 3.14 does.
 */
export function commitFigures(meminfo: Meminfo, pageSizeBytes: number): CommitFigures {
  const kb = (name: string): number => {
    const value = meminfo.fieldsKb[name];
    if (value === undefined) throw new RangeError(`/proc/meminfo has no field ${name}`);
    return value;
  };
  const bytes = (name: string): number => kb(name) * 1024;
  const pages = (name: string): number => Math.floor(bytes(name) / pageSizeBytes);
  return {
    commitLimitPages: pages('CommitLimit'),
    committedAsPages: pages('Committed_AS'),
    memTotalPages: pages('MemTotal'),
    memTotalBytes: bytes('MemTotal'),
    memFreeBytes: bytes('MemFree'),
    memAvailableBytes: bytes('MemAvailable'),
    swapTotalPages: pages('SwapTotal'),
    swapTotalBytes: bytes('SwapTotal'),
    swapFreeBytes: bytes('SwapFree'),
  };
}

/**
 * CommitLimit as the kernel computes it [mm/util.c: vm_commit_limit], for hosts whose meminfo is not the kernel's.
 * The ratio is of RAM less what hugetlb holds; swap is added.
 */
export function computeCommitLimitPages(input: {
  memTotalPages: number;
  swapTotalPages: number;
  hugetlbPages: number;
  overcommitRatio: number;
  overcommitKbytes: number;
  pageSizeBytes: number;
}): number {
  const allowed =
    input.overcommitKbytes > 0
      ? Math.floor((input.overcommitKbytes * 1024) / input.pageSizeBytes)
      : Math.floor(((input.memTotalPages - input.hugetlbPages) * input.overcommitRatio) / 100);
  return allowed + input.swapTotalPages;
}

/** Less than this is not worth asking /proc/meminfo about. */
const SMALL_BYTES = 16 * 2 ** 20;

/**
 * Refuses what would need more memory than is there: written, it would cost the user's other work, or swap.
 * @param heldBytes How much of it is taken already; asked only where the answer matters.
 * @throws FeatureUnavailableError that says how much is needed and how much there is.
 */
export function requireMemory(bytes: number, heldBytes: () => number = () => 0): void {
  if (bytes < SMALL_BYTES) return;
  const { fieldsKb } = readMeminfo();
  const available = (fieldsKb['MemAvailable'] ?? Infinity) * 1024;
  const total = ((fieldsKb['MemTotal'] ?? Infinity) + (fieldsKb['SwapTotal'] ?? 0)) * 1024;
  // Nobody holds more than there is, so what is beyond that needs no count of pages.
  if (bytes <= available || (bytes <= available + total && bytes - heldBytes() <= available)) return;
  throw new FeatureUnavailableError(
    formatBytes(bytes),
    `${formatBytes(available)} of memory are available now`,
    'Choose a smaller size, or end something that uses memory.',
  );
}
