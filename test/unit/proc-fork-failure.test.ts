import { describe, expect, it } from 'vitest';
import type { CgroupLimits } from '../../lib/proc/cgroup.js';
import { parseSystemTasks } from '../../lib/proc/fork-evidence.js';
import {
  explainForkFailure,
  type CauseName,
  type ForkErrno,
  type ForkFailureCause,
  type ForkFailureEvidence,
} from '../../lib/proc/fork-failure.js';

const NO_LIMIT: CgroupLimits = { version: 'v2', directory: '/cg', limits: [] };
const limited = (limit: number, used: number | undefined, hits?: number): CgroupLimits => ({
  version: 'v2',
  directory: '/cg/a',
  limits: [{ directory: '/cg/a', limit, used, hits }],
});

/** A process that nothing keeps from forking. */
const FREE: ForkFailureEvidence = {
  pid: 1234,
  admission: { fork: 'admitted', why: 'Mode 0 admits it.' },
  childPidNamespace: 'own',
  mapCount: 101,
  maxMapCount: 65530,
  cgroups: { pids: NO_LIMIT, memory: NO_LIMIT, kernelMemory: { ...NO_LIMIT, version: 'none' } },
  memAvailableBytes: 2 ** 30,
  kernelBytesNeeded: 2 ** 20,
  uid: 1000,
  nprocLimit: 500,
  userTasks: 102,
  nprocExempt: false,
  allTasksVisible: true,
  systemTasks: 103,
  threadsMax: 1000,
  pidMax: 32768,
  schedulingPolicy: 0,
};

function judge(errno: ForkErrno, cause: CauseName, change: Partial<ForkFailureEvidence>): ForkFailureCause {
  const found = explainForkFailure(errno, { ...FREE, ...change }).causes.find((candidate) => candidate.cause === cause);
  if (!found) throw new Error(`${cause} is no cause of ${errno}`);
  return found;
}

describe('a fork that nothing keeps back', () => {
  it.each(['ENOMEM', 'EAGAIN'] as const)(
    'has every cause of %s excluded, with evidence and without remedy',
    (errno) => {
      const { causes, summary } = explainForkFailure(errno, FREE);
      expect(causes).toHaveLength(5);
      for (const cause of causes) {
        expect(cause.likelihood).toBe('excluded');
        expect(cause.evidence).not.toBe('');
        expect(cause).not.toHaveProperty('remedy');
      }
      expect(summary).toContain('for a moment only');
    },
  );

  it('ENOMEM and EAGAIN share no cause', () => {
    const names = (errno: ForkErrno) => explainForkFailure(errno, FREE).causes.map(({ cause }) => cause);
    expect(names('ENOMEM').filter((cause) => names('EAGAIN').includes(cause))).toEqual([]);
  });
});

describe('ENOMEM', () => {
  it('is the commit rules when they refuse, and the summary is their sentence', () => {
    const admission = { fork: 'refused', why: 'One VMA of 7 pages exceeds 6.' } as const;
    const { causes, summary } = explainForkFailure('ENOMEM', { ...FREE, admission });
    expect(causes[0]).toMatchObject({ cause: 'overcommit', likelihood: 'certain', evidence: admission.why });
    expect(causes[0]?.remedy).toContain('posix_spawn');
    expect(summary).toBe(admission.why);
  });

  it('is possibly the commit rules when they are uncertain or were not asked', () => {
    expect(judge('ENOMEM', 'overcommit', { admission: { fork: 'uncertain', why: 'x' } }).likelihood).toBe('possible');
    expect(judge('ENOMEM', 'overcommit', { admission: undefined }).likelihood).toBe('possible');
  });

  it.each([
    ['dead', 'certain'],
    ['unknown', 'possible'],
    ['alive', 'excluded'],
    ['empty', 'excluded'],
    ['own', 'excluded'],
  ] as const)(
    'with a PID namespace for children that is %s, is %s to be its missing init',
    (childPidNamespace, likelihood) => {
      expect(judge('ENOMEM', 'pid-namespace-without-init', { childPidNamespace }).likelihood).toBe(likelihood);
    },
  );

  it('is possibly a memory cgroup with less room than the fork needs', () => {
    const cgroups = { pids: NO_LIMIT, kernelMemory: NO_LIMIT };
    const full = judge('ENOMEM', 'cgroup-memory', {
      cgroups: { ...cgroups, memory: limited(50 * 2 ** 20, 49.5 * 2 ** 20) },
    });
    expect(full).toMatchObject({ likelihood: 'possible' });
    expect(full.evidence).toBe('/cg/a uses 49.5 MiB of 50.0 MiB; the fork needs about 1.0 MiB of kernel memory.');
    const roomy = judge('ENOMEM', 'cgroup-memory', {
      cgroups: { ...cgroups, memory: limited(50 * 2 ** 20, 48 * 2 ** 20) },
    });
    expect(roomy.likelihood).toBe('excluded');
  });

  it('is possibly the kernel memory limit of cgroup v1', () => {
    const cgroups = { pids: NO_LIMIT, memory: NO_LIMIT, kernelMemory: limited(2 ** 20, 2 ** 20) };
    expect(judge('ENOMEM', 'cgroup-memory', { cgroups }).likelihood).toBe('possible');
  });

  it('cannot exclude a cgroup that could not be read', () => {
    expect(judge('ENOMEM', 'cgroup-memory', { cgroups: undefined }).likelihood).toBe('possible');
  });

  it('is possibly a lack of memory for the page tables', () => {
    expect(judge('ENOMEM', 'kernel-memory', { memAvailableBytes: 2 ** 19 }).likelihood).toBe('possible');
    expect(judge('ENOMEM', 'kernel-memory', { memAvailableBytes: undefined }).likelihood).toBe('possible');
  });

  it('at max_map_count is possible of a call beside fork only, and says so', () => {
    const at = judge('ENOMEM', 'max-map-count', { mapCount: 65530 });
    expect(at.likelihood).toBe('possible');
    expect(at.evidence).toContain('fork itself does not check this');
    expect(judge('ENOMEM', 'max-map-count', { mapCount: 65529 }).likelihood).toBe('excluded');
  });
});

