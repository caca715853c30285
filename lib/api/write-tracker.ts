/** The three ways to find out which pages a process has written since a moment. */
import { closeSync, openSync, writeFileSync } from 'node:fs';
import { native } from '../native.js';
import { requireMemory } from '../proc/meminfo.js';
import { PAGE_STATES, readPageStates, readPagemap } from '../proc/pagemap.js';
import type { PagemapRange } from '../proc/pagemap.js';
import { pidError, pidPath } from '../proc/read.js';
import { readVma } from '../proc/vma.js';
import type { PageRun } from '../schema/selection.js';
import type { PageState } from '../schema/step.js';
import { Op } from './command.js';
import type { ForkedProcess } from './forked-process.js';

/** Page numbers of what is tracked, from 0. */
export interface Findings {
  written: PageRun[];
  /** May have been written. */
  doubtful: PageRun[];
}

export interface WriteTracker {
  /** @param givenBack Whether some of the region has been, by MADV_DONTNEED or munmap, since it is tracked. */
  find(givenBack: boolean): Findings;
  /** From now on it is about what is written from now on. */
  reset(): void;
  /** @param inPlace Whether the memory is still where it was, and the process alive. */
  close(inPlace: boolean): Promise<void>;
}

/** What the tracked memory is. The order is that of TrackedMemory in native/core/write_mark.h. */
const MEMORY = ['whole', 'anonymous', 'object', 'shared'] as const;
export type TrackedMemory = Exclude<(typeof MEMORY)[number], 'whole'>;

/** Guards, which stand for parts that were unmapped, are private and anonymous. */
function memoryOf(pid: number, { address, pages }: PagemapRange): TrackedMemory {
  const end = address + BigInt(pages) * BigInt(native().pageSizeBytes);
  let ofObject = false;
  for (let at = address; at < end;) {
    const vma = readVma(pid, at);
    if (!vma) break;
    if (vma.perms.endsWith('s')) return 'shared';
    ofObject ||= vma.inode !== 0n;
    at = vma.end;
  }
  return ofObject ? 'object' : 'anonymous';
}

/** What is known of one page. */
const UNWRITTEN = 0;
const WRITTEN = 1;
const DOUBTFUL = 2;

function runsOf(verdicts: Uint8Array, wanted: number): PageRun[] {
  const runs: PageRun[] = [];
  for (let first = verdicts.indexOf(wanted); first !== -1;) {
    let end = first + 1;
    while (verdicts[end] === wanted) end++;
    runs.push({ first, pages: end - first });
    first = verdicts.indexOf(wanted, end);
  }
  return runs;
}

function findingsOf(verdicts: Uint8Array): Findings {
  return { written: runsOf(verdicts, WRITTEN), doubtful: runsOf(verdicts, DOUBTFUL) };
}

/** Does something to a file of a process. @throws SystemError ESRCH where there is no such process. */
function onFile<T>(pid: number, name: string, action: (path: string) => T): T {
  const path = pidPath(pid, name);
  try {
    return action(path);
  } catch (error) {
    throw pidError(error, pid, path);
  }
}

/** An entry of a page table is 8 bytes. */
const TABLE_ENTRY_BYTES = 8;

/**
 * Asynchronous write-protection by userfaultfd (Linux 6.7): exact. Every page is write-protected, also those that are not
 * there, which takes page tables for the whole range; the first write to each costs a soft fault.
 * @throws SystemError (rejects) EBUSY (userfaultfd) where another userfaultfd has the memory already.
 */
