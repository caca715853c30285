/**
 * Why did fork fail? ENOMEM and EAGAIN have a dozen causes between them that the errno does not tell apart. Here each
 * is judged from what /proc and the cgroups show *after* the failure, so a limit that was full for a moment only is
 * 'possible' at most. The order is that of the kernel [kernel/fork.c: copy_process, dup_mmap; kernel/pid.c: alloc_pid].
 */
import type { ProcessCgroups, CgroupLimit } from './cgroup.js';
import { tightest } from './cgroup.js';

export type ForkErrno = 'ENOMEM' | 'EAGAIN';

/** Whether the cause explains the failure: shown by the figures, not ruled out by them, or ruled out. */
export type Likelihood = 'certain' | 'possible' | 'excluded';

export type CauseName =
  | 'overcommit'
  | 'pid-namespace-without-init'
  | 'cgroup-memory'
  | 'kernel-memory'
  | 'max-map-count'
  | 'rlimit-nproc'
  | 'cgroup-pids'
  | 'threads-max'
  | 'pid-max'
  | 'deadline-scheduling';

export interface ForkFailureCause {
  cause: CauseName;
  likelihood: Likelihood;
  /** One sentence with the figures it rests on. */
  evidence: string;
  /** What would help; absent where the cause is excluded. */
  remedy?: string;
}

export interface ForkFailure {
  errno: ForkErrno;
  /** The most likely first; every cause of this errno is listed. */
  causes: ForkFailureCause[];
  /** One sentence for an error message. */
  summary: string;
}

/** What the commit rules say of this fork (machine/model/admission.ts), handed in since this layer lies below it. */
export interface AdmissionVerdict {
  /** 'uncertain' where the kernel's own counter is not exact (MODEL.md rule 14). */
  fork: 'admitted' | 'refused' | 'uncertain';
  /** The rule with its figures, as a sentence. */
  why: string;
  remedy?: string;
}

/** What is known of the PID namespace that children would be born into. */
export type ChildPidNamespace =
  /** The process's own, whose init therefore lives. */
  | 'own'
  /** Made by unshare and still empty: the next child will be its init. */
  | 'empty'
  /** Another one, with a live process seen in it. */
  | 'alive'
  /** Another one, and no live process is in it. */
  | 'dead'
  | 'unknown';

/** Plain figures; undefined is unknown, Infinity no limit. */
export interface ForkFailureEvidence {
  pid: number;
  /** Undefined when the rules were not asked. */
  admission: AdmissionVerdict | undefined;
  childPidNamespace: ChildPidNamespace;
  /** VMAs of the process. */
  mapCount: number | undefined;
  maxMapCount: number | undefined;
  cgroups: ProcessCgroups | undefined;
  memAvailableBytes: number | undefined;
  /** What the fork needs of the kernel itself: page tables, stack and structures, as an estimate from VmPTE. */
  kernelBytesNeeded: number | undefined;
  /** Real user, as seen here. */
  uid: number | undefined;
  /** RLIMIT_NPROC, soft. */
  nprocLimit: number | undefined;
  /** Tasks (threads too) of that real user that /proc shows. */
  userTasks: number | undefined;
  /** Exempt from RLIMIT_NPROC: the real root user, or CAP_SYS_RESOURCE or CAP_SYS_ADMIN in the initial user namespace. */
  nprocExempt: boolean | undefined;
  /** All tasks of the user are seen: initial PID and user namespace, and no hidepid. */
  allTasksVisible: boolean;
  /** Tasks of the whole system, from /proc/loadavg. */
  systemTasks: number | undefined;
  threadsMax: number | undefined;
  pidMax: number | undefined;
  /** SCHED_ policy of the forking thread; 6 is DEADLINE. */
  schedulingPolicy: number | undefined;
}

type Judgement = Omit<ForkFailureCause, 'cause'>;

const show = (value: number | undefined): string =>
  value === undefined ? 'unknown' : value === Infinity ? 'unlimited' : String(value);

const mib = (bytes: number | undefined): string =>
  bytes === undefined ? 'unknown' : `${(bytes / 2 ** 20).toFixed(1)} MiB`;

function overcommit({ admission }: ForkFailureEvidence): Judgement {
  const remedy =
    admission?.remedy ??
    'Start the child with posix_spawn or vfork, which copy nothing; or give big mappings MADV_DONTFORK; ' +
      'or fork before the memory is mapped (a fork server).';
  if (!admission) return { likelihood: 'possible', evidence: 'The commit rules were not evaluated.', remedy };
  if (admission.fork === 'admitted') return { likelihood: 'excluded', evidence: admission.why };
  return { likelihood: admission.fork === 'refused' ? 'certain' : 'possible', evidence: admission.why, remedy };
}

