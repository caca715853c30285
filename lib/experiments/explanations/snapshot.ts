import type { Explanation } from './explanation.js';

export const SNAPSHOT: Explanation = {
  name: 'snapshot',
  question: 'what does a snapshot by fork cost, while the parent goes on writing?',
  claim: {
    text: 'While a database saves in the background, by a fork, it can use up to 2 times the memory it normally uses.',
    source: 'https://redis.io/docs/latest/operate/oss_and_stack/management/admin/',
    fate:
      'Holds only if nearly every page is written while the child lives. It is the bound; what is needed is the data ' +
      'and one more of each page that was written meanwhile, however often.',
  },
  mechanism: [
    'A fork gives the child the memory as it is at that moment. The child reads it and saves it, and the parent may go ' +
      'on writing: Redis does so for BGSAVE and for rewriting its log, and others snapshot virtual machines like this.',
    'The first write of the parent to a page that the child still maps is a fault, and copies the page ' +
      '[mm/memory.c: do_wp_page, wp_page_copy]: the child keeps the old one, and the parent gets the copy. After that ' +
      'the page is the own one of the parent, and later writes to it neither fault nor copy.',
    'So writes are not what counts, but the different pages among them. Uniform keys meet nearly as many pages as there ' +
      'are writes at first, and then the same pages again. With skewed keys, of which few get most of the writes, the ' +
      'same pages come back sooner. But if many keys share a page, the rare keys are in every page, and the skew helps less.',
    'When the child ends, the old pages are freed. What the parent had not written is its alone again, and the first ' +
      'write to each such page is still a fault, but copies nothing (reuse).',
  ],
  formula: {
    lines: [
      'pages met by k writes = sum over pages of 1 - (1 - p) ^ k       on average',
      '   uniform, N pages   = N x (1 - (1 - 1/N) ^ k)',
      'copied                = different pages written while the child lives',
      'peak                  = data + copied',
    ],
    notes: [
      'p is the probability that a write goes to the page. The averages stand beside what was measured and are not checked: ' +
        'the seed decides which keys are written, and so the exact number, which is counted by hand in a set. Skewed ' +
        "keys follow Zipf's law: the key of rank r is written with a probability proportional to r ^ -skew. All are strewn " +
        'over the pages.',
      'All memory here is in pages of the base size, 4 KiB on most machines. A huge page is split at such a write since Linux 5.8 [do_huge_pmd_wp_page]; before, all of it was copied. That is not tried here.',
    ],
  },
  figures: [
    ['writes', 'Key writes while the child lives, in per cent of the pages: the write rate times its life.'],
    ['on average', 'Different pages that so many writes meet, by the formula.'],
    ['faults', 'Of the parent while it writes: one for each different page.'],
    ['copied', 'Growth of the sum of Pss from the fork until the child has read everything.'],
    ['peak', 'The sum of Pss then, parent and child together; and as a multiple of the data.'],
  ],
  practice: [
    'Plan for the pages that are written during a save: write rate x duration, and the formula above. Twice the data is the bound, for writes all over the place or a slow disk.',
    'A faster save costs less memory: half the time is half the writes. Save when little is written.',
    'Keep what is written often together, apart from what is seldom written: then the same few pages are copied.',
    'After a save look at what it took (Redis logs it as memory used by copy-on-write): the child counts its Private_Dirty pages.',
    'That a fork can be refused is another matter: see `cowlab explain enomem`. The memory here is taken page by page, long after the fork has succeeded; and if there is none left the kernel kills (`cowlab explain oom`).',
  ],
};
