import type { Explanation } from './explanation.js';

export const ENOMEM: Explanation = {
  name: 'enomem',
  question: 'why does fork say "Cannot allocate memory" while RAM is free?',
  claim: {
    text:
      'fork duplicates the whole process, so a parent that uses much memory gets ' +
      'OSError: [Errno 12] Cannot allocate memory.',
    source: 'https://stackoverflow.com/questions/42584525',
    fate:
      'Holds only if the kernel counts strictly (overcommit 2), or is older than 5.2. On default settings today ' +
      'nothing is duplicated, and only a single mapping larger than RAM plus swap is refused.',
  },
  mechanism: [
    'fork copies page tables, not pages: parent and child share every page until one of them writes to it. But each ' +
      'private writable page could be written, and would then need a page of its own. The kernel therefore counts ' +
      'that possible need at once, as a promise of memory ("commit charge"), long before any page is used.',
    'fork walks the mappings (VMAs) of the parent in address order [kernel/fork.c: dup_mmap]. It passes over those ' +
      'marked MADV_DONTFORK. For each one that is accounted ("ac" in the VmFlags of smaps: private and writable ' +
      'memory, heap and stack among it) it asks for the whole length, whether touched or not. The first refusal ends ' +
      'the fork with ENOMEM, and what was charged is given back.',
    'Who refuses is set by vm.overcommit_memory [mm/util.c: __vm_enough_memory]. 0, heuristic, the default: since ' +
      'Linux 5.2 a request is refused only when it alone exceeds all RAM plus swap. Free memory, the number of ' +
      'children and what was promised before do not matter. 1, always: nothing is refused. 2, never: the sum of all ' +
      'promises must stay below CommitLimit, and a fork fails with most of the RAM free.',
    'Before 5.2, mode 0 compared each request with what looked free (free pages, page cache, free swap, reclaimable ' +
      'slab, less some reserves). That is the kernel of the question above: a big parent on a busy host did fail.',
  ],
  formula: {
    lines: [
      'mode 0, each VMA alone:  pages of the VMA <= MemTotal + SwapTotal',
      '',
      'mode 2, VMA after VMA:   Committed_AS with the VMA < CommitLimit',
      '                           - admin_reserve (without CAP_SYS_ADMIN)',
      '                           - min(total_vm / 32, user_reserve)',
      '                         CommitLimit = (RAM - hugetlb) x ratio / 100 + swap',
    ],
    notes: [
      'mode=strict (root, --allow-system-changes) sets mode 2 and forks until one is refused. The kernel adds up ' +
        'Committed_AS in a part for each CPU and looks only at what has been brought together; the parts are brought ' +
        'together right before each fork, so that the refusal is predicted to the page. Small VMAs at the end of the ' +
        'walk stay unseen until they make a batch (RAM / CPUs / 256): by less than that the limit may be passed.',
      'All in pages. The experiment grows one VMA with mremap, without touching it, and finds by bisection the exact ' +
        'page count at which fork begins to fail.',
    ],
  },
  figures: [
    [
      'largest VMA that forks',
      'Predicted: MemTotal + SwapTotal, by the rule. Measured: found by bisection; one page more gave ENOMEM. ' +
        'The two are equal, or something is wrong with the rule.',
    ],
    [
      'children that start in mode 2',
      'mode=strict: how many forks are granted, with mode 0 and mode 1 beside it. The memory in use is the same in all.',
    ],
    [
      'margin',
      'mode=strict: pages that the fork could have been charged more; negative, the pages it was too many. As the ' +
        'check sees it: Committed_AS before, what is asked, CommitLimit less the reserves.',
    ],
    ['in two VMAs', 'The same pages and one more, in two VMAs: fork works, since each is judged alone.'],
    ['MADV_DONTFORK', 'A page so marked is neither copied nor asked for: what is left is just small enough.'],
    [
      'MAP_NORESERVE',
      'A MAP_NORESERVE mapping is not accounted in modes 0 and 1: fork works. Mode 2 ignores the flag.',
    ],
  ],
  practice: [
    "Ask first: 'cowlab predict --pid N' adds up what a fork of that process would charge and says whether it would succeed.",
    'To start another program use posix_spawn or vfork: they copy no page tables and charge nothing, at any size of the parent.',
    'Fork workers before the data is loaded (a fork server), so that there is little to charge.',
    'Keep data for all workers in shared mappings (MAP_SHARED, memfd, shared_memory): they are charged once and not again at fork.',
    'Mark what children never need with MADV_DONTFORK. Mappings that are read-only from the start are not charged.',
    'Under overcommit 2, add swap: it raises CommitLimit by its full size even if it is never used. Or raise vm.overcommit_ratio.',
    'To see it without touching this machine: cowlab vm run enomem --param mode=strict --param size=256MiB.',
    'Overcommit 1 ends the refusals, and leaves a host that really runs out to the OOM killer.',
    'ENOMEM can also come from a PID namespace whose init has gone, or from a memory cgroup. EAGAIN is never about this: it is a limit on the number of tasks (RLIMIT_NPROC, pids.max, threads-max, pid_max).',
  ],
};
