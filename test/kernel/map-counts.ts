/** The kernel's own counts of mappings, which only CAP_SYS_ADMIN sees: what readers are held against. */
import { closeSync, openSync, readSync } from 'node:fs';
import { readPagemap } from '../../lib/proc/pagemap.js';
import type { PagemapRange } from '../../lib/proc/pagemap.js';

/** 'exclusive' or 'shared' for each page that is there, by how often its frame is mapped (/proc/kpagecount). */
export function mappedStates(pid: number, range: PagemapRange): string[] {
  const counts = openSync('/proc/kpagecount', 'r');
  try {
    return Array.from(readPagemap(pid, range), (entry) => {
      if (entry >> 63n === 0n) return 'not-present';
      const count = Buffer.alloc(8);
      readSync(counts, count, 0, 8, Number(entry & ((1n << 55n) - 1n)) * 8);
      return count.readBigUInt64LE() === 1n ? 'exclusive' : 'shared';
    });
  } finally {
    closeSync(counts);
  }
}