/** alloc_pid refuses with ENOMEM, not EAGAIN, once the namespace's init has gone; "it is documented" [kernel/pid.c]. */
function pidNamespace({ childPidNamespace }: ForkFailureEvidence): Judgement {
  const remedy =
    'Call unshare(CLONE_NEWPID) again, or keep the first child (its init) alive as long as others are to be forked.';
  switch (childPidNamespace) {
    case 'own':
      return {
        likelihood: 'excluded',
        evidence: "Children are born into the process's own PID namespace, whose init lives.",
      };
    case 'empty':
      return {
        likelihood: 'excluded',
        evidence: 'Children are born into a PID namespace that is still empty: the next one is its init.',
      };
    case 'alive':
      return {
        likelihood: 'excluded',
        evidence: 'Children are born into another PID namespace, in which processes live.',
      };
    case 'dead':
      return {
        likelihood: 'certain',
        evidence:
          'Children are born into a PID namespace (ns/pid_for_children) whose init has ended: it takes no process any more.',
        remedy,
      };
    case 'unknown':
      return {
        likelihood: 'possible',
        evidence: 'Whether the PID namespace of the children (ns/pid_for_children) has an init could not be read.',
        remedy,
      };
  }
}

/** dup_mmap counts the child's VMAs and compares them with nothing: seen on 6.18 with 65,530 VMAs of 65,530. */
function maxMapCount({ mapCount, maxMapCount: limit }: ForkFailureEvidence): Judgement {
  const figures = `The process has ${show(mapCount)} VMAs of vm.max_map_count ${show(limit)}`;
  if (mapCount === undefined || limit === undefined || mapCount >= limit) {
    return {
      likelihood: 'possible',
      evidence: `${figures}; fork itself does not check this, but mmap, mprotect and the stack of a thread near it get ENOMEM.`,
      remedy: 'Find which call failed (strace -f); raise vm.max_map_count, or map fewer and larger areas.',
    };
  }
  return { likelihood: 'excluded', evidence: `${figures}, and fork itself does not check this.` };
}

/** Page tables, stacks and task structures are charged to the cgroup (GFP_KERNEL_ACCOUNT). */
function cgroupMemory({ cgroups, kernelBytesNeeded }: ForkFailureEvidence): Judgement {
  const remedy = 'Raise the memory limit of the cgroup (memory.max, memory.limit_in_bytes) or free memory in it.';
  if (!cgroups) return { likelihood: 'possible', evidence: 'The memory cgroup could not be read.', remedy };
  const found = [tightest(cgroups.memory), tightest(cgroups.kernelMemory)].filter((limit) => limit !== undefined);
  if (found.length === 0) {
    const evidence =
      cgroups.memory.version === 'none'
        ? 'No memory cgroup is seen here.'
        : 'No memory limit is set in the cgroups seen here.';
    return { likelihood: 'excluded', evidence };
  }
  const roomless = found.find(({ limit, used }) => used === undefined || limit - used < (kernelBytesNeeded ?? 0));
  const shown = roomless ?? found[0];
  const evidence = shown
    ? `${shown.directory} uses ${mib(shown.used)} of ${mib(shown.limit)}; the fork needs about ${mib(kernelBytesNeeded)} of kernel memory.`
    : '';
  return roomless ? { likelihood: 'possible', evidence, remedy } : { likelihood: 'excluded', evidence };
}

function kernelMemory({ memAvailableBytes, kernelBytesNeeded }: ForkFailureEvidence): Judgement {
  const evidence = `The fork needs about ${mib(kernelBytesNeeded)} of kernel memory for page tables; ${mib(memAvailableBytes)} are available.`;
  const enough =
    memAvailableBytes !== undefined && kernelBytesNeeded !== undefined && memAvailableBytes > kernelBytesNeeded;
  if (enough) return { likelihood: 'excluded', evidence };
  return { likelihood: 'possible', evidence, remedy: 'Free memory or add swap; huge pages need fewer page tables.' };
}

/** copy_process: refused when the user's tasks, this one included, would exceed the limit. */
function rlimitNproc(evidence: ForkFailureEvidence): Judgement {
  const { uid, nprocLimit, userTasks, nprocExempt, allTasksVisible } = evidence;
  const figures = `User ${show(uid)} has ${show(userTasks)} tasks (threads count) of RLIMIT_NPROC ${show(nprocLimit)}`;
  if (nprocExempt === true) {
    return {
      likelihood: 'excluded',
      evidence: `${figures}, and the process is exempt (root, CAP_SYS_RESOURCE or CAP_SYS_ADMIN).`,
    };
  }
  if (nprocLimit === Infinity) return { likelihood: 'excluded', evidence: `${figures}.` };
  const remedy =
    "End other processes of this user, or raise the limit (ulimit -u, 'nproc' in limits.conf, LimitNPROC=).";
  if (nprocLimit === undefined || userTasks === undefined)
    return { likelihood: 'possible', evidence: `${figures}.`, remedy };
  if (userTasks + 1 > nprocLimit) {
    return { likelihood: nprocExempt === false ? 'certain' : 'possible', evidence: `${figures}.`, remedy };
  }
  if (allTasksVisible) return { likelihood: 'excluded', evidence: `${figures}.` };
  return {
    likelihood: 'possible',
    evidence: `${figures}; tasks of the same user in other containers count too and are not seen here.`,
    remedy,
  };
}

