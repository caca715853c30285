import type { Explanation } from './explanation.js';

export const READ_ONLY: Explanation = {
  name: 'read-only',
  question: 'does data that children only read cost nothing in them?',
  claim: {
    text: 'With a copy-on-write fork, data that is never altered costs nothing in the children.',
    source: 'https://stackoverflow.com/questions/10721915',
    fate:
      'Holds for data: no page is copied, however often and in whatever order it is read. It does not help where ' +
      'looking at an object writes to it, as a reference count does.',
  },
  mechanism: [
    'After fork the children map the pages of the parent, without the right to write. A read finds the page and goes on: ' +
      'no fault, no copy, for as long as nobody writes.',
    'For private memory that the parent has written, fork copies the page tables, so that not even the first read of a ' +
      'child faults. For shared memory and files it does not, since they can be filled in again [mm/memory.c: ' +
      'vma_needs_copy]: the first read of each 16 pages is a minor fault that maps those which are in the page cache ' +
      '[do_fault_around]. It costs time and no memory.',
    'An object with a reference count is another matter. CPython raises the count of an object before it looks at it, and ' +
      'lowers it afterwards. The value is what it was, but the page was written, and the kernel copies the whole page at ' +
      'the first write. With objects of 64 bytes every page has 64 counts; it is enough to look at one of them.',
    'So the data is never altered, and copied all the same. Where the counts stand in a table apart, only the table is.',
  ],
  formula: {
    lines: [
      'copied, data only read        = 0',
      'copied, counts in the objects = children x size / max(object, page)    pages',
      'copied, counts in a table     = children x size / object x 8 / page    pages',
      'faults, private memory        = 0',
      'faults, shared memory         = children x pages / 16             once each',
    ],
    notes: [
      'A counted object is looked at by a write to the page of its count and a read of its data: one write for each page ' +
        'that holds a count, since the later ones to the same page change nothing any more. Each child and each round ' +
        'has another order: sequential, random, by strides.',
    ],
  },
  figures: [
    ['faults', 'Minor faults of all children when they look at everything for the first time.'],
    ['later', 'Those of all later rounds: none, neither for reading nor for counting.'],
    ['pages copied', 'Pages that one child maps alone. The parent has all of them still, so each is a copy.'],
    ['growth', 'Of the sum of Pss since the fork: memory taken. Some kB off: Pss is rounded for each process.'],
  ],
  practice: [
    'Keep what workers read in few large objects: array, bytes, numpy arrays. They have one count each, apart from the data, and reading elements does not touch the pages of the data.',
    'Or in a mapped file or shared memory (mmap, multiprocessing.shared_memory, numpy.memmap).',
    'Lists, dicts and strings by the million are what gets copied: each access writes to each of them.',
    'gc.freeze() before the fork keeps the garbage collector from writing to the objects. It does nothing against reading, which counts.',
    'Immortal objects (Python 3.12 on: None, True, small integers, interned names) are not counted. Your data is not among them.',
    'Watch it: the growth of the sum of Pss (smaps_rollup) of the workers while they only read should be 0.',
  ],
};
