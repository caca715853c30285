/**
 * Where this user may make a cgroup of a controller and move its own processes into it [cgroups(7); "Delegation" in
 * Documentation/admin-guide/cgroup-v2.rst]. Nothing is changed here.
 */
import { accessSync, constants, existsSync } from 'node:fs';
import { join } from 'node:path';
import { positionOf, readMembership, upwards, type CgroupPosition } from './cgroup.js';
import { errnoCode, PROC_ROOT, readIfThere } from './read.js';

export type Controller = 'memory' | 'pids';

export interface CgroupPlace {
  version: 'v1' | 'v2';
  /** The cgroup in which a child can be made. */
  parent: string;
  /** Controllers that its children only have once `cgroup.subtree_control` names them: a change to be put back. */
  enable: Controller[];
}

/** There is none, and what would help. */
export interface NoPlace {
  reason: string;
  remedy: string;
}

export interface PlaceOptions {
  procRoot?: string;
  fsRoot?: string;
  /** access(2) with W_OK; another in tests, since root may write everywhere. */
  mayWrite?: (path: string) => boolean;
  uid?: number;
}

function mayWriteHere(path: string): boolean {
  try {
    accessSync(path, constants.W_OK);
    return true;
  } catch (error) {
    if (errnoCode(error) === undefined) throw error;
    return false;
  }
}

function words(path: string): string[] {
  return (readIfThere(path) ?? '').split(' ').filter(Boolean);
}

/** v1: a cgroup may have children and processes at once, and whoever makes one owns it [cgroup_mkdir]. */
function placeInV1(position: CgroupPosition, mayWrite: (path: string) => boolean): CgroupPlace | undefined {
  for (const parent of upwards(position.mountPoint, position.relative)) {
    if (mayWrite(parent)) return { version: 'v1', parent, enable: [] };
  }
  return undefined;
}

/**
 * Whether children of a v2 cgroup may be given controllers: it has no processes of its own, or is the root, which
 * alone has no cgroup.type ("No Internal Process Constraint").
 */
function mayEnable(parent: string): boolean {
  return !existsSync(join(parent, 'cgroup.type')) || readIfThere(join(parent, 'cgroup.procs')) === '';
}

function placeInV2(
  position: CgroupPosition,
  controllers: readonly Controller[],
  mayWrite: (path: string) => boolean,
): CgroupPlace | undefined {
  let second: CgroupPlace | undefined;
  for (const parent of upwards(position.mountPoint, position.relative)) {
    // Who moves a process must be able to write cgroup.procs of the common ancestor, which an ancestor of ours is.
    if (!mayWrite(parent) || !mayWrite(join(parent, 'cgroup.procs'))) continue;
    if (/threaded|invalid/.test(readIfThere(join(parent, 'cgroup.type')) ?? '')) continue;
    const offered = words(join(parent, 'cgroup.controllers'));
    if (!controllers.every((controller) => offered.includes(controller))) continue;
    const control = join(parent, 'cgroup.subtree_control');
    const enabled = words(control);
    const enable = controllers.filter((controller) => !enabled.includes(controller));
    if (enable.length === 0) return { version: 'v2', parent, enable };
    if (!second && mayWrite(control) && mayEnable(parent)) second = { version: 'v2', parent, enable };
  }
  // Rather one where nothing has to be changed, further up.
  return second;
}

function remedyFor(uid: number, fsRoot: string): string {
  const machine = 'Run it in a machine of its own: `cowlab vm run`.';
  if (uid === 0) return machine;
  const systemd = existsSync(join(fsRoot, `run/user/${String(uid)}/systemd`));
  const scope = 'systemd-run --user --scope -p Delegate=yes cowlab run oom --allow-system-changes';
  return systemd
    ? `Run it as root, or in a delegated cgroup: \`${scope}\`. Or: \`cowlab vm run\`.`
    : `Run it as root. ${machine}`;
}

function whyNone(position: CgroupPosition | undefined, controllers: readonly Controller[]): string {
  const names = controllers.join(' and ');
  if (!position) return `no cgroup file system with the controller ${names} is mounted here`;
  if (position.mount.options.includes('ro')) {
    return `${position.mountPoint} is mounted read-only, as in a container`;
  }
  if (position.version === 'v2') {
    const offered = words(join(position.mountPoint, 'cgroup.controllers'));
    const missing = controllers.filter((controller) => !offered.includes(controller));
    if (missing.length > 0) return `the controller ${missing.join(' and ')} is not offered by ${position.mountPoint}`;
  }
  return `this user may make no cgroup with the controller ${names} above or in ${position.directory}`;
}

/**
 * The nearest place for a cgroup with these controllers, which must be of one hierarchy.
 * @throws SystemError, ProcFormatError for files of /proc that cannot be used.
 */
export function findCgroupPlace(controllers: readonly Controller[], options: PlaceOptions = {}): CgroupPlace | NoPlace {
  const { procRoot = PROC_ROOT, fsRoot = '/', mayWrite = mayWriteHere, uid = process.geteuid?.() ?? 0 } = options;
  const { entries, mounts } = readMembership('self', procRoot);
  const [first] = controllers;
  const position = first === undefined ? undefined : positionOf(entries, mounts, first, fsRoot);
  const readOnly = position?.mount.options.includes('ro') === true;
  if (position && !readOnly) {
    const place =
      position.version === 'v1' ? placeInV1(position, mayWrite) : placeInV2(position, controllers, mayWrite);
    if (place) return place;
  }
  return { reason: whyNone(position, controllers), remedy: remedyFor(uid, fsRoot) };
}

/** Places for both controllers: the same one in v2, where a process is in one cgroup only; each its own in v1. */
export function findCgroupPlaces(options: PlaceOptions = {}): Record<Controller, CgroupPlace | NoPlace> {
  const memory = findCgroupPlace(['memory'], options);
  const pids = findCgroupPlace(['pids'], options);
  if (!('parent' in memory) || !('parent' in pids) || memory.version === 'v1' || pids.version === 'v1') {
    return { memory, pids };
  }
  const both = findCgroupPlace(['memory', 'pids'], options);
  if ('parent' in both) return { memory: both, pids: both };
  return { memory, pids: { reason: `${memory.parent} gives its children memory and not pids`, remedy: both.remedy } };
}