describe('EAGAIN', () => {
  it('is RLIMIT_NPROC when one more task would exceed it', () => {
    expect(judge('EAGAIN', 'rlimit-nproc', { nprocLimit: 103 }).likelihood).toBe('excluded');
    const full = judge('EAGAIN', 'rlimit-nproc', { nprocLimit: 102 });
    expect(full.likelihood).toBe('certain');
    expect(full.evidence).toBe('User 1000 has 102 tasks (threads count) of RLIMIT_NPROC 102.');
  });

  it('is not RLIMIT_NPROC for who is exempt, and only possibly where that is unknown', () => {
    expect(judge('EAGAIN', 'rlimit-nproc', { nprocLimit: 1, nprocExempt: true }).likelihood).toBe('excluded');
    expect(judge('EAGAIN', 'rlimit-nproc', { nprocLimit: 1, nprocExempt: undefined }).likelihood).toBe('possible');
  });

  it('cannot exclude RLIMIT_NPROC where tasks of the user are hidden, unless it is unlimited', () => {
    expect(judge('EAGAIN', 'rlimit-nproc', { allTasksVisible: false }).likelihood).toBe('possible');
    expect(judge('EAGAIN', 'rlimit-nproc', { allTasksVisible: false, nprocLimit: Infinity }).likelihood).toBe(
      'excluded',
    );
    expect(judge('EAGAIN', 'rlimit-nproc', { userTasks: undefined }).likelihood).toBe('possible');
  });

  it('is pids.max when one more task would exceed it', () => {
    const cgroups = { memory: NO_LIMIT, kernelMemory: NO_LIMIT };
    const full = judge('EAGAIN', 'cgroup-pids', { cgroups: { ...cgroups, pids: limited(21, 21, 3) } });
    expect(full.likelihood).toBe('certain');
    expect(full.evidence).toBe('/cg/a has 21 tasks of pids.max 21, and has refused 3 forks since it was made.');
    expect(judge('EAGAIN', 'cgroup-pids', { cgroups: { ...cgroups, pids: limited(22, 21, 0) } }).likelihood).toBe(
      'excluded',
    );
  });

  it('is possibly pids.max when it has refused forks, or its use is unknown', () => {
    const cgroups = { memory: NO_LIMIT, kernelMemory: NO_LIMIT };
    expect(judge('EAGAIN', 'cgroup-pids', { cgroups: { ...cgroups, pids: limited(22, 1, 4) } }).likelihood).toBe(
      'possible',
    );
    expect(judge('EAGAIN', 'cgroup-pids', { cgroups: { ...cgroups, pids: limited(22, undefined) } }).likelihood).toBe(
      'possible',
    );
    expect(judge('EAGAIN', 'cgroup-pids', { cgroups: undefined }).likelihood).toBe('possible');
  });

  it('is kernel.threads-max when the system has that many tasks', () => {
    expect(judge('EAGAIN', 'threads-max', { threadsMax: 103 }).likelihood).toBe('certain');
    expect(judge('EAGAIN', 'threads-max', { threadsMax: 104 }).likelihood).toBe('excluded');
    expect(judge('EAGAIN', 'threads-max', { systemTasks: undefined }).likelihood).toBe('possible');
  });

  it('is possibly kernel.pid_max when the tasks come near it', () => {
    expect(judge('EAGAIN', 'pid-max', { pidMax: 403 }).likelihood).toBe('possible');
    expect(judge('EAGAIN', 'pid-max', { pidMax: 404 }).likelihood).toBe('excluded');
  });

  it('is possibly SCHED_DEADLINE', () => {
    expect(judge('EAGAIN', 'deadline-scheduling', { schedulingPolicy: 6 }).likelihood).toBe('possible');
    expect(judge('EAGAIN', 'deadline-scheduling', { schedulingPolicy: undefined }).likelihood).toBe('possible');
  });

  it('puts the certain cause first, and names all possible ones when none is certain', () => {
    const both = { threadsMax: 103, schedulingPolicy: 6 };
    expect(explainForkFailure('EAGAIN', { ...FREE, ...both }).causes[0]?.cause).toBe('threads-max');
    const { summary } = explainForkFailure('EAGAIN', { ...FREE, schedulingPolicy: 6, pidMax: 100 });
    expect(summary).toBe('Not certain; possible causes of EAGAIN: pid-max, deadline-scheduling.');
  });
});

describe('loadavg', () => {
  it('tells the tasks of the system', () => {
    expect(parseSystemTasks('0.34 0.12 0.04 2/84 3963\n')).toBe(84);
    expect(() => parseSystemTasks('0.34\n', '/proc/loadavg')).toThrow('/proc/loadavg:1');
  });
});
