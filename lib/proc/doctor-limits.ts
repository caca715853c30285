/** Findings of `cowlab doctor` on containers, cgroups, privileges and the limits of this process. */
import { readCgroups, tightest, type CgroupLimits } from './cgroup.js';
import type { Container } from './container.js';
import type { DoctorContext, Finding } from './doctor.js';
import { inInitialUserNamespace } from './fork-evidence.js';
import { CAP_SYS_ADMIN, CAP_SYS_PTRACE, CAP_SYS_RESOURCE, hasCapability, readLimits, readStatus } from './status.js';
import { readSysctls } from './sysctl.js';

export function containerFinding(container: Container): Finding {
  const { runtime, evidence, meminfoFaked } = container;
  const base = { name: 'container', neededFor: 'knowing whose limits and whose /proc these are' };
  if (runtime === 'none') return { ...base, status: 'ok', found: evidence };
  if (meminfoFaked) {
    const remedy = 'Nothing to do: cowlab asks sysinfo(2) for RAM and swap';
    return { ...base, status: 'limited', found: `${runtime} (${evidence}); lxcfs rewrites /proc/meminfo`, remedy };
  }
  return { ...base, status: 'ok', found: `${runtime} (${evidence})` };
}

export function privilegeFinding({ procRoot }: DoctorContext): Finding {
  const status = readStatus('self', procRoot);
  const uid = status.uids[1];
  const initial = inInitialUserNamespace('self', procRoot);
  const held = (
    [
      ['CAP_SYS_ADMIN', CAP_SYS_ADMIN],
      ['CAP_SYS_RESOURCE', CAP_SYS_RESOURCE],
      ['CAP_SYS_PTRACE', CAP_SYS_PTRACE],
    ] as const
  )
    .filter(([, capability]) => hasCapability(status, capability) === true)
    .map(([name]) => name);
  const where =
    initial === true ? '' : initial === false ? ', in a user namespace of its own' : ', user namespace unknown';
  const found = `user ${uid ?? '?'}${where}; ${held.length > 0 ? held.join(', ') : 'no capability that matters here'}`;
  const base = {
    name: 'privileges',
    found,
    neededFor: 'none for enomem and cow-growth; some experiments change settings',
  };
  const full = initial === true && held.includes('CAP_SYS_ADMIN');
  if (full) return { ...base, status: 'ok' };
  return {
    ...base,
    status: 'limited',
    remedy: 'Root only for PFNs, and for experiments run with --allow-system-changes',
  };
}

function describe(limits: CgroupLimits, unit: (value: number) => string): { set: boolean; text: string } {
  if (limits.version === 'none') return { set: false, text: 'none seen here' };
  const limit = tightest(limits);
  if (!limit) return { set: false, text: `${limits.version}, no limit` };
  const used = limit.used === undefined ? 'unknown' : unit(limit.used);
  const hits = limit.hits ? `, hit ${limit.hits} times` : '';
  return { set: true, text: `${limits.version}, ${used} of ${unit(limit.limit)} in ${limit.directory}${hits}` };
}

const mebibytes = (bytes: number): string => `${Math.round(bytes / 2 ** 20)} MiB`;

export function cgroupFindings({ procRoot, fsRoot }: DoctorContext): Finding[] {
  const cgroups = readCgroups('self', procRoot, fsRoot);
  const memory = describe(cgroups.memory, mebibytes);
  const pids = describe(cgroups.pids, String);
  return [
    {
      name: 'cgroup-memory',
      status: memory.set ? 'limited' : cgroups.memory.version === 'none' ? 'missing' : 'ok',
      found: memory.text,
      neededFor: 'the oom experiment; a limit below the size of a run kills it',
      ...(memory.set ? { remedy: 'Keep --size times the copies below the limit, or raise it' } : {}),
    },
    {
      name: 'cgroup-pids',
      status: pids.set ? 'limited' : cgroups.pids.version === 'none' ? 'missing' : 'ok',
      found: pids.text,
      neededFor: 'fork: EAGAIN once the limit is reached',
      ...(pids.set ? { remedy: 'Keep --children below the limit, or raise pids.max' } : {}),
    },
  ];
}

/** Fewer tasks than this left for the user would make an experiment's own forks fail. */
const COMFORTABLE_TASKS = 256;

export function processLimitsFinding({ procRoot }: DoctorContext): Finding {
  const limit = (name: string): number | undefined => readLimits('self', procRoot)[name]?.soft;
  const show = (value: number | undefined): string =>
    value === undefined ? 'unknown' : value === Infinity ? 'unlimited' : String(value);
  const tasks = limit('Max processes');
  const addressSpace = limit('Max address space');
  const { maxMapCount } = readSysctls(procRoot);
  const found =
    `RLIMIT_NPROC ${show(tasks)}, RLIMIT_AS ${show(addressSpace)}, ` +
    `RLIMIT_MEMLOCK ${show(limit('Max locked memory'))}, vm.max_map_count ${show(maxMapCount)}`;
  const base = { name: 'process-limits', found, neededFor: 'forks (NPROC), enomem (address space beyond RAM)' };
  if (addressSpace !== undefined && addressSpace !== Infinity) {
    return { ...base, status: 'limited', remedy: 'ulimit -v unlimited: enomem maps more than RAM plus swap' };
  }
  if (tasks !== undefined && tasks < COMFORTABLE_TASKS)
    return { ...base, status: 'limited', remedy: 'Raise ulimit -u' };
  return { ...base, status: tasks === undefined ? 'unknown' : 'ok' };
}
