import type { Explanation } from './explanation.js';

export const LATENCY: Explanation = {
  name: 'latency',
  question: 'how long does a fork take, and for which memory?',
  claim: {
    text: 'Forking is expensive, since the page table is copied, with a pointer for each page of the process.',
    source: 'https://redis.io/topics/latency',
    fate:
      'Holds only for private memory that was written. Shared memory, files, what DONTFORK keeps from the child and memory ' +
      'that nobody has touched add nothing but their VMA, however large they are.',
  },
  mechanism: [
    'Fork copies no page. But the child needs page tables of its own: for each page of private memory that the parent has, ' +
      'an entry is copied and both are made read-only, and the page is counted once more [mm/memory.c: copy_page_range, ' +
      'copy_present_ptes]. Meanwhile the parent does nothing else.',
    'Shared memory and files can be filled in again by faults, so their entries are left out [vma_needs_copy]. The child ' +
      'pays later, by a minor fault for what it touches. A file that is ' +
      'mapped privately is left out as long as nobody has written to the mapping.',
    'A huge page has one entry for its 2 MiB, in the table above, and that is copied. A page table is made for it all the ' +
      'same, for when it is split [mm/huge_memory.c: copy_huge_pmd, pgtable_trans_huge_deposit].',
    'A mapping with MADV_DONTFORK is not in the child at all. Of one that was never touched there is nothing to copy: not ' +
      'its size counts, but the pages that are there. A VMA itself costs little.',
    'The rest is the process: its other VMAs, files, signals. The processes that are timed here are copies of Node, whose ' +
      'own memory is copied too: that is the column without any memory.',
  ],
  formula: {
    lines: [
      'time        = constant + VMAs x a + written private pages x b',
      'page tables = 8 bytes for each such page, in whole tables of a page',
      'of huge pages: as many page tables, and one copied entry for 2 MiB',
    ],
    notes: [
      'a and b depend on the machine and no model predicts them: times are measured, shown with their spread, and not judged. ' +
        'What is exact is checked: the entries that the child has, that no memory was copied, and the page tables of the ' +
        'child (VmPTE). They are found by a second fork, without the region. For private memory, of huge pages too, they have bounds, since ' +
        'tables at its ends may be those of neighbours too; for all other kinds they are 0.',
    ],
  },
  figures: [
    ['entries copied', 'Pages that the child has right after the fork, before it has touched any.'],
    ['memory copied', 'Growth of the sum of Pss by the fork: none, of any kind.'],
    ['ms', 'Of the call in the parent: the median, and the median absolute deviation. Kinds take turns.'],
    ['for each page', 'Slope of a line through the medians of private memory.'],
  ],
  practice: [
    'What makes a fork slow is written private memory, not the virtual size: heaps, buffers, big arrays.',
    'Put large data that a child does not need under MADV_DONTFORK, or into shared memory. Both also keep it from being copied later.',
    'To start programs use posix_spawn, which copies nothing (`cowlab explain node-spawn`), or fork from a small process.',
    'Huge pages make a fork short: one entry for 2 MiB. They save no page tables, since one is set aside for each.',
    'The pause is not all: each first write after it is a fault, and may copy (`cowlab explain snapshot`).',
  ],
};
