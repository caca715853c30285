import type { Explanation } from './explanation.js';

export const START_METHODS: Explanation = {
  name: 'start-methods',
  question: 'fork, forkserver or spawn: what do they cost?',
  claim: {
    text: 'Use forkserver or spawn instead of fork, which avoids its memory and starts a bit slower.',
    source: 'https://stackoverflow.com/questions/42584525',
    fate:
      'Holds for the start: both work where fork is refused. It does not hold for the data: what is sent to workers is ' +
      'copied for each of them, while fork inherits it for nothing and a shared mapping has it once.',
  },
  mechanism: [
    'fork: the worker is a copy of the parent that shares its pages. The whole parent is promised anew (commit charge) ' +
      'and its page tables are copied, which takes longer the more memory the parent has. Its data is there at once.',
    'forkserver: a process that was forked before the data existed does the forking. What its workers are charged and ' +
      'what is copied is that small process. They know nothing of the data.',
    'spawn: a fresh interpreter by posix_spawn, which shares the memory of the parent until execve(2) has put the ' +
      'program there (CLONE_VM with CLONE_VFORK) and is charged nothing for it. It starts from nothing: the ' +
      'interpreter, its modules, and then the data.',
    'Pool.map(partial(func, matrix), ...) puts the matrix into every task: it is pickled, written into a pipe, read and ' +
      'unpickled by the worker, with any start method. With fork this loses the very thing fork is good at. A function ' +
      'that finds the data in a global inherits it.',
    'A memfd, or a file in /dev/shm (multiprocessing.shared_memory), is the same pages for all, whoever started them.',
  ],
  formula: {
    lines: [
      'inherited (fork):  used = size              charge = (workers + 1) x size',
      'sent (any method): used = (workers + 1) x size',
      'shared (memfd):    used = size              charge = 0 at fork',
      'fork with data sent: charge as if inherited, plus what is sent',
    ],
    notes: ['For workers that only read. What they write to private memory comes on top.'],
  },
  figures: [
    ['at the start', 'Sum of Pss of the data over parent and workers, when the pool is there.'],
    ['at work', 'The same once each worker has the data and has read all of it.'],
    ['commit charge', 'Pages of the data that are promised, over the whole tree.'],
    ['the call', 'How long the parent waits for fork or posix_spawn.'],
    ['until it answers', 'Until the worker has carried out its first command.'],
    ['memory of its own', 'Private pages of a worker before it does anything.'],
  ],
  practice: [
    'Linux, and data that is there already: fork, and let workers find it in a global. Send indices, not data.',
    'Where fork is refused, or threads are running: forkserver, started first of all, or spawn, with data in shared memory.',
    'Python 3.14 makes forkserver the default: what used to be inherited must then be sent or shared.',
    'Do not put data into partial() or into the arguments of tasks: it is copied once for each worker or task.',
  ],
};
