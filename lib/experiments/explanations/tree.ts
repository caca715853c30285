import type { Explanation } from './explanation.js';

export const TREE: Explanation = {
  name: 'tree',
  question: 'who pays for pages that a whole tree of processes inherits?',
  claim: {
    text: 'The only penalty of fork is the time and memory for the page tables of the child, until someone writes.',
    source: 'https://man7.org/linux/man-pages/man2/fork.2.html',
    fate:
      'Holds. What comes then is paid by whoever writes, parent or child, except the last one that still has the page: ' +
      'it keeps the original.',
  },
  mechanism: [
    'Fork makes every page of both processes read-only and counts one more mapping of it. The page does not know who was ' +
      'there first: a grandchild, a sibling and the root are equal sharers, and each has 1/n of it in its Pss.',
    'A write finds a page that is mapped n times. With n > 1 the kernel copies it for the writer, and n falls by one for ' +
      'the others [mm/memory.c: do_wp_page, wp_page_copy]. So the root, which made the data, pays like any other if it ' +
      'writes before the others have ended.',
    'With n = 1 nobody else has it any more. The write is still a fault, since the page is marked read-only, but it copies ' +
      'nothing: the mark is taken away (reuse) [wp_can_reuse_anon_folio].',
    'When a process ends, n falls by one for all that it had not copied. That it stood between others in the tree plays no ' +
      'part: what its child inherited stays shared with those that are left.',
  ],
  formula: {
    lines: [
      'copied by the k-th of n writers  = all pages       if k < n',
      '                                 = 0               if k = n',
      'taken when all have written      = (n - 1) x size',
      'faults                           = one for each page and writer',
    ],
    notes: ['n counts the processes that have the page when the write comes: those that have ended are out.'],
  },
  figures: [
    ['faults', 'Minor faults of the writer: one for each page.'],
    ['copied', 'Growth of the sum of Pss over the tree. Some kB off: Pss is rounded down for each process.'],
    ['its Pss', 'Of the writer afterwards: all is its own.'],
  ],
  practice: [
    'Do not let the parent write to what its children inherit, as long as they live: it pays for every page, once for all of them. Databases that snapshot by fork meet this.',
    'Fork from a small process (a forkserver), or let children that have what they need end soon.',
    'Chains and fans cost the same memory. A chain has deeper page tables to copy only if each process adds to them.',
    'To see who paid, look at the sum of Pss before and after: the private pages of all, added up, count a copied page twice.',
  ],
};
