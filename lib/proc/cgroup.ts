/**
 * The cgroups of a process and the limits that hold it, v1 and v2 [cgroups(7); Documentation/admin-guide/cgroup-v1,
 * cgroup-v2.rst]. A limit holds for a whole subtree, so every ancestor up to the mounted root is read; what lies
 * above it (the host's side of a container) cannot be seen from here.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { PROC_ROOT, ProcFormatError, linesOf, readIfThere, readNumberIfThere, readPidFile, type Pid } from './read.js';

/** One line of /proc/PID/cgroup. */
export interface CgroupEntry {
  /** 0 is the v2 hierarchy. */
  hierarchy: number;
  /** v1 controllers; empty for v2. A named hierarchy without controllers is 'name=systemd'. */
  controllers: string[];
  path: string;
}

/** @throws ProcFormatError for a line that is not 'hierarchy:controllers:path'. */
export function parseCgroup(text: string, file = 'cgroup'): CgroupEntry[] {
  return linesOf(text).map((line, index) => {
    const match = /^(\d+):([^:]*):(.*)$/.exec(line);
    if (!match) throw new ProcFormatError(file, index + 1, line, "'hierarchy:controllers:path'");
    const [, hierarchy, controllers = '', path = ''] = match;
    return { hierarchy: Number(hierarchy), controllers: controllers.split(',').filter(Boolean), path };
  });
}

/** One line of /proc/PID/mountinfo [proc_pid_mountinfo(5)]. */
export interface Mount {
  /** The directory of the file system that is the root of this mount. */
  root: string;
  mountPoint: string;
  options: string[];
  fsType: string;
  source: string;
  superOptions: string[];
}

/** Undoes the octal escapes of seq_file for space, tab, newline and backslash. */
function unescapeOctal(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(parseInt(octal, 8)));
}

/** @throws ProcFormatError for a line of another form. */
export function parseMountinfo(text: string, file = 'mountinfo'): Mount[] {
  return linesOf(text).map((line, index) => {
    const [left = '', right = ''] = line.split(' - ');
    const [, , , root, mountPoint, options] = left.split(' ');
    const [fsType, source, superOptions] = right.split(' ');
    if (root === undefined || mountPoint === undefined || options === undefined || source === undefined || !fsType) {
      throw new ProcFormatError(file, index + 1, line, "'id parent dev root point options ... - type source options'");
    }
    return {
      root: unescapeOctal(root),
      mountPoint: unescapeOctal(mountPoint),
      options: options.split(','),
      fsType,
      source: unescapeOctal(source),
      superOptions: (superOptions ?? '').split(','),
    };
  });
}

/** A limit of one cgroup with its use. Infinity is no limit; undefined what could not be read. */
export interface CgroupLimit {
  /** Directory of the cgroup that sets it. */
  directory: string;
  limit: number;
  used: number | undefined;
  /** Times this limit was hit since the cgroup was made; undefined where it is not told. */
  hits: number | undefined;
}

export interface CgroupLimits {
  /** Which version manages the controller; 'none' when it is not mounted or not enabled for this process. */
  version: 'v1' | 'v2' | 'none';
  /** Directory of the process's own cgroup, as it is seen here. */
  directory: string | undefined;
  /** Limits of the process's own cgroup and its ancestors, innermost first; only those that are set. */
  limits: CgroupLimit[];
}

export interface ProcessCgroups {
  /** Tasks (threads too); a fork beyond it gives EAGAIN. */
  pids: CgroupLimits;
  /** Bytes. */
  memory: CgroupLimits;
  /** v1 only: bytes of kernel memory alone (deprecated; no effect since 5.16). */
  kernelMemory: CgroupLimits;
}

/** A v1 limit that is not set reads as the largest page-aligned number. */
const V1_NO_LIMIT = 2 ** 62;

interface Files {
  limit: string;
  used: string;
  /** The file that counts hits, and the key in it, or '' when it holds one number. */
  hits: [file: string, key: string];
}

const PIDS: Files = { limit: 'pids.max', used: 'pids.current', hits: ['pids.events', 'max'] };
const MEMORY_V2: Files = { limit: 'memory.max', used: 'memory.current', hits: ['memory.events', 'max'] };
const MEMORY_V1: Files = {
  limit: 'memory.limit_in_bytes',
  used: 'memory.usage_in_bytes',
  hits: ['memory.failcnt', ''],
};
const KMEM_V1: Files = {
  limit: 'memory.kmem.limit_in_bytes',
  used: 'memory.kmem.usage_in_bytes',
  hits: ['memory.kmem.failcnt', ''],
};

function readHits(directory: string, [file, key]: Files['hits']): number | undefined {
  if (key === '') return readNumberIfThere(join(directory, file));
  const line = readIfThere(join(directory, file))
    ?.split('\n')
    .find((text) => text.startsWith(`${key} `));
  return line === undefined ? undefined : Number(line.slice(key.length + 1));
}

