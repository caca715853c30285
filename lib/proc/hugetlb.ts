/** The pool of hugetlb pages of the default size [Documentation/admin-guide/mm/hugetlbpage.rst]. */
import { FeatureUnavailableError } from '../errors.js';
import type { HugetlbPool } from '../schema/facts.js';
import { readMeminfo, type Meminfo } from './meminfo.js';
import { readSysctl } from './sysctl.js';
import { isAtLeast, parseKernelRelease, readKernelRelease } from './system.js';

const FEATURE = 'Memory of hugetlb pages';

/**
 * What /proc/meminfo tells of the pool, in huge pages; undefined where the kernel has none (CONFIG_HUGETLB_PAGE).
 * @param overcommit vm.nr_overcommit_hugepages.
 */
export function parseHugetlbPool({ counts, fieldsKb }: Meminfo, overcommit: number): HugetlbPool | undefined {
  const pageKb = fieldsKb['Hugepagesize'];
  if (pageKb === undefined) return undefined;
  return {
    hugePageBytes: pageKb * 1024,
    totalPages: counts['HugePages_Total'] ?? 0,
    freePages: counts['HugePages_Free'] ?? 0,
    reservedPages: counts['HugePages_Rsvd'] ?? 0,
    overcommitPages: overcommit,
  };
}

export function readHugetlbPool(): HugetlbPool | undefined {
  return parseHugetlbPool(readMeminfo(), readSysctl('vm.nr_overcommit_hugepages') ?? 0);
}

/** From which version on, and before which, it is not known how reserved pages are counted: neither was tried. */
const UNTRIED = { since: [6, 13], before: [6, 18] } as const;

/**
 * @throws FeatureUnavailableError where the pool grows by itself, so that no refusal can be predicted, and on kernels whose
 * rules were not tried.
 */
export function requireExactHugetlb(pool = readHugetlbPool(), version = parseKernelRelease(readKernelRelease())): void {
  if (isAtLeast(version, UNTRIED.since) && !isAtLeast(version, UNTRIED.before)) {
    throw new FeatureUnavailableError(
      'Exact figures of hugetlb pages',
      'Linux 6.12 and 6.18 count reserved pages differently, and the kernels between them have not been tried',
      'Use another kernel: `cowlab vm`.',
    );
  }
  if (!pool?.overcommitPages) return;
  throw new FeatureUnavailableError(
    'Exact figures of hugetlb pages',
    'the kernel may make some beyond the pool',
    'As root: echo 0 > /proc/sys/vm/nr_overcommit_hugepages',
  );
}

/**
 * The default huge page, in pages of the base size.
 * @throws FeatureUnavailableError where the kernel has none, or where one is not what one page table maps, to which
 * regions are aligned.
 */
export function requireHugetlb(pageSizeBytes: number, pool = readHugetlbPool()): number {
  if (!pool) throw new FeatureUnavailableError(FEATURE, 'this kernel was built without them', 'Leave hugetlb away.');
  const tableBytes = (pageSizeBytes / 8) * pageSizeBytes;
  if (pool.hugePageBytes !== tableBytes) {
    throw new FeatureUnavailableError(
      FEATURE,
      `the default huge page has ${String(pool.hugePageBytes)} bytes`,
      `Boot with default_hugepagesz=${String(tableBytes / 2 ** 20)}M.`,
    );
  }
  return tableBytes / pageSizeBytes;
}
