import type { Explanation } from './explanation.js';

export const SHARED_MEMORY: Explanation = {
  name: 'shared-memory',
  question: 'threads, shared memory or messages? With a lock or without?',
  claim: {
    text:
      'Share by threads or by shared memory; use lock=False when only reading, or all access is serialized; message ' +
      'passing is usually better.',
    source: 'https://stackoverflow.com/questions/14124588',
    fate:
      'Holds for reading: no lock is needed, and with one the readers wait for each other. Without a lock additions are ' +
      'lost, unless they are atomic. Whether messages are better depends on what carries them.',
  },
  mechanism: [
    'A MAP_SHARED mapping (multiprocessing.Value, Array, shared_memory; a memfd) is the same pages for all: nothing is ' +
      'copied, and each sees what the others write. Threads share everything that way.',
    'Adding is a load, an addition and a store. Between the load and the store another may have stored, and its ' +
      'addition is lost. A lock lets one at a time through; an atomic operation is a load and a store that the ' +
      'processor does not let anybody come between.',
    'A lock in shared memory is a word and futex(2): free, it costs a few instructions; taken, the kernel is asked to ' +
      'sleep and to wake. Whoever dies with it would keep the others waiting for ever: so the kernel is told the list ' +
      'of locks that a thread holds, and releases them when it ends (set_robust_list). The next owner is told.',
    'A ring in shared memory passes messages without a system call as long as neither side has to wait. A pipe costs ' +
      'two system calls a message, postMessage a serialization as well.',
  ],
  formula: {
    lines: [
      'lock or atomic:  total = workers x additions',
      'neither:         2 <= total <= workers x additions',
      'private array:   copied pages = pages written, shared array: 0',
    ],
    notes: ['The least total without a lock: all but the very first load and the very last store can be undone.'],
  },
  figures: [
    ['ns', 'What one operation takes a worker, while the others do the same. The slowest worker is shown.'],
    ['lost', 'Additions that are missing from the total, with all workers.'],
    ['exclusive*, shared*', 'Pages of the first worker; it wrote its own part of the array.'],
    ['told to the next', 'How often an owner of the lock learned that the one before had died with it. Once.'],
  ],
  practice: [
    'Read shared data without a lock once it is complete: Array(..., lock=False).',
    'Count with atomic operations: SharedArea of this package, Atomics in Node; in Python with Value.get_lock().',
    'Let each worker have a number of its own, in a cache line of its own, and add them up at the end.',
    'Send few large messages rather than many small ones.',
    'If workers may be killed, use robust locks (PTHREAD_MUTEX_ROBUST). The locks of multiprocessing are semaphores: they stay taken.',
  ],
};