/** From the process's own cgroup up to the root of the mount. */
export function* upwards(mountPoint: string, relative: string): Generator<string> {
  const parts = relative.split('/').filter(Boolean);
  for (let depth = parts.length; depth >= 0; depth--) yield join(mountPoint, ...parts.slice(0, depth));
}

/** The path of a cgroup below a mount; undefined when it lies outside what is mounted here. */
function below(mount: Mount, path: string): string | undefined {
  if (path.startsWith('/..')) return undefined;
  if (mount.root === '/') return path;
  if (path === mount.root || path.startsWith(`${mount.root}/`)) return path.slice(mount.root.length);
  return undefined;
}

/** Where a controller's cgroup of a process is, as far as it can be seen from here. */
export interface CgroupPosition {
  version: 'v1' | 'v2';
  mount: Mount;
  mountPoint: string;
  /** Path of the cgroup below the mount point. */
  relative: string;
  /** Directory of the cgroup. */
  directory: string;
}

/** A controller is in the one v1 hierarchy that it is bound to, or else in v2. Undefined when that is not mounted. */
export function positionOf(
  entries: readonly CgroupEntry[],
  mounts: readonly Mount[],
  controller: string,
  fsRoot = '/',
): CgroupPosition | undefined {
  const v1 = entries.find((entry) => entry.controllers.includes(controller));
  const entry = v1 ?? entries.find(({ hierarchy }) => hierarchy === 0);
  if (!entry) return undefined;
  for (const mount of mounts) {
    const fits = v1 ? mount.fsType === 'cgroup' && mount.superOptions.includes(controller) : mount.fsType === 'cgroup2';
    const relative = fits ? below(mount, entry.path) : undefined;
    if (relative === undefined) continue;
    const mountPoint = join(fsRoot, mount.mountPoint);
    const directory = join(mountPoint, relative);
    if (!existsSync(directory)) continue;
    return { version: v1 ? 'v1' : 'v2', mount, mountPoint, relative, directory };
  }
  return undefined;
}

const NONE: CgroupLimits = { version: 'none', directory: undefined, limits: [] };

function limitsOf(
  position: CgroupPosition | undefined,
  controller: string,
  files: { v1: Files; v2: Files | undefined },
): CgroupLimits {
  if (!position) return NONE;
  const { version, mountPoint, relative, directory: own } = position;
  const wanted = files[version];
  if (!wanted) return NONE;
  // A v2 leaf need not have the controller itself: the limit of an ancestor that has it holds all the same.
  const offered = (readIfThere(join(mountPoint, 'cgroup.controllers')) ?? '').split(' ');
  if (version === 'v2' && !offered.includes(controller)) return NONE;
  const limits: CgroupLimit[] = [];
  for (const directory of upwards(mountPoint, relative)) {
    const limit = readNumberIfThere(join(directory, wanted.limit));
    if (limit === undefined || limit === Infinity || limit >= V1_NO_LIMIT) continue;
    const used = readNumberIfThere(join(directory, wanted.used));
    limits.push({ directory, limit, used, hits: readHits(directory, wanted.hits) });
  }
  return { version, directory: own, limits };
}

/** The cgroups of a process, and the mounts of cgroup file systems among others. */
export function readMembership(pid: Pid, procRoot: string = PROC_ROOT): { entries: CgroupEntry[]; mounts: Mount[] } {
  const entries = parseCgroup(readPidFile(pid, 'cgroup', procRoot), join(procRoot, String(pid), 'cgroup'));
  const mountinfo = join(procRoot, 'self/mountinfo');
  return { entries, mounts: parseMountinfo(readIfThere(mountinfo) ?? '', mountinfo) };
}

/**
 * The limits that cgroups set on a process.
 * @param fsRoot Where the mount points of mountinfo are found; '/' but in tests.
 * @throws SystemError ESRCH: there is no such process; ProcFormatError for a file of an unknown form.
 */
export function readCgroups(pid: Pid, procRoot: string = PROC_ROOT, fsRoot = '/'): ProcessCgroups {
  const { entries, mounts } = readMembership(pid, procRoot);
  const memory = positionOf(entries, mounts, 'memory', fsRoot);
  return {
    pids: limitsOf(positionOf(entries, mounts, 'pids', fsRoot), 'pids', { v1: PIDS, v2: PIDS }),
    memory: limitsOf(memory, 'memory', { v1: MEMORY_V1, v2: MEMORY_V2 }),
    kernelMemory: limitsOf(memory, 'memory', { v1: KMEM_V1, v2: undefined }),
  };
}

/** The limit with the least room left; undefined when none is set. A limit whose use is not told counts as unused. */
export function tightest(limits: CgroupLimits): CgroupLimit | undefined {
  const room = ({ limit, used }: CgroupLimit): number => limit - (used ?? 0);
  return limits.limits.reduce<CgroupLimit | undefined>(
    (best, next) => (best === undefined || room(next) < room(best) ? next : best),
    undefined,
  );
}
