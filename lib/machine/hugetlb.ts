/** Checks of regions of hugetlb pages. */
import type { HostFacts } from '../schema/facts.js';
import { requireWholeHugePages } from '../schema/arguments.js';

/** What a program may do with such regions is what the model knows of them. @throws RangeError */
export function requireHugetlbRegion(
  { pages, sharing, onFork }: { pages: number; sharing: string; onFork: string },
  { pagesPerTable }: HostFacts,
): void {
  requireWholeHugePages(pages, pagesPerTable);
  if (onFork !== 'copy') throw new RangeError("onFork of a region of hugetlb can only be 'copy'");
  // want_pmd_share(): from there on processes share page tables, and each of them seems to be the only one.
  if (sharing === 'shared' && pages >= pagesPerTable ** 2) {
    throw new RangeError(`a shared region of hugetlb must have less than ${String(pagesPerTable ** 2)} pages`);
  }
}

/** @throws RangeError for what is not modelled of hugetlb memory. */
export function requireBasePages(region: { hugetlb: boolean }, what: string): void {
  if (region.hugetlb) throw new RangeError(`${what} is not for regions of hugetlb: the model does not know it`);
}
