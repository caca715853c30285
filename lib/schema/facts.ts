/** What the model must know of the host: plain JSON, taken before the first step. */
import Type from 'typebox';

const Pages = Type.Integer({ minimum: 0 });

/** The pool of hugetlb pages of the default size, counted in these. */
export const HugetlbPoolSchema = Type.Object({
  hugePageBytes: Type.Integer({ minimum: 4096 }),
  totalPages: Pages,
  freePages: Pages,
  /** Free, but promised to those who have mapped memory and not touched all of it. */
  reservedPages: Type.Integer(),
  /** vm.nr_overcommit_hugepages: how many the kernel may make beyond the pool. */
  overcommitPages: Pages,
});
export type HugetlbPool = Type.Static<typeof HugetlbPoolSchema>;

export const HostFactsSchema = Type.Object({
  kernelRelease: Type.String(),
  /** [major, minor]. */
  kernelVersion: Type.Tuple([Type.Integer(), Type.Integer()]),
  arch: Type.String(),
  pageSizeBytes: Type.Integer({ minimum: 4096 }),
  cpus: Type.Integer({ minimum: 1 }),
  memTotalPages: Pages,
  swapTotalPages: Pages,
  /** vm.overcommit_memory: 0 heuristic, 1 always, 2 never (strict). */
  overcommitMode: Type.Union([Type.Literal(0), Type.Literal(1), Type.Literal(2)]),
  commitLimitPages: Pages,
  /** RAM that hugetlb pools hold, all page sizes: no part of CommitLimit is made of it. */
  hugetlbPages: Pages,
  /** Committed_AS when the facts were taken. */
  committedPages: Pages,
  adminReservePages: Pages,
  userReservePages: Pages,
  /** CAP_SYS_ADMIN: the admin reserve is not held back from such a process. */
  capSysAdmin: Type.Boolean(),
  /** Window of do_fault_around in pages. */
  faultAroundPages: Type.Integer({ minimum: 1 }),
  /** Page table entries in one page-table page: a fault-around never crosses it. */
  pagesPerTable: Type.Integer({ minimum: 1 }),
  /**
   * A read of untouched private anonymous memory allocates a page, and does not map the zero page [mm/memory.c:
   * do_anonymous_page, mm_forbids_zeropage]. Absent: no.
   */
  forbidsZeroPage: Type.Optional(Type.Boolean()),
  /** Why there are no regions of huge pages here, or none with exact figures. Absent: there are. */
  noHugePages: Type.Optional(Type.String()),
  /** A read of an untouched huge page maps the huge zero page (use_zero_page of THP). Absent: yes. */
  hugeZeroPage: Type.Optional(Type.Boolean()),
  /** madvise(MADV_DONTNEED) frees a page table that it empties (CONFIG_PT_RECLAIM). Absent: by the kernel's version. */
  reclaimsTables: Type.Optional(Type.Boolean()),
  /** Absent: this kernel has no hugetlb memory. */
  hugetlbPool: Type.Optional(HugetlbPoolSchema),
  /** madvise(2) knows MADV_MERGEABLE (CONFIG_KSM). Absent: yes. */
  hasKsm: Type.Optional(Type.Boolean()),
  /** ksmd merges pages of mergeable memory, or may do so unseen (/sys/kernel/mm/ksm/run). Absent: no. */
  ksmRuns: Type.Optional(Type.Boolean()),
  thpEnabled: Type.String(),
  shmemThpEnabled: Type.String(),
  /** Lengths of the accounted, forkable VMAs of the root before it maps anything, in address order. */
  rootAccountedVmas: Type.Array(Pages),
  /** total_vm of the root before it maps anything (first field of statm). */
  rootTotalPages: Pages,
  /** For kernels before 5.2, whose heuristic judged by what is free. */
  free: Type.Object({
    freePages: Pages,
    filePages: Pages,
    shmemPages: Pages,
    swapFreePages: Pages,
    reclaimableSlabPages: Pages,
  }),
});
export type HostFacts = Type.Static<typeof HostFactsSchema>;
