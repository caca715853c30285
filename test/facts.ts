/** A plausible host for tests of the model: 24 GiB, no swap, heuristic overcommit, Linux 6.18 with 4K pages. */
import type { HostFacts } from '../lib/schema/facts.js';

const PAGES_PER_GIB = 2 ** 18;

export const testFacts: HostFacts = {
  kernelRelease: '6.18.0',
  kernelVersion: [6, 18],
  arch: 'x64',
  pageSizeBytes: 4096,
  cpus: 4,
  memTotalPages: 24 * PAGES_PER_GIB,
  swapTotalPages: 0,
  overcommitMode: 0,
  commitLimitPages: 12 * PAGES_PER_GIB,
  hugetlbPages: 0,
  committedPages: PAGES_PER_GIB,
  adminReservePages: 2048,
  userReservePages: 32768,
  capSysAdmin: false,
  faultAroundPages: 16,
  pagesPerTable: 512,
  thpEnabled: 'madvise',
  shmemThpEnabled: 'never',
  rootAccountedVmas: [33, 16, 4, 4, 1, 1, 2, 3],
  rootTotalPages: 2000,
  free: {
    freePages: 16 * PAGES_PER_GIB,
    filePages: 4 * PAGES_PER_GIB,
    shmemPages: 1024,
    swapFreePages: 0,
    reclaimableSlabPages: 8192,
  },
};