/** pids_can_fork: refused when any cgroup up to the root would exceed its pids.max. */
function cgroupPids({ cgroups }: ForkFailureEvidence): Judgement {
  const remedy = 'Raise pids.max of that cgroup (systemd: TasksMax=, docker: --pids-limit), or end tasks in it.';
  if (!cgroups) return { likelihood: 'possible', evidence: 'The pids cgroup could not be read.', remedy };
  const { pids } = cgroups;
  const limit = tightest(pids);
  if (!limit) {
    const evidence =
      pids.version === 'none' ? 'No pids cgroup is seen here.' : 'No pids.max is set in the cgroups seen here.';
    return { likelihood: 'excluded', evidence };
  }
  const evidence = describePids(limit);
  if (limit.used === undefined) return { likelihood: 'possible', evidence, remedy };
  if (limit.used + 1 > limit.limit) return { likelihood: 'certain', evidence, remedy };
  return (limit.hits ?? 0) > 0 ? { likelihood: 'possible', evidence, remedy } : { likelihood: 'excluded', evidence };
}

function describePids({ directory, limit, used, hits }: CgroupLimit): string {
  const events = hits === undefined ? '' : `, and has refused ${String(hits)} forks since it was made`;
  return `${directory} has ${show(used)} tasks of pids.max ${show(limit)}${events}.`;
}

function threadsMax({ systemTasks, threadsMax: limit }: ForkFailureEvidence): Judgement {
  const evidence = `The system has ${show(systemTasks)} tasks of kernel.threads-max ${show(limit)}.`;
  const remedy = 'End processes or threads, or raise kernel.threads-max.';
  if (systemTasks === undefined || limit === undefined) return { likelihood: 'possible', evidence, remedy };
  return systemTasks >= limit ? { likelihood: 'certain', evidence, remedy } : { likelihood: 'excluded', evidence };
}

/** A pid stays taken while it names a task, a process group or a session, so tasks are a lower bound. */
function pidMax({ systemTasks, pidMax: limit }: ForkFailureEvidence): Judgement {
  const evidence = `The system has ${show(systemTasks)} tasks of kernel.pid_max ${show(limit)} (zombies and groups hold pids too).`;
  const remedy = 'Reap zombies, end processes, or raise kernel.pid_max.';
  if (systemTasks === undefined || limit === undefined) return { likelihood: 'possible', evidence, remedy };
  // Pids below 300 are kept for the system once numbers have wrapped [kernel/pid.c: RESERVED_PIDS].
  if (systemTasks + 300 >= limit) return { likelihood: 'possible', evidence, remedy };
  return { likelihood: 'excluded', evidence };
}

/** sched_fork: EAGAIN for a SCHED_DEADLINE thread without the reset-on-fork flag, which /proc does not show. */
function deadline({ schedulingPolicy }: ForkFailureEvidence): Judgement {
  if (schedulingPolicy === undefined || schedulingPolicy === 6) {
    return {
      likelihood: 'possible',
      evidence: `The scheduling policy is ${schedulingPolicy === 6 ? 'SCHED_DEADLINE, which may not fork without the reset-on-fork flag' : 'unknown'}.`,
      remedy: 'Set SCHED_FLAG_RESET_ON_FORK (sched_setattr), or fork from a thread of another policy.',
    };
  }
  return { likelihood: 'excluded', evidence: 'The thread is not under SCHED_DEADLINE.' };
}

const CAUSES: Record<ForkErrno, [CauseName, (evidence: ForkFailureEvidence) => Judgement][]> = {
  ENOMEM: [
    ['overcommit', overcommit],
    ['pid-namespace-without-init', pidNamespace],
    ['cgroup-memory', cgroupMemory],
    ['kernel-memory', kernelMemory],
    ['max-map-count', maxMapCount],
  ],
  EAGAIN: [
    ['rlimit-nproc', rlimitNproc],
    ['cgroup-pids', cgroupPids],
    ['threads-max', threadsMax],
    ['pid-max', pidMax],
    ['deadline-scheduling', deadline],
  ],
};

const RANK: Record<Likelihood, number> = { certain: 0, possible: 1, excluded: 2 };

/**
 * Judges every cause of one errno of fork from the evidence. Pure.
 * @param errno What fork(2) said; no other errno has causes worth telling apart.
 */
export function explainForkFailure(errno: ForkErrno, evidence: ForkFailureEvidence): ForkFailure {
  const causes = CAUSES[errno].map(([cause, judge]): ForkFailureCause => ({ cause, ...judge(evidence) }));
  causes.sort((a, b) => RANK[a.likelihood] - RANK[b.likelihood]);
  const open = causes.filter(({ likelihood }) => likelihood !== 'excluded');
  const first = open[0];
  let summary: string;
  if (!first)
    summary = `No cause of ${errno} that cowlab knows is still seen: the limit may have been full for a moment only.`;
  else if (first.likelihood === 'certain') summary = first.evidence;
  else summary = `Not certain; possible causes of ${errno}: ${open.map(({ cause }) => cause).join(', ')}.`;
  return { errno, causes, summary };
}
