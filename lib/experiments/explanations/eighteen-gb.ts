import type { Explanation } from './explanation.js';

export const EIGHTEEN_GB: Explanation = {
  name: 'eighteen-gb',
  question: 'do a parent of 2 GB and 8 subprocesses need 18 GB?',
  claim: {
    text: 'If the parent uses 2 GB and starts 8 subprocesses, 18 GB are needed.',
    source: 'https://stackoverflow.com/questions/42584525',
    fate:
      'Holds only if one means what is promised (commit charge), or if every child writes to every page. At the fork, ' +
      'and for as long as all only read, 2 GB are used.',
  },
  mechanism: [
    'fork gives the child a copy of the page tables, which point to the same pages [mm/memory.c: copy_page_range]. A ' +
      'page table entry has 8 bytes for a page of 4096, so that eight children of a 2 GB parent cost 32 MiB at once.',
    'What fork does count in full is the promise: each private writable page may be written by each process, and would ' +
      'then need a page of its own [kernel/fork.c: dup_mmap]. That is the 9 x 2 = 18 GB, in Committed_AS. By default ' +
      '(vm.overcommit_memory=0) nobody holds it against you; in strict mode (2) the sum has to fit, and there 18 GB are ' +
      'needed indeed, be they used or not.',
    'Memory is taken when somebody writes, one page at a time [do_wp_page]. The last process that is left with a page ' +
      'keeps the original: so if all nine write everything it is 18 GB, and not 20.',
    'Rss says 18 GB from the start, since each process counts the pages it shares in full. That is what top and ps add ' +
      'up to, and where many an alarm comes from.',
  ],
  formula: {
    lines: [
      'promised   = data x (children + 1)       at the fork, and from then on',
      'used       = data                        at the fork, and while all read',
      'used       = data x (1 + min(writers, children))   when all wrote all',
      'used       = data x 2                    when each wrote its own part',
      'sum of Rss = data x (children + 1)       always: it counts pages again',
    ],
    notes: [
      'For private memory that the parent wrote before the fork. The experiment works at 1/16 of the size; size=2GiB is ' +
        'the case of the question, writes 18 GiB, and is refused where they are not available.',
    ],
  },
  figures: [
    ['promised', 'Lengths of the accounted VMAs ("ac" in smaps) of all: their part of Committed_AS.'],
    ['Rss', 'Pages present, summed over the processes: a page that nine share counts nine times.'],
    ['Pss', 'Each page divided by those who share it: summed over the processes, the memory that they use.'],
    ['taken', 'Growth of the sum of Pss since the parent had its data. Some kB below 0: Pss is rounded down.'],
    [
      'MemAvail.',
      'By how much MemAvailable fell meanwhile. Measured only: it has the page tables and kernel stacks of the children ' +
        'in it, and whatever else the machine does.',
    ],
    ['moment', 'written: by the parent. forked. all read: by every child. 25%...: so much written by each.'],
  ],
  practice: [
    'Budget for the data once, and for what each worker writes of it. Measure that: the growth of the sum of Pss (smaps_rollup).',
    'Do not add up RES of top or ps over workers: shared pages are in it once for each.',
    'Mind who writes without meaning to: see `cowlab explain read-only` for reference counts.',
    'Under strict overcommit (vm.overcommit_memory=2) the promise counts: keep the data in shared memory, which is charged once, or fork before it is loaded.',
    'A limit of a container (memory.max) counts pages taken, not promises: see `cowlab explain oom`.',
  ],
};
