import type { Explanation } from './explanation.js';

export const COW_GROWTH: Explanation = {
  name: 'cow-growth',
  question: 'how does memory grow as forked children write?',
  claim: {
    text:
      'With a copy-on-write fork, data that is never altered costs nothing in the children; private memory grows ' +
      'exactly as children write.',
    source: 'https://stackoverflow.com/questions/10721915',
    fate: 'Holds, page by page: reading copies nothing, and each first write to a shared page copies that one page.',
  },
  mechanism: [
    'After fork, parent and child map the same pages, and the page tables of both lose the right to write to private ' +
      'ones [mm/memory.c: copy_present_ptes]. Reading goes on as before and faults not.',
    'The first write to such a page, by either side, is a minor fault [do_wp_page]. If another process still maps the ' +
      'page, the kernel copies 4 KiB and gives the writer the copy. If nobody else does, the writer is given the page ' +
      'itself ("reuse"): a fault, and no copy. So the last of all owners never copies.',
    'A copy changes the figures of two processes. The writer has a page of its own; and where only one other process ' +
      'is left with the original, that page now counts as private there too. Adding up Private_Dirty over the tree ' +
      'counts such a copy twice. Pss does not: each page gives every mapper an equal part, so that the sum over the ' +
      'tree is the memory really used, and its growth is what was really copied.',
    'A shared mapping is never copied: children write into the same pages, and the sum of Pss stays.',
  ],
  formula: {
    lines: [
      'copies of one page = min(processes that wrote to it, processes - 1)',
      'copied bytes       = growth of the sum of Pss over the tree',
      'Pss of a VMA       = sum over its pages of (page size / mappers of the page)',
    ],
    notes: [
      'For private memory written before the fork, with every process of the tree still alive; "processes" are those ' +
        'that share the page, the parent included. The kernel rounds Pss down to a whole kB for each VMA, which is ' +
        'why a tree may show some kB less than its pages.',
    ],
  },
  figures: [
    ['exclusive', 'Pages that this process alone maps: written since the fork, or left behind by the others.'],
    ['shared', 'Pages mapped more than once. They cost their size once, whatever Rss says.'],
    ['zero', 'Read but never written: the one zero page of the kernel. Costs nothing and is in no figure of smaps.'],
    ['not-present', 'Never touched in this process. Costs nothing.'],
    ['swapped', 'In swap. A run in which pages go there is not exact and is called inconclusive.'],
    ['Rss', 'All pages present, shared ones in full. Summed over processes it counts them again and again.'],
    ['Pss', 'The fair part: shared pages divided by their mappers. Sums over a tree are true.'],
    ['Private_Dirty', 'Exclusive pages that were written: what would be freed if this process ended now.'],
    ['Shared_Dirty', 'Written pages mapped more than once: what may still have to be copied.'],
    ['minor faults', 'One for each first write to a shared page, whether it copied or reused.'],
  ],
  practice: [
    'Judge a tree of workers by the sum of Pss (smaps_rollup), never by the sum of Rss.',
    'Load what all workers read before they are forked, and then leave it alone. The budget for the rest is what they write.',
    'Mind hidden writes: CPython stores a reference count in every object, so that reading an object writes to its page; gc.freeze() before the fork keeps the collector from writing too.',
    'Keep what changes apart from what does not: one write copies a whole page, and scattered writes copy all of them.',
    'A parent that forks to save a snapshot (databases do) needs room for every page that is written while the child lives; in the worst case all of them.',
    'Let short-lived children end: the pages they held become exclusive again, and the next write to each costs a fault and no copy.',
    'Memory that is meant to be written by all belongs in a shared mapping.',
  ],
};
