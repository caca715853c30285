import type { Explanation } from './explanation.js';

export const THP: Explanation = {
  name: 'thp',
  question: 'what does a written byte cost after a fork, if pages are huge?',
  claim: {
    text: 'With transparent huge pages a write after a fork copies 2 MiB, so that a few writes copy nearly everything.',
    source: 'https://redis.io/topics/latency',
    fate:
      'Refuted for today. Since Linux 5.8 (commit 3917c80280c9) the mapping of the writer is split, and one page of 4 KiB ' +
      'is copied, as everywhere else.',
  },
  mechanism: [
    'A huge page is 512 pages of 4 KiB that lie together, mapped by one entry of the table above the page tables. The ' +
      'first touch of a whole 2 MiB brings all of it by one fault, even if one byte is meant [mm/huge_memory.c: ' +
      'do_huge_pmd_anonymous_page].',
    'Fork copies that one entry and makes both read-only: it is quicker than 512 entries [copy_huge_pmd].',
    'A write to a shared huge page gives the writer a page table with 512 entries that map the same memory, and then ' +
      'copies the one page that is written [do_huge_pmd_wp_page, __split_huge_pmd, wp_page_copy]. The other process ' +
      'keeps its huge mapping. Each further page that is written is a fault and a copy of its own.',
    'If nobody else has any page of it any more, the first write makes the whole entry writable: one fault for 2 MiB ' +
      '[folio_ref_count() == 1].',
  ],
  formula: {
    lines: [
      'faults to fill 2 MiB       = 1         with base pages 512',
      'copied for a page written  = 4 KiB     huge or not',
      'faults for a page written  = 1         huge or not',
      'faults of 2 MiB, alone     = 1..512    with base pages 512',
    ],
    notes: [
      'The last is a range: the entry becomes writable without a flush, and the processor may hold old translations of single ' +
        'pages of it, each of which costs a fault more. In virtual machines one sees some of them.',
    ],
  },
  figures: [
    ['faults', 'Minor faults of the writes of the step.'],
    ['taken', 'Growth of the sum of Pss over both processes.'],
    ['mapped huge', 'AnonHugePages of the one that writes: what it still maps by entries of 2 MiB.'],
  ],
  practice: [
    'Copy-on-write is no reason to turn huge pages off on a current kernel. That a byte takes 2 MiB when it is the first in untouched memory is one: sparse heaps grow.',
    'What a snapshotting parent loses are its huge mappings: after a snapshot its page tables are larger, and accesses miss the TLB more often, until khugepaged puts pages together again.',
    'Pages of a huge page that nobody maps any more stay taken as long as one of the 512 is mapped; Pss does not show them. The kernel splits such pages when memory runs short.',
    'A fork with huge pages is shorter: see `cowlab explain latency`.',
  ],
};
