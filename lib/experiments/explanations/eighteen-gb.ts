import type { Explanation } from './explanation.js';

export const EIGHTEEN_GB: Explanation = {
  name: 'eighteen-gb',
  question: 'do a parent of 2 GB and eight subprocesses need 18 GB?',
  claim: {
    text: 'A parent of 2 GB that forks 8 subprocesses needs 18 GB.',
    source: 'https://stackoverflow.com/questions/42584525',
    fate:
      'Holds for what the kernel promises at the fork, and for what is used once every child has written every page. ' +
      'At the fork itself, and for ever if the children only read, 2 GB are used.',
  },
  mechanism: [
    'Four figures are called "memory" here. The commit charge is what was promised: each private writable mapping in ' +
      'full, for each process anew, since each could write all of it [kernel/fork.c: dup_mmap]. It is 9 x 2 = 18 GB ' +
      'from the moment the eighth child is there, and no page has been copied yet.',
    'Resident memory (Rss) counts the pages that a process maps. Shared pages are counted in full by each of the nine, ' +
      'so the sum is 18 GB as well, while the pages are there once. top and ps show this figure.',
    'The proportional set size (Pss) divides each page by the number of its mappers, so that the sum over the tree is ' +
      'what is really used: 2 GB at the fork, and one page more for each first write of a child to a page.',
    'Who looks at which? The heuristic overcommit of a default system looks at none of them. Strict overcommit ' +
      '(vm.overcommit_memory=2) looks at the commit charge, and refuses a fork that would pass CommitLimit. The OOM ' +
      'killer comes when pages that are really used run out.',
  ],
  formula: {
    lines: [
      'commit charge = (children + 1) x size           from the fork on',
      'sum of Rss    = (children + 1) x size           from the fork on',
      'memory used   = size + children x size x share  when each wrote a share',
    ],
    notes: ['For private data that the parent wrote before the fork, and that every child writes by the same share.'],
  },
  figures: [
    ['commit charge', 'Pages of the data that are charged to Committed_AS, over all processes of the tree.'],
    ['sum of Rss', 'Counts a shared page once for each process that maps it.'],
    ['sum of Pss', 'What is really used. Its growth is what was copied.'],
    [
      'available fell',
      'The whole machine, measured only: page tables and whatever others do are in it, so it is never judged.',
    ],
  ],
  practice: [
    'Budget for what the children write, not for what they are: size + children x what each writes.',
    'Add up Pss (smaps_rollup), not Rss, to know what a tree of workers uses.',
    'Under strict overcommit the promise itself must fit: map data MAP_SHARED or read-only, fork early, or mark what children do not need MADV_DONTFORK.',
    'size=2GiB runs the literal case: 18 GiB are really written, so it wants a machine with 20.',
  ],
};
