/**
 * Wrong rules, for the test of the test: a comparison with the kernel, or with the anchors, that does not notice one
 * of them checks nothing. Each is one branch, at the place where the right rule stands.
 */
export const mutations = [
  /** A read of private memory gives the VMA an anon_vma, so that fork copies its zero pages. */
  'av-set-by-reads',
  /** Fork leaves the parent's page table entries writable. */
  'fork-keeps-write',
  /** Fork copies the page tables of every VMA, as before vma_needs_copy(). */
  'fork-copies-all',
  /** A read fault maps its own page only. */
  'no-fault-around',
  /** The fault-around window is 16 pages aligned, also when its start was clipped. */
  'fault-around-not-shifted',
  'zero-page-counts-in-rss',
  /** A write to an anonymous page takes the page over, also when others map it. */
  'reuse-of-shared-pages',
  /** A write through a page table entry that a read has installed makes the page dirty for every mapper. */
  'shared-write-dirties-page',
  /** madvise(MADV_DONTNEED) forgets the anon_vma. */
  'dontneed-clears-av',
  'wipeonfork-is-not-inherited',
  /** Fork clears VM_MERGEABLE. */
  'mergeable-is-not-inherited',
  /** madvise(MADV_MERGEABLE) takes shared mappings too. */
  'shared-memory-is-mergeable',
] as const;

/** Wrong rules about transparent huge pages. */
export const hugeMutations = [
  /** A write to a shared huge page copies all of it, as before Linux 5.8. */
  'huge-page-is-copied-whole',
  /** A huge page whose every page only one process maps is split all the same, and not taken over. */
  'huge-page-is-never-reused',
  /** A change of a part of a huge page leaves its mapping whole. */
  'huge-page-is-not-split',
  /** A read of an untouched huge page gives the VMA no anon_vma, so that fork does not copy it. */
  'huge-read-sets-no-av',
] as const;

/** Wrong rules about pages that KSM has merged. */
export const mergeMutations = [
  /** A merged page is clean. */
  'merged-pages-are-clean',
  /** A region that moves keeps its merged pages. */
  'grow-keeps-merged',
  /** A merged page is mapped by as many as map it in the one process. */
  'merged-counts-are-local',
] as const;

/** Wrong rules about hugetlb pages. */
export const hugetlbMutations = [
  /** A child takes pages out of what its parent has reserved. */
  'hugetlb-child-has-reservation',
  /** A child from which the parent has taken a page may touch others. */
  'hugetlb-robbed-child-lives',
  /** The count of reserved pages is right also after an owner has unmapped what its child still has. */
  'hugetlb-owes-nothing',
] as const;

/** Wrong rules about pages in swap. */
export const swapMutations = [
  /** MADV_PAGEOUT takes pages that others map too. */
  'swap-takes-shared-pages',
  /** A page that others have in swap is taken over by who writes it. */
  'swap-entries-hold-nothing',
  /** After a fork a page in swap is still its process's own, and comes back writable. */
  'swap-fork-keeps-exclusive',
  /** SwapPss is Swap. */
  'swap-pss-is-whole',
] as const;

/** Wrong rules about cgroups with limits, which no random program meets: test/kernel/oom.test.ts does. */
export const cgroupMutations = [
  /** The OOM killer takes the process that needs memory, and not the largest. */
  'oom-takes-the-writer',
  /** Pages that are copied are not charged to the cgroup. */
  'copies-are-not-charged',
  /** pids.max allows one task more. */
  'pids-max-is-off-by-one',
] as const;

export type Mutation =
  | (typeof mutations)[number]
  | (typeof hugeMutations)[number]
  | (typeof mergeMutations)[number]
  | (typeof hugetlbMutations)[number]
  | (typeof swapMutations)[number]
  | (typeof cgroupMutations)[number];
