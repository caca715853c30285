/** A pool of hugetlb pages for a test, put back by the restorer whatever happens. */
import { SystemChanges } from '../lib/api/system-changes.js';
import { readHugetlbPool } from '../lib/proc/hugetlb.js';
import { readMeminfo } from '../lib/proc/meminfo.js';

/** Why there can be no pool of so many huge pages here; undefined where there can. */
export function whyNoHugetlb(pages: number): string | undefined {
  const pool = readHugetlbPool();
  if (!pool) return 'this kernel has no hugetlb memory';
  if (process.geteuid?.() !== 0) return 'vm.nr_hugepages is changed, for which one must be root';
  if (pool.totalPages > 0 || pool.overcommitPages > 0) return 'others have a pool of huge pages here';
  const freeBytes = (readMeminfo().fieldsKb['MemFree'] ?? 0) * 1024;
  return freeBytes > 4 * pages * pool.hugePageBytes ? undefined : 'there is not enough free memory';
}

/** Whoever takes it calls restore(). Undefined where memory is too scattered for it. */
export async function takePool(pages: number): Promise<SystemChanges | undefined> {
  const changes = SystemChanges.begin({ hugetlb: true, purpose: 'a test' });
  if (changes.setHugetlbPages(pages) === pages) return changes;
  await changes.restore();
  return undefined;
}
