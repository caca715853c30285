/** How often frames are mapped [Documentation/admin-guide/mm/pagemap.rst: kpagecount]: only root sees that. */
import { closeSync, openSync, readSync } from 'node:fs';

/**
 * Reads how often the frames of pages are mapped, as far as that is shown.
 * @param frames One a page, 0 for none.
 * @param isWanted Of which pages it is asked.
 */
export function readMapCounts(
  frames: Float64Array,
  isWanted: (page: number) => boolean,
  found: (page: number, count: bigint) => void,
): void {
  let fd: number;
  try {
    fd = openSync('/proc/kpagecount', 'r');
  } catch {
    return;
  }
  try {
    for (let page = 0; page < frames.length;) {
      const pages = neighbours(frames, isWanted, page);
      if (pages > 0)
        readRun(fd, frames[page] ?? 0, pages).forEach((count, next) => {
          found(page + next, count);
        });
      page += Math.max(1, pages);
    }
  } finally {
    closeSync(fd);
  }
}

/** How many wanted pages from here on have frames that lie together, as those of a huge page do. */
function neighbours(frames: Float64Array, isWanted: (page: number) => boolean, first: number): number {
  const frame = frames[first] ?? 0;
  let pages = 0;
  while (frame !== 0 && frames[first + pages] === frame + pages && isWanted(first + pages)) pages++;
  return pages;
}

function readRun(fd: number, frame: number, pages: number): BigUint64Array {
  const counts = new BigUint64Array(pages);
  return readSync(fd, counts, 0, counts.byteLength, frame * 8) === counts.byteLength ? counts : counts.fill(0n);
}
