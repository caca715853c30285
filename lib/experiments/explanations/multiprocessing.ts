import type { Explanation } from './explanation.js';

export const MULTIPROCESSING: Explanation = {
  name: 'multiprocessing',
  question: 'does Pool(8) of a big Python fail with ENOMEM?',
  claim: {
    text: 'A Pool of a parent with a big list gives OSError: [Errno 12] Cannot allocate memory.',
    source: 'https://stackoverflow.com/questions/42584525',
    fate:
      'Holds under strict overcommit, or with one mapping larger than RAM plus swap. On default settings every start ' +
      'method works; what then grows is what workers copy as they look.',
  },
  mechanism: [
    'Pool() starts its workers one after the other. With fork each is os.fork(): the kernel is asked for all accounted ' +
      'memory of the parent again, and what it answers is what `cowlab predict --pid` predicts from smaps before.',
    'With forkserver and spawn Python starts a fresh interpreter first, by _posixsubprocess.fork_exec. Where that uses ' +
      'vfork the child borrows the memory of its parent until execve, so nothing is asked for; the forkserver then forks ' +
      'workers of its own small size.',
    'Forked workers find the list in a global. To add it up they look at every float, whose reference count is written: ' +
      'so they copy the list, page by page (see `cowlab explain refcount`). Fresh workers find no list at all: it would ' +
      'have to be sent to each of them, or shared.',
    'The script is python/pool.py of this package, and runs as you could run it; nothing of Python is replaced. All of ' +
      'its processes are gone in the end, however cowlab ends.',
  ],
  formula: {
    lines: [
      'fork, each worker:  charge = accounted VMAs of the parent',
      'at work (fork):     used  >= list + workers x pages with floats',
      'mode=strict:        refused after as many workers as the limit holds',
    ],
    notes: [
      'mode=strict wants root and --allow-system-changes, or `cowlab vm run multiprocessing --param mode=strict`. The ' +
        'limit is set so that half of the workers can start.',
    ],
  },
  figures: [
    ['Pool()', 'How long the constructor took, or what it raised.'],
    ['before, started, at work', 'Sum of Pss over all Python processes of the tree.'],
    ['elements', 'How many elements of the list a worker finds.'],
    ['errno', '0, or that of the OSError: 12 is ENOMEM.'],
  ],
  practice: [
    'Ask before you fork: `cowlab predict --pid N` says what a fork of a running process would charge, and whether it fails.',
    'Put big data into an array, numpy or shared memory before the Pool is made: it is then neither copied nor sent.',
    'Make the Pool first, and the data afterwards, if workers do not need it.',
    'Under strict overcommit use forkserver or spawn, or raise vm.overcommit_ratio.',
  ],
};