export async function trackByUserfaultfd(process: ForkedProcess, range: PagemapRange): Promise<WriteTracker> {
  const { address, pages } = range;
  const length = BigInt(pages) * BigInt(native().pageSizeBytes);
  requireMemory(pages * TABLE_ENTRY_BYTES);
  const memory = MEMORY.indexOf(memoryOf(process.pid, range));
  const pagemapFd = onFile(process.pid, 'pagemap', (path) => openSync(path, 'r'));
  let uffd: bigint | undefined;
  const close = async (inPlace: boolean): Promise<void> => {
    closeSync(pagemapFd);
    if (process.status || uffd === undefined) return;
    // Where the memory was, there may be another by now: nothing may be undone there.
    const span = inPlace ? { address, length } : {};
    await process.perform({ op: Op.stopTracking, argument: uffd, ...span }).catch(() => undefined);
  };
  try {
    uffd = (await process.perform({ op: Op.trackWrites, address, length })).value;
    native().protectPages(pagemapFd, address, pages, true);
  } catch (error) {
    await close(true);
    throw error;
  }
  return {
    find(givenBack) {
      const found = native().findWritten(pagemapFd, address, pages, givenBack ? memory : 0);
      const written: PageRun[] = [];
      for (let i = 0; i < found.length; i += 2) written.push({ first: found[i] ?? 0, pages: found[i + 1] ?? 0 });
      return { written, doubtful: [] };
    },
    reset() {
      native().protectPages(pagemapFd, address, pages, false);
    },
    close,
  };
}

/** Bits of the upper half of a pagemap entry: 63 present, 62 swapped, 55 soft-dirty. */
const PRESENT = 1 << 31;
const SWAPPED = 1 << 30;
const SOFT_DIRTY = 1 << 23;

/**
 * By the soft-dirty bit [Documentation/admin-guide/mm/soft-dirty.rst]: exact for private memory. A shared page can be taken
 * out of the page table, and the bit with it; so one that is not there is doubtful. It clears the bits of the whole process.
 */
export function trackBySoftDirty(process: ForkedProcess, range: PagemapRange): WriteTracker {
  const shared = memoryOf(process.pid, range) === 'shared';
  const reset = (): void => {
    onFile(process.pid, 'clear_refs', (path) => {
      writeFileSync(path, '4');
    });
  };
  reset();
  return {
    find() {
      const words = new Uint32Array(readPagemap(process.pid, range).buffer);
      const verdicts = new Uint8Array(range.pages);
      for (let page = 0; page < range.pages; page++) {
        const entry = words[2 * page + 1] ?? 0;
        const there = (entry & PRESENT) !== 0 || (!shared && (entry & SWAPPED) !== 0);
        if (!there) verdicts[page] = shared ? DOUBTFUL : UNWRITTEN;
        else verdicts[page] = (entry & SOFT_DIRTY) === 0 ? UNWRITTEN : WRITTEN;
      }
      return findingsOf(verdicts);
    },
    reset,
    close: () => Promise.resolve(),
  };
}

const ABSENT: readonly PageState[] = ['not-present', 'zero'];

/**
 * What two looks at private memory tell of one page. Shared memory can be read, written and taken out of the page table
 * between them, and so can pages of a file be read. Pure.
 * @param forbidsZeroPage Whether a read of untouched memory takes a page, as a write does.
 */
function verdictOf(before: PageState, now: PageState, memory: TrackedMemory, forbidsZeroPage: boolean): number {
  if (memory === 'shared') return DOUBTFUL;
  if (ABSENT.includes(now)) return UNWRITTEN;
  if (memory === 'object' || now === 'unknown' || forbidsZeroPage) return DOUBTFUL;
  // A page that others had too and that is exclusive now was written, or the others are gone.
  return ABSENT.includes(before) ? WRITTEN : DOUBTFUL;
}

/** What two looks at the page states tell, indices into PAGE_STATES. Pure. */
export function compareStates(
  before: Uint8Array,
  now: Uint8Array,
  memory: TrackedMemory,
  forbidsZeroPage: boolean,
): Findings {
  const table = PAGE_STATES.map((old) =>
    PAGE_STATES.map((current) => verdictOf(old, current, memory, forbidsZeroPage)),
  );
  return findingsOf(now.map((current, page) => table[before[page] ?? -1]?.[current] ?? DOUBTFUL));
}

/** By comparing page states: certain only of private pages that were not there at the mark. Costs the process nothing. */
export function trackByPagemap({ pid }: ForkedProcess, range: PagemapRange): WriteTracker {
  const memory = memoryOf(pid, range);
  const forbidsZeroPage = native().forbidsZeroPage();
  let before = readPageStates(pid, range);
  return {
    find: () => compareStates(before, readPageStates(pid, range), memory, forbidsZeroPage),
    reset() {
      before = readPageStates(pid, range);
    },
    close: () => Promise.resolve(),
  };
}
