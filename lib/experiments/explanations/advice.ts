import type { Explanation } from './explanation.js';

export const ADVICE: Explanation = {
  name: 'advice',
  question: 'what does advice (madvise) change about a fork?',
  claim: {
    text: 'MADV_DONTFORK does not make the pages available to the child; MADV_WIPEONFORK presents it with zeros.',
    source: 'https://man7.org/linux/man-pages/man2/madvise.2.html',
    fate:
      'Holds. But DONTFORK alone makes the fork cheaper: WIPEONFORK is charged in full, and what the child writes there ' +
      'takes new memory.',
  },
  mechanism: [
    'Fork goes through the mappings of the parent. One with DONTFORK is left out: it is neither charged nor copied, and ' +
      'the child has a hole there; touching it ends the child by SIGSEGV [kernel/fork.c: dup_mmap, VM_DONTCOPY].',
    'One with WIPEONFORK is there in the child without its pages, so that no entries are copied. It may be written, and ' +
      'so its whole length is charged again [VM_WIPEONFORK]. Each page that the child touches is a new one of zeros.',
    'MADV_POPULATE_WRITE takes the write faults of a range in one call, and so copies all that is shared. ' +
      'MADV_POPULATE_READ takes read faults: after a fork all private pages are there, and it does nothing [mm/gup.c: ' +
      'faultin_page_range].',
  ],
  formula: {
    lines: [
      'charged by the fork   = 0            with DONTFORK',
      '                      = all pages    otherwise, WIPEONFORK too',
      'entries copied        = 0            with DONTFORK or WIPEONFORK',
      'taken by writing      = all pages    wherever the child has the mapping',
    ],
    notes: ['Of private anonymous memory that the parent has written, and a child that writes all of it.'],
  },
  figures: [
    ['charged', 'Pages that the fork adds to Committed_AS for this mapping.'],
    ['child has', 'Pages with an entry in the page tables of the child right after the fork.'],
    ['populating, writing', 'Minor faults of the child in madvise(2), and in the writes that follow.'],
    ['taken', 'Growth of the sum of Pss of both since before the fork.'],
  ],
  practice: [
    'For a big parent whose children only exec: DONTFORK on its data makes the fork fast, and lets it succeed where the charge would be refused. posix_spawn and vfork need no advice.',
    'For keys and the state of random generators: WIPEONFORK. It is for secrecy, not for memory.',
    'DONTFORK is inherited by no child, since the mapping is not: what the child maps anew is forked as usual.',
    'MADV_MERGEABLE changes nothing about a fork: nothing merges unless ksmd runs, which is off by default: cat /sys/kernel/mm/ksm/run. It pays where processes write the same after it: --param ksm=true, with --allow-system-changes.',
    'What is in swap is not brought back by a fork: both have the page there, and the sum of Swap counts it twice, that of SwapPss once: --param swap=true, with --allow-system-changes, on Linux 6.18.',
    'Huge pages: see `cowlab explain thp`.',
  ],
};
