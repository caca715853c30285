import type { Explanation } from './explanation.js';

export const REFCOUNT: Explanation = {
  name: 'refcount',
  question: 'why does memory grow when children only look at Python objects?',
  claim: {
    text: 'Every Python object has a reference count, so that reading an object writes to it.',
    source: 'https://rushter.com/blog/python-garbage-collector/',
    fate: 'Holds: each page that holds the count of an object a child looks at is copied. Data in one array is not.',
  },
  mechanism: [
    'An object of CPython begins with its reference count (ob_refcnt). To put it on the stack, into a variable or into ' +
      'the hands of a loop adds one, to let it go takes one away [Include/object.h: Py_INCREF, Py_DECREF]. Both write to ' +
      'the page that holds the head of the object; what is written does not matter to the kernel, only that.',
    'After a fork the first such write copies the page. Small objects lie close together, some 64 to a page for a list, ' +
      'so looking at a small part of them already copies most pages.',
    'The layout model puts objects into blocks, pools and arenas as CPython does, simply: nothing else is allocated. The ' +
      'real CPython beside it says by id() on which pages its objects lie, and the kernel says which of these a child ' +
      'has for itself in the end. That must be every one of them.',
    'An array of numbers is one object with one count. Its numbers are read, and made into objects of the child.',
  ],
  formula: {
    lines: [
      'copied pages = pages that hold a count of an object looked at',
      'lists in a pool = (pool - 48) / 64      blocks of 16 + 40 bytes, rounded up',
      'pools: 16 KiB in arenas of 1 MiB since 3.10, before 4 KiB in 256 KiB',
    ],
    notes: ['A block of a list has the GC head of 16 bytes in front; the count comes after it.'],
  },
  figures: [
    ['pages copied', 'Pages of the laid-out objects that the child has for itself in the end.'],
    ['pages with counts', 'The same of a real CPython: of the pages on which its lists have their counts.'],
    ['of the array', "Copied pages of array('d'). None."],
    ['private grew by', 'All of the private memory of the child of CPython: its interpreter writes as well.'],
  ],
  practice: [
    'Keep what children read in array, bytes, mmap, numpy or a database file: one object, one count.',
    'Objects that children look at anyway can as well be made in the children.',
    'gc.freeze() does nothing about counts; neither do immortal objects (3.12), which are None, small integers and the like.',
  ],
};
