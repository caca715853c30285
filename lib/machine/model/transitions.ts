/**
 * What one event does to one page: the rules of copy-on-write, each as a change of a configuration.
 * Every function returns the minor faults it costs.
 */
import { CACHE, type Draft, isMerged, type Pte, ZERO } from './configuration.js';
import type { Mutation } from './mutation.js';

/** How a mapping sees its memory, as far as a fault depends on it. */
export interface MappingKind {
  /** Number of the mapping within its lineage. */
  id: number;
  shared: boolean;
  /** The memory has a page cache: everything but private anonymous memory. */
  cached: boolean;
  /**
   * Shared pages of a file are mapped read-only until the first write, so that the file system hears of it
   * [vma_wants_writenotify]; those of shmem are not, since shmem has no writeback.
   */
  writeNotify: boolean;
}

/**
 * A read of a page that has no page table entry.
 * @param writable The VMA has PROT_WRITE.
 * @param forbidsZeroPage As in the facts of the host.
 */
export function readMissing(draft: Draft, mapping: MappingKind, writable: boolean, forbidsZeroPage: boolean): number {
  if (mapping.cached) {
    // do_read_fault(); shmem_get_folio(SGP_CACHE) fills a hole, also for a private mapping.
    draft.allocateCache();
    mapCachePage(draft, mapping, writable);
  } else if (forbidsZeroPage) {
    // do_anonymous_page() goes on as for a write; where nothing may be written the page is clean.
    draft.set({ mapping: mapping.id, frame: draft.newAnonymousFrame(), writable, dirty: writable });
  } else {
    // do_anonymous_page(): a read maps the zero page.
    draft.set({ mapping: mapping.id, frame: ZERO, writable: false, dirty: false });
  }
  return 1;
}

/** Maps a page that is in the page cache, as a read fault or fault-around does [set_pte_range]. */
export function mapCachePage(draft: Draft, mapping: MappingKind, writable: boolean): void {
  // The new entry has the rights of vm_page_prot: writable at once where writes need not be noticed.
  const mayWrite = mapping.shared && writable && !mapping.writeNotify;
  draft.set({ mapping: mapping.id, frame: CACHE, writable: mayWrite, dirty: false });
}

/** A write by a private mapping: do_anonymous_page(), do_cow_fault(), do_wp_page(). */
export function writePrivate(draft: Draft, mapping: MappingKind, mutation?: Mutation): number {
  const pte = draft.pte(mapping.id);
  if (pte?.writable) {
    draft.written[pte.frame] = true;
    // A page that was read where the zero page is forbidden, and has become writable since, is clean until now.
    if (pte.stale || !pte.dirty) draft.set({ ...refreshed(pte), dirty: true });
    return 0;
  }
  // do_cow_fault() reads the page to copy from the page cache, which allocates it where there was a hole.
  if (!pte && mapping.cached) draft.allocateCache();
  // wp_can_reuse_anon_folio(), do_swap_page(): an anonymous page that nobody else maps, or has in swap, is taken over.
  const reusable =
    pte !== undefined &&
    pte.frame >= 0 &&
    (holders(draft, pte.frame, mutation) === 1 || mutation === 'reuse-of-shared-pages');
  // A merged page is never taken over, though nobody else maps it (folio_test_ksm()).
  const frame = reusable ? pte.frame : draft.newAnonymousFrame();
  draft.exclusive[frame] = true;
  draft.written[frame] = true;
  draft.set({ mapping: mapping.id, frame, writable: true, dirty: true });
  return 1;
}

function holders(draft: Draft, frame: number, mutation: Mutation | undefined): number {
  if (mutation === 'swap-entries-hold-nothing') return Math.max(1, draft.mapCount(frame));
  return draft.mapCount(frame) + draft.swapCount(frame);
}

/**
 * MADV_PAGEOUT of a page: it goes if this process alone maps it [madvise_cold_or_pageout_pte_range]. Whether it was written
 * before is no matter, and it is clean from then on [shrink_folio_list].
 */
export function pageOut(draft: Draft, mapping: MappingKind, mutation?: Mutation): void {
  const pte = draft.pte(mapping.id);
  if (!pte || pte.swapped || pte.frame < 0) return;
  if (draft.mapCount(pte.frame) !== 1 && mutation !== 'swap-takes-shared-pages') return;
  // try_to_unmap_one() keeps PageAnonExclusive in the entry of swap [pte_swp_mkexclusive].
  draft.set({ mapping: pte.mapping, frame: pte.frame, writable: false, dirty: false, swapped: true });
}

/**
 * A read of a page in swap: the same page for all who have it there, read-only unless it was never another's, and clean
 * [do_swap_page]. Its neighbours may be read ahead, but are not mapped [swapin_readahead].
 */
export function readSwapped(draft: Draft, pte: Pte, writable: boolean): number {
  const { mapping, frame } = pte;
  draft.set({ mapping, frame, writable: writable && draft.exclusive[frame] === true, dirty: false });
  return 1;
}

/** Why it is not known which faults are major. */
export const SWAP_CACHE =
  'a fault on a page in swap is minor while the page is still in the swap cache, or was read ahead';

