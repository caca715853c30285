import type { Explanation } from './explanation.js';

export const ARENAS: Explanation = {
  name: 'arenas',
  question: 'when does the memory of freed Python objects go back to the system?',
  claim: {
    text: 'Small objects live in blocks, pools and arenas, and an arena is freed only when it is wholly empty.',
    source: 'https://rushter.com/blog/python-memory-managment/',
    fate: 'Holds: one survivor keeps a whole arena. Few survivors, scattered, keep nearly everything.',
  },
  mechanism: [
    'obmalloc serves requests of up to 512 bytes from blocks of 16, 32, 48, ... bytes. Blocks of one size fill a pool, ' +
      'pools of all sizes fill an arena, and arenas are what mmap gives [Objects/obmalloc.c].',
    'A block that is freed can be used again for its size, a pool that is empty for any size. Only when every pool of an ' +
      'arena is empty does munmap return it. Objects never move, so whoever survives where he is pins all around him.',
    'What is bigger than 512 bytes comes from malloc, which has rules of its own: large pieces are mappings, and go back ' +
      'at once.',
  ],
  formula: {
    lines: [
      'stays resident = pages of every arena that holds a survivor',
      'arena: 1 MiB since Python 3.10, before 256 KiB',
    ],
    notes: ['In the layout nothing but these objects lives in the arenas. In CPython others do, and pin some more.'],
  },
  figures: [
    ['arenas that stay', 'Those with a survivor.'],
    ['resident before, and after', 'Of the arenas, with all objects there and with the survivors alone.'],
    ['survivors need', 'The pages on which the survivors of CPython lie: all that would have to stay.'],
  ],
  practice: [
    'A process that has once been big stays big, if anything small from that time lives on: caches, interned names, logs.',
    'Make what lives long first, or after the big work, not in the middle of it.',
    'Do the big work in a child that ends: its memory goes back whole.',
    'Big data in arrays and bytes is not in arenas at all.',
  ],
};
