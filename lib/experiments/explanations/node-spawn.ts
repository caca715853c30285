import type { Explanation } from './explanation.js';

export const NODE_SPAWN: Explanation = {
  name: 'node-spawn',
  question: 'why does child_process.spawn fail in a big Node, and take so long?',
  claim: {
    text: 'child_process.spawn fails with ENOMEM, although only a small program is to be started.',
    source: 'https://github.com/nodejs/node/issues/25382',
    fate: 'Holds: it forks all of Node first. posix_spawn, which needs no copy, neither fails there nor takes longer.',
  },
  mechanism: [
    'To start a program a process makes a child, which then replaces itself by execve(2). libuv makes the child with ' +
      'fork: page tables of all of Node are copied, and all of its private memory is promised anew, only to be thrown ' +
      'away a moment later.',
    'posix_spawn of the C library uses CLONE_VM and CLONE_VFORK: the child runs in the memory of its parent, on a stack ' +
      'of its own, while the parent waits. Nothing is copied, so nothing can be refused.',
    'The refusal is that of fork (see `cowlab explain enomem`): strict overcommit with little room, or one mapping ' +
      'larger than RAM plus swap. The experiment makes such a mapping in this very Node, in two steps and without ' +
      'touching a page of it, and takes it away again.',
  ],
  formula: {
    lines: [
      'child_process.spawn:  time = constant + page tables of what Node has written',
      '                      charge = every accounted VMA of Node',
      'posix_spawn:          time = constant, charge = 0',
    ],
    notes: ['V8 marks its heap MADV_DONTFORK, so that buffers and native memory are what counts.'],
  },
  figures: [
    ['child_process.spawn', 'The call itself, during which Node does nothing else; median of several.'],
    ['spawn of cowlab', 'The same for posix_spawn. It returns when the program is there, so execve is in it.'],
    ['forks beyond RAM plus swap', 'Whether a bare process with such a mapping can fork: predicted by the model.'],
  ],
  practice: [
    "import { spawn } from 'cowlab' has posix_spawn with the descriptors, environment and directory that you choose.",
    'Or start a small helper process early, and let it start programs for the big one.',
    'Keep big data in a worker process of its own rather than in the one that starts programs.',
    'cowlab predict --pid N says whether a fork of a running Node would be refused, and which mapping is to blame.',
  ],
};
