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
] as const;

export type Mutation = (typeof mutations)[number];
