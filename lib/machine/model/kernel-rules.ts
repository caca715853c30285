/**
 * The rules that are not the same on every kernel, each chosen by the version in which it changed, never by the
 * version it was tried on. Everything else in the model holds alike on 6.1, 6.12 and 6.18 (CONTRIBUTING.md, "What
 * differs by kernel"). A distribution that takes a change into an older kernel is not seen in the version number.
 */
import type { HostFacts } from '../../schema/facts.js';

export interface KernelRules {
  /**
   * A VMA that has an anon_vma may take in a neighbour that has none, or be taken in by it. Since 6.16, commit
   * 879bca0a2c4f [mm/vma.c: is_mergeable_anon_vma]; before, only the neighbour's anon_vma_chain was looked at, and an
   * empty one did not pass either [list_is_singular; mm/mmap.c before 6.11].
   */
  readonly mergesWithUnwrittenNeighbour: boolean;
  /**
   * mprotect() gives the charge of memory back that is made read-only and has no anon_vma. Since 6.7, commit
   * 9b9143298585 [mm/mprotect.c: mprotect_fixup]; before, what was charged once stayed so.
   */
  readonly unchargesUnwritten: boolean;
  /**
   * A write to the huge zero page gets a huge page. Since 6.13 [mm/huge_memory.c:
   * do_huge_zero_wp_pmd]; before, the mapping was split and one base page written.
   */
  readonly replacesHugeZeroPage: boolean;
  /**
   * mprotect() makes a huge page writable at once that is the process's own. Since 6.2 [mm/huge_memory.c:
   * can_change_pmd_writable]; before, the next write faulted.
   */
  readonly protectsHugeWritable: boolean;
  /**
   * smaps counts huge pages also where they may not be read (PROT_NONE). Since 6.6 [fs/proc/task_mmu.c: smaps_pmd_entry,
   * by vm_normal_page_pmd()]; before, by follow_trans_huge_pmd(), which leaves them out.
   */
  readonly countsUnreadableHuge: boolean;
  /**
   * Who unmaps a private hugetlb page of his own gets its reservation back, to be given up at once, when the page is freed:
   * while a child still has it, the count of reserved pages is too low by one, and can fall below zero. Seen
   * on 6.18, and not on 6.1 and 6.12; since when is not known, and between them no regions are had (lib/proc/hugetlb.ts)
   * [mm/hugetlb.c: __unmap_hugepage_range, folio_set_hugetlb_restore_reserve].
   */
  readonly owesReservations: boolean;
  /**
   * madvise(MADV_UNMERGEABLE) copies a merged page as a read would, had reads to copy: the copy is clean and read-only.
   * Since 6.2 [mm/ksm.c: break_ksm, by FAULT_FLAG_UNSHARE]; before, as a write does.
   */
  readonly unsharesMerged: boolean;
  /** madvise(MADV_DONTNEED) frees a page table that it empties. Since 6.14, and an option [mm/pt_reclaim.c]. */
  readonly reclaimsTables: boolean;
}

function isSince([major, minor]: HostFacts['kernelVersion'], wantedMajor: number, wantedMinor: number): boolean {
  return major > wantedMajor || (major === wantedMajor && minor >= wantedMinor);
}

export function kernelRules(facts: Pick<HostFacts, 'kernelVersion' | 'arch' | 'reclaimsTables'>): KernelRules {
  const { kernelVersion, arch, reclaimsTables } = facts;
  return {
    mergesWithUnwrittenNeighbour: isSince(kernelVersion, 6, 16),
    unchargesUnwritten: isSince(kernelVersion, 6, 7),
    replacesHugeZeroPage: isSince(kernelVersion, 6, 13),
    protectsHugeWritable: isSince(kernelVersion, 6, 2),
    owesReservations: isSince(kernelVersion, 6, 18),
    unsharesMerged: isSince(kernelVersion, 6, 2),
    countsUnreadableHuge: isSince(kernelVersion, 6, 6),
    reclaimsTables: reclaimsTables ?? (isSince(kernelVersion, 6, 14) && arch === 'x64'),
  };
}
