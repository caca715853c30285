/** Reads from /proc what fork-failure.ts judges. Whatever cannot be read stays unknown. */
import { readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { readCgroups, type ProcessCgroups } from './cgroup.js';
import type { AdmissionVerdict, ChildPidNamespace, ForkFailureEvidence } from './fork-failure.js';
import { readMeminfo } from './meminfo.js';
import { PROC_ROOT, ProcFormatError, errnoCode, listPids, pidPath, readIfThere, type Pid } from './read.js';
import { readStat } from './stat.js';
import { CAP_SYS_ADMIN, CAP_SYS_RESOURCE, hasCapability, parseLimits, parseStatus, readStatus } from './status.js';
import { readSysctls } from './sysctl.js';

/** Inode numbers of the initial namespaces [include/linux/proc_ns.h: PROC_USER_INIT_INO, PROC_PID_INIT_INO]. */
const INITIAL_USER_NAMESPACE = 'user:[4026531837]';
const INITIAL_PID_NAMESPACE = 'pid:[4026531836]';

/** Kernel stack, task and mm structures of a child, above its page tables; generous. */
const KERNEL_BYTES_PER_TASK = 128 * 1024;

function linkOf(path: string): { target: string } | { code: string | undefined } {
  try {
    return { target: readlinkSync(path) };
  } catch (error) {
    return { code: errnoCode(error) };
  }
}

/**
 * Whether a process has its rights in the initial user namespace, where capable() asks for them.
 * Undefined when the namespace may not be read.
 */
export function inInitialUserNamespace(pid: Pid, procRoot: string = PROC_ROOT): boolean | undefined {
  const link = linkOf(pidPath(pid, 'ns/user', procRoot));
  return 'target' in link ? link.target === INITIAL_USER_NAMESPACE : undefined;
}

/** State of the namespace behind ns/pid_for_children [fs/nsfs.c; kernel/pid_namespace.c: pidns_for_children_get]. */
function childPidNamespace(pid: Pid, procRoot: string): ChildPidNamespace {
  const own = linkOf(pidPath(pid, 'ns/pid', procRoot));
  const children = linkOf(pidPath(pid, 'ns/pid_for_children', procRoot));
  if (!('target' in own)) return 'unknown';
  // The link is not there while the namespace has no init yet.
  if (!('target' in children)) return children.code === 'ENOENT' ? 'empty' : 'unknown';
  if (own.target === children.target) return 'own';
  // It lies below the process's own namespace, so whoever is in it has more pids than the process has [NSpid].
  const depth = readStatus(pid, procRoot).namespacePids.length;
  let hidden = false;
  for (const other of listPids(procRoot)) {
    const path = join(procRoot, String(other));
    const text = readIfThere(join(path, 'status'));
    if (text === undefined || text === '') continue;
    const { state, namespacePids } = parseStatus(text, join(path, 'status'));
    // A zombie keeps its namespace until it is reaped, but takes no child into it.
    if (state === 'Z' || state === 'X') continue;
    const link = linkOf(join(path, 'ns/pid'));
    if ('target' in link) {
      if (link.target === children.target) return 'alive';
    } else if (link.code !== 'ENOENT' && link.code !== 'ESRCH') {
      hidden ||= namespacePids.length === 0 || namespacePids.length > depth;
    }
  }
  return hidden ? 'unknown' : 'dead';
}

/** Tasks of a real user, threads counted, as far as /proc shows them. */
function countUserTasks(uid: number, procRoot: string): number {
  let tasks = 0;
  for (const pid of listPids(procRoot)) {
    const text = readIfThere(join(procRoot, String(pid), 'status'));
    if (text === undefined || text === '') continue;
    const status = parseStatus(text, join(procRoot, String(pid), 'status'));
    if (status.uids[0] === uid) tasks += status.threads;
  }
  return tasks;
}

/** The second number of '2/84', the fourth field of loadavg: tasks of the whole system [fs/proc/loadavg.c]. */
export function parseSystemTasks(text: string, file = 'loadavg'): number {
  const tasks = Number(text.trim().split(' ')[3]?.split('/')[1]);
  if (!Number.isSafeInteger(tasks)) throw new ProcFormatError(file, 1, text, "'0.1 0.1 0.1 running/total lastpid'");
  return tasks;
}

/** VMAs of a process, [vsyscall] left out since the kernel does not count it; undefined when it may not be read. */
function countMaps(pid: Pid, procRoot: string): number | undefined {
  const text = readIfThere(pidPath(pid, 'maps', procRoot));
  return text?.split('\n').filter((line) => line !== '' && !line.endsWith('[vsyscall]')).length;
}

/**
 * Reads the evidence about a process whose fork failed, or is to be predicted.
 * @param admission What the commit rules say, if they were asked.
 * @throws SystemError ESRCH: there is no such process. What is merely not readable stays undefined.
 */
export function readForkFailureEvidence(
  pid: Pid,
  admission: AdmissionVerdict | undefined,
  procRoot: string = PROC_ROOT,
  fsRoot = '/',
): ForkFailureEvidence {
  const status = readStatus(pid, procRoot);
  const sysctls = readSysctls(procRoot);
  const initialUser = inInitialUserNamespace(pid, procRoot);
  const ownPid = linkOf(pidPath(pid, 'ns/pid', procRoot));
  const limitsText = readIfThere(pidPath(pid, 'limits', procRoot));
  const loadavg = readIfThere(join(procRoot, 'loadavg'));
  const uid = status.uids[0];
  const pageTablesKb = status.fieldsKb['VmPTE'];
  const availableKb = readMeminfo(procRoot).fieldsKb['MemAvailable'];
  let cgroups: ProcessCgroups | undefined;
  try {
    cgroups = readCgroups(pid, procRoot, fsRoot);
  } catch (error) {
    if (errnoCode(error) === undefined || error instanceof ProcFormatError) throw error;
  }
  const hidepid = /^\S+ \S+ proc \S*hidepid=[^0o]/m.test(readIfThere(join(procRoot, 'self/mounts')) ?? '');
  return {
    pid: status.pid,
    admission,
    childPidNamespace: childPidNamespace(pid, procRoot),
    mapCount: countMaps(pid, procRoot),
    maxMapCount: sysctls.maxMapCount,
    cgroups,
    memAvailableBytes: availableKb === undefined ? undefined : availableKb * 1024,
    kernelBytesNeeded: pageTablesKb === undefined ? undefined : pageTablesKb * 1024 + KERNEL_BYTES_PER_TASK,
    uid,
    nprocLimit: limitsText === undefined ? undefined : parseLimits(limitsText)['Max processes']?.soft,
    userTasks: uid === undefined ? undefined : countUserTasks(uid, procRoot),
    nprocExempt: nprocExempt(status, initialUser),
    allTasksVisible: initialUser === true && 'target' in ownPid && ownPid.target === INITIAL_PID_NAMESPACE && !hidepid,
    systemTasks: loadavg === undefined ? undefined : parseSystemTasks(loadavg),
    threadsMax: sysctls.threadsMax,
    pidMax: sysctls.pidMax,
    schedulingPolicy: readStat(pid, procRoot).policy,
  };
}

/** copy_process lets go the real root user and who has either capability, all in the initial user namespace. */
function nprocExempt(status: ReturnType<typeof readStatus>, initialUser: boolean | undefined): boolean | undefined {
  const may = [status.uids[0] === 0, hasCapability(status, CAP_SYS_RESOURCE), hasCapability(status, CAP_SYS_ADMIN)];
  if (may.includes(true)) return initialUser;
  return may.includes(undefined) ? undefined : false;
}
