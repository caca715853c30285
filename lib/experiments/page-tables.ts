/** How many page tables a range of memory needs, which is what a fork has to make anew. */

/** On x86-64 and arm64 every entry has 8 bytes, and a table of any level is one page [Documentation/mm/page_tables.rst]. */
const ENTRY_BYTES = 8;

/** Above the lowest; more than there are do no harm, since a range counts one table at most at each of them. */
const UPPER_LEVELS = 3;

/** Tables that lie wholly inside a range of entries, and those that it touches. */
function tablesOf(first: number, end: number, entries: number): { inside: number; touched: number } {
  const inside = Math.floor(end / entries) - Math.ceil(first / entries);
  return { inside: Math.max(0, inside), touched: Math.ceil(end / entries) - Math.floor(first / entries) };
}

/**
 * Memory of the page tables of `pages` mapped pages at `address`, in kB. At its ends and in the upper levels a table may
 * serve neighbours as well, and then be there already: so these are bounds.
 */
export function tablesKb(address: bigint, pages: number, pageSizeBytes: number): { min: number; max: number } {
  const entries = pageSizeBytes / ENTRY_BYTES;
  const pageKb = pageSizeBytes / 1024;
  let first = Number(address / BigInt(pageSizeBytes));
  let end = first + pages;
  const lowest = tablesOf(first, end, entries);
  let max = lowest.touched;
  for (let level = 0; level < UPPER_LEVELS; level++) {
    [first, end] = [Math.floor(first / entries), Math.ceil(end / entries)];
    max += tablesOf(first, end, entries).touched;
  }
  return { min: lowest.inside * pageKb, max: max * pageKb };
}
