import type { Explanation } from './explanation.js';

export const OOM: Explanation = {
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
