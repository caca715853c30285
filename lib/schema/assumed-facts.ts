/** A host to predict for where there is none to ask. */
import { requireInteger } from './arguments.js';
import type { HostFacts } from './facts.js';

const PAGE_BYTES = 4096;
/** What a kernel sets at boot: at most 8 MiB, 128 MiB, and 1/32 of what is free [init_admin_reserve, init_user_reserve]. */
const ADMIN_RESERVE_PAGES = 2 ** 11;
const USER_RESERVE_PAGES = 2 ** 15;

/**
 * The facts of a plain Linux 6.18 on default settings (heuristic overcommit, no swap, an ordinary user), for modelMachine()
 * on another system.
 * @param memoryBytes RAM, such as os.totalmem() gives.
 */
export function assumedFacts(memoryBytes: number): HostFacts {
  requireInteger('memoryBytes', memoryBytes, PAGE_BYTES, Number.MAX_SAFE_INTEGER);
  const memTotalPages = Math.floor(memoryBytes / PAGE_BYTES);
  return {
    kernelRelease: '6.18.0 (assumed)',
    kernelVersion: [6, 18],
    arch: 'x64',
    pageSizeBytes: PAGE_BYTES,
    cpus: 1,
    memTotalPages,
    swapTotalPages: 0,
    overcommitMode: 0,
    commitLimitPages: Math.floor(memTotalPages / 2),
    hugetlbPages: 0,
    committedPages: 0,
    adminReservePages: Math.min(ADMIN_RESERVE_PAGES, Math.floor(memTotalPages / 32)),
    userReservePages: Math.min(USER_RESERVE_PAGES, Math.floor(memTotalPages / 32)),
    capSysAdmin: false,
    faultAroundPages: 16,
    pagesPerTable: 512,
    thpEnabled: 'madvise',
    shmemThpEnabled: 'never',
    rootAccountedVmas: [],
    rootTotalPages: 0,
    free: {
      freePages: memTotalPages,
      filePages: 0,
      shmemPages: 0,
      swapFreePages: 0,
      reclaimableSlabPages: 0,
    },
  };
}
