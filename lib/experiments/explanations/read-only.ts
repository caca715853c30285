import type { Explanation } from './explanation.js';

export const READ_ONLY: Explanation = {
  name: 'read-only',
  question: 'does data that children only read cost anything?',
  claim: {
    text: 'With a copy-on-write fork, data that is never altered costs nothing in the children.',
    source: 'https://stackoverflow.com/questions/10721915',
    fate:
      'Holds: no page is copied by reading, in whatever order and however often. It does not hold for objects whose ' +
      'reading writes, as a reference count does: those are altered.',
  },
  mechanism: [
    'fork copies the page tables of private memory that was written, so a child finds every page already mapped, and ' +
      'reading faults not at all. The pages are write-protected, and only a write makes the kernel copy one.',
    'For shared memory and files fork copies no page tables [mm/memory.c: vma_needs_copy]. The first read of each ' +
      'stretch is then a minor fault that maps up to 16 pages around it from the page cache [do_fault_around]. That ' +
      'costs time, and no memory but for page tables.',
    'A language with reference counts writes to an object when it looks at it: up by one, down by one. Where the ' +
      'counts lie inside the objects, every page that holds the head of an object is copied by each child that looks ' +
      'at it. Where they lie in a table apart, only the pages of that table are.',
  ],
  formula: {
    lines: [
      'read:                 copied pages = 0',
      'count in each object: copied pages = pages that hold the head of one',
      'counts kept apart:    copied pages = objects x 8 bytes / page size',
    ],
    notes: ['For each child, as all of them look at all objects. An object of up to a page leaves no page out.'],
  },
  figures: [
    ['minor faults', 'Of all children, over all rounds. 0 for private memory that is read.'],
    ['copied by a child', 'Pages that the first child has for itself in the end.'],
    ['growth of Pss', 'Memory really taken, by all children together.'],
  ],
  practice: [
    'Keep big data in arrays, bytes, memory-mapped files or numpy: one object with one count, and the rest only read.',
    'A list of a million small objects is a million counts: looking at them in a child copies them, page by page.',
    'gc.freeze() keeps the collector from writing to objects; it does nothing about counts.',
    'Python 3.12 has immortal objects, whose counts are not written; but these are constants of the interpreter, not your data.',
  ],
};