/** A write by a shared mapping: do_shared_fault(), wp_page_shared(). */
export function writeShared(draft: Draft, mapping: MappingKind, mutation?: Mutation): number {
  const pte = draft.pte(mapping.id);
  const faults = pte?.writable ? 0 : 1;
  // Only a fault tells the kernel of the write [fault_dirty_shared_page]; otherwise the processor sets the entry's bit.
  if (faults > 0 || mutation === 'shared-write-dirties-page') draft.dirtyCache();
  draft.set({ mapping: mapping.id, frame: CACHE, writable: true, dirty: true });
  return faults;
}

/** The entry without a stale translation of it. */
export function refreshed(pte: Pte): Pte {
  const fresh: { -readonly [Key in keyof Pte]: Pte[Key] } = { ...pte };
  delete fresh.stale;
  return fresh;
}

/** Why an entry that is `stale` may cost a fault more. */
export const STALE =
  'pages became writable without a flush, and a write through an old translation of one faults once more';

/**
 * MADV_POPULATE_WRITE on a private mapping: a write fault, but taken by a system call and not by the processor. Where
 * the page is taken over and not copied, the entry becomes writable in place [wp_page_reuse], and no flush follows:
 * x86 and arm64 leave it to the spurious fault that the next write may take [flush_tlb_fix_spurious_fault].
 */
export function populatePrivate(draft: Draft, mapping: MappingKind, mutation?: Mutation): number {
  const before = draft.pte(mapping.id);
  if (before?.writable) {
    // follow_page_pte(): as for a shared page, dirty after FOLL_TOUCH with FOLL_WRITE.
    if (!before.dirty) draft.set({ ...before, dirty: true });
    return 0;
  }
  const written = draft.isWritten(before);
  const faults = writePrivate(draft, mapping, mutation);
  const after = draft.pte(mapping.id);
  // Nothing is written: a new page is of zeros, and a copied one like the first.
  if (after) draft.written[after.frame] = written;
  // Of a page in swap there was no translation.
  if (after && after.frame === before?.frame && !before.swapped) draft.set({ ...after, stale: true });
  return faults;
}

/**
 * MADV_POPULATE_WRITE on a shared mapping. A page that is writable already is not written, but follow_page_pte() calls
 * set_page_dirty() where neither entry nor folio are dirty (FOLL_TOUCH with FOLL_WRITE).
 */
export function populateShared(draft: Draft, mapping: MappingKind, mutation?: Mutation): number {
  const pte = draft.pte(mapping.id);
  if (!pte?.writable) {
    const faults = writeShared(draft, mapping, mutation);
    const after = draft.pte(mapping.id);
    if (pte && after) draft.set({ ...after, stale: true });
    return faults;
  }
  if (!pte.dirty) draft.dirtyCache();
  return 0;
}

/**
 * break_ksm(): the process gets a page of its own in the place of a merged one.
 * @param writable Before Linux 6.2 as a write would give it; since, by FAULT_FLAG_UNSHARE: read-only, and clean.
 */
export function unmerge(draft: Draft, mapping: MappingKind, writable: boolean | 'unshared'): number {
  const pte = draft.pte(mapping.id);
  if (!pte || !isMerged(pte.frame)) return 0;
  const frame = draft.newAnonymousFrame();
  draft.written[frame] = draft.isWritten(pte);
  draft.set({ mapping: mapping.id, frame, writable: writable === true, dirty: writable !== 'unshared' });
  return 1;
}

/** Removes the page table entry; its dirty bit goes to the folio [zap_present_folio_ptes]. */
export function zap(draft: Draft, mapping: number): void {
  const pte = draft.pte(mapping);
  if (pte?.frame === CACHE && pte.dirty) draft.dirtyCache();
  draft.remove(mapping);
}

/** Copies the page table entry of a private mapping into a child's [copy_present_ptes]. */
export function copyPte(draft: Draft, parent: number, child: number, mutation?: Mutation): void {
  const pte = draft.pte(parent);
  if (!pte) return;
  // __copy_present_ptes() write-protects both; folio_try_dup_anon_rmap_ptes() clears PageAnonExclusive.
  const both: Pte = { ...refreshed(pte), writable: false };
  draft.set(mutation === 'fork-keeps-write' ? pte : both);
  draft.set({ ...both, mapping: child });
  if (pte.frame >= 0 && !(pte.swapped && mutation === 'swap-fork-keeps-exclusive')) draft.exclusive[pte.frame] = false;
}

/** Gives the page table entry the rights of a new protection [change_pte_range]. */
export function protectPte(draft: Draft, mapping: MappingKind, writable: boolean): void {
  const pte = draft.pte(mapping.id);
  if (!pte || pte.swapped) return;
  // change_pte_range() flushes whatever changes.
  draft.set({ ...refreshed(pte), writable: writable && canBeWritable(draft, mapping, pte) });
}

function canBeWritable(draft: Draft, mapping: MappingKind, pte: Pte): boolean {
  // can_change_private_pte_writable(): exclusive anonymous pages only.
  if (!mapping.shared) return pte.frame >= 0 && draft.exclusive[pte.frame] === true;
  // can_change_shared_pte_writable(): a dirty entry has already been noticed.
  return !mapping.writeNotify || pte.dirty;
}
