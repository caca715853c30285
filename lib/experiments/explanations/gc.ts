import type { Explanation } from './explanation.js';

export const GC: Explanation = {
  name: 'gc',
  question: 'does a garbage collection in a child copy what it visits?',
  claim: {
    text: 'The generational garbage collector writes to the objects that it visits.',
    source: 'https://rushter.com/blog/python-garbage-collector/',
    fate: 'Holds: a full collection writes to the head of every container, also in a child. gc.freeze() keeps it away.',
  },
  mechanism: [
    'Every container (list, dict, most instances) has a GC head of two words in front of it. A collection first copies ' +
      'the reference count of each into its head (update_refs), subtracts what containers refer to among themselves, and ' +
      'so finds what only they keep alive. The first step alone writes to every container of the generation.',
    'In a child each of these writes copies a page, although nothing has changed that anybody could see. A full ' +
      'collection comes by itself now and then, so that children grow without doing anything.',
    'gc.freeze() (3.7) moves all containers into a generation that no collection visits. It must be called in the parent ' +
      'before the fork, after a collection, and with the collector disabled until then, so that no hole is left for new ' +
      'objects among the frozen. gc.disable() keeps collections from happening, and cycles from being freed.',
  ],
  formula: {
    lines: [
      'gc.collect():            copied pages = pages that hold a GC head',
      'after gc.freeze():       copied pages = 0, but for what else is written',
    ],
    notes: ['Up to Python 3.13. The incremental collector of 3.14 visits part of them at a time.'],
  },
  figures: [
    ['pages copied', 'Pages of the laid-out objects that the child has for itself in the end.'],
    ['of pages with heads', 'On how many pages the lists of the real CPython have their GC heads.'],
    ['copied', 'How many of these the child of CPython has for itself in the end.'],
    ['private grew by', 'All of its private memory: other containers were visited as well.'],
  ],
  practice: [
    'Before forking: gc.disable() early in the parent, gc.freeze() right before the fork, gc.enable() in the child.',
    'It helps against the collector only. What children look at is copied for its reference count.',
    'Few big containers of numbers (arrays) are few heads.',
  ],
};
