/** What `cowlab explain` says of each experiment, as data. */

export interface Explanation {
  /** Name of the experiment. */
  name: string;
  question: string;
  claim: {
    text: string;
    /** Where it was said. */
    source: string;
    /** What becomes of it when it is tried. */
    fate: string;
  };
  /** Paragraphs. */
  mechanism: readonly string[];
  formula: {
    /** Shown as they stand; at most 76 columns. */
    lines: readonly string[];
    notes: readonly string[];
  };
  /** [what the table or the JSON calls it, what it means]. */
  figures: readonly (readonly [figure: string, meaning: string])[];
  practice: readonly string[];
}

const ENOMEM: Explanation = {
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

const COW_GROWTH: Explanation = {
  name: 'cow-growth',
  question: 'how does memory grow as forked children write?',
  claim: {
    text:
      'With a copy-on-write fork, data that is never altered costs nothing in the children; private memory grows ' +
      'exactly as children write.',
    source: 'https://stackoverflow.com/questions/10721915',
    fate: 'Holds, page by page: reading copies nothing, and each first write to a shared page copies that one page.',
  },
  mechanism: [
    'After fork, parent and child map the same pages, and the page tables of both lose the right to write to private ' +
      'ones [mm/memory.c: copy_present_ptes]. Reading goes on as before and faults not.',
    'The first write to such a page, by either side, is a minor fault [do_wp_page]. If another process still maps the ' +
      'page, the kernel copies 4 KiB and gives the writer the copy. If nobody else does, the writer is given the page ' +
      'itself ("reuse"): a fault, and no copy. So the last of all owners never copies.',
    'A copy changes the figures of two processes. The writer has a page of its own; and where only one other process ' +
      'is left with the original, that page now counts as private there too. Adding up Private_Dirty over the tree ' +
      'counts such a copy twice. Pss does not: each page gives every mapper an equal part, so that the sum over the ' +
      'tree is the memory really used, and its growth is what was really copied.',
    'A shared mapping is never copied: children write into the same pages, and the sum of Pss stays.',
  ],
  formula: {
    lines: [
      'copies of one page = min(processes that wrote to it, processes - 1)',
      'copied bytes       = growth of the sum of Pss over the tree',
      'Pss of a VMA       = sum over its pages of (page size / mappers of the page)',
    ],
    notes: [
      'For private memory written before the fork, with every process of the tree still alive; "processes" are those ' +
        'that share the page, the parent included. The kernel rounds Pss down to a whole kB for each VMA, which is ' +
        'why a tree may show some kB less than its pages.',
    ],
  },
  figures: [
    ['exclusive', 'Pages that this process alone maps: written since the fork, or left behind by the others.'],
    ['shared', 'Pages mapped more than once. They cost their size once, whatever Rss says.'],
    ['zero', 'Read but never written: the one zero page of the kernel. Costs nothing and is in no figure of smaps.'],
    ['not-present', 'Never touched in this process. Costs nothing.'],
    ['swapped', 'In swap. A run in which pages go there is not exact and is called inconclusive.'],
    ['Rss', 'All pages present, shared ones in full. Summed over processes it counts them again and again.'],
    ['Pss', 'The fair part: shared pages divided by their mappers. Sums over a tree are true.'],
    ['Private_Dirty', 'Exclusive pages that were written: what would be freed if this process ended now.'],
    ['Shared_Dirty', 'Written pages mapped more than once: what may still have to be copied.'],
    ['minor faults', 'One for each first write to a shared page, whether it copied or reused.'],
  ],
  practice: [
    'Judge a tree of workers by the sum of Pss (smaps_rollup), never by the sum of Rss.',
    'Load what all workers read before they are forked, and then leave it alone. The budget for the rest is what they write.',
    'Mind hidden writes: CPython stores a reference count in every object, so that reading an object writes to its page; gc.freeze() before the fork keeps the collector from writing too.',
    'Keep what changes apart from what does not: one write copies a whole page, and scattered writes copy all of them.',
    'A parent that forks to save a snapshot (databases do) needs room for every page that is written while the child lives; in the worst case all of them.',
    'Let short-lived children end: the pages they held become exclusive again, and the next write to each costs a fault and no copy.',
    'Memory that is meant to be written by all belongs in a shared mapping.',
  ],
};

const OOM: Explanation = {
  name: 'oom',
  question: 'who is killed when forked children write what they were promised?',
  claim: {
    text: 'Each child was granted its memory by fork, so each can use it.',
    source: 'https://docs.kernel.org/mm/overcommit-accounting.html',
    fate:
      'Refuted. fork promises addresses, not pages. When the pages are wanted and the limit is reached, no call fails: ' +
      'a process is killed, and it need not be the one that wrote.',
  },
  mechanism: [
    'A copy is made by a page fault in the middle of an ordinary store, which has no way to report an error. So when no ' +
      'page may be had, somebody has to give up memory. In a cgroup with a limit (memory.max) each page is charged to ' +
      'the cgroup of whoever touches it first [mm/memcontrol.c: try_charge]. At the limit the kernel tries to reclaim; ' +
      'without swap, anonymous pages cannot be, and it calls the OOM killer for that cgroup alone.',
    'The OOM killer takes the process with the most points [mm/oom_kill.c: oom_badness]: resident pages, swap and page ' +
      'tables, and oom_score_adj. Resident pages count in full, shared ones too. A copy does not change them: the writer ' +
      'had mapped the page before. So the one that copies is not for that reason the one that is killed.',
    'What the victim alone had is free after it; pages that it shared stay with the others, who then need fewer copies.',
    'The number of tasks is another limit, pids.max: a fork beyond it fails at once with EAGAIN, never with ENOMEM, and ' +
      'works again when a task has ended [kernel/cgroup/pids.c].',
  ],
  formula: {
    lines: [
      'killed in a write if:  charged + pages newly taken > limit',
      'newly taken:           pages copied, and pages touched for the first time',
      'who:                   the greatest  RSS + swap + page tables',
    ],
    notes: [
      'In pages. Kernel memory (page tables, stacks, slab) is charged too, and each CPU may hold up to 64 pages that are ' +
        'charged in advance. So what is charged is read before each write, and the page at which the kill comes is ' +
        'predicted as a range. Where two processes are nearer in size than the counters of the kernel are exact to, ' +
        'the victim is called unknown.',
    ],
  },
  figures: [
    ['processes killed', 'By the OOM killer of the cgroup, in which nobody but the measured processes is.'],
    ['calls that were refused', 'None: each fork was granted, and a store cannot be refused.'],
    ['first victim', '0 is the parent, else the number of the child.'],
    ['writer meanwhile', 'Who needed the page that was one too many.'],
    ['pages left', 'The limit less what was charged when the fatal share began: so many pages could still be copied.'],
  ],
  practice: [
    'Size a limit for what workers write, not for what they are at the fork: data, copies of each, and some kernel memory.',
    'The big parent is the first to go. Give helpers oom_score_adj +1000 (allowed to all), so that they go before it.',
    'memory.oom.group=1 (v2) kills the whole cgroup at once, if half a tree of workers is of no use.',
    'Watch memory.events: "max" counts how often the limit was met, "oom_kill" how many were killed for it.',
    'EAGAIN from fork is about tasks (pids.max, RLIMIT_NPROC): no memory cures it.',
  ],
};

export const EXPLANATIONS: readonly Explanation[] = [ENOMEM, COW_GROWTH, OOM];
