/**
 * A cgroup of our own with a memory limit and a limit of tasks, in v1 (a directory in each of two hierarchies) and in
 * v2 (one directory). Who makes it first has its removal planned by SystemChanges.begin.
 */
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { FeatureUnavailableError, SystemError } from '../errors.js';
import { readCgroups, tightest } from '../proc/cgroup.js';
import { findCgroupPlaces, type CgroupPlace, type Controller, type NoPlace } from '../proc/cgroup-place.js';
import { errnoCode, readHostFile, readNumberIfThere } from '../proc/read.js';

/** A cgroup that can be made. */
interface Planned extends CgroupPlace {
  directory: string;
}

export type CgroupPlan = Record<Controller, Planned | NoPlace>;

export interface CgroupLimitSettings {
  memoryMaxBytes?: number | undefined;
  pidsMax?: number | undefined;
}

/** Names what will be made, in the nearest place where it may be. Nothing is made yet. */
export function planCgroup(): CgroupPlan {
  const name = `cowlab-${String(process.pid)}-${randomBytes(4).toString('hex')}`;
  const places = findCgroupPlaces();
  const plan = (place: CgroupPlace | NoPlace): Planned | NoPlace =>
    'parent' in place ? { ...place, directory: join(place.parent, name) } : place;
  return { memory: plan(places.memory), pids: plan(places.pids) };
}

/** @throws FeatureUnavailableError where no cgroup can be made at all. */
export function requireSomePlace({ memory, pids }: CgroupPlan): void {
  if ('directory' in memory || 'directory' in pids) return;
  throw new FeatureUnavailableError('A cgroup of our own', memory.reason, memory.remedy);
}

/** The directories that it would make, and the controllers that it would enable, each with the cgroup above. */
export function plannedChanges(plan: CgroupPlan): {
  directories: string[];
  enabled: { parent: string; controllers: Controller[] }[];
} {
  const planned = [plan.memory, plan.pids].filter((one) => 'directory' in one);
  const directories = [...new Set(planned.map(({ directory }) => directory))];
  const parents = [...new Set(planned.filter(({ enable }) => enable.length > 0).map(({ parent }) => parent))];
  const enabled = parents.map((parent) => ({
    parent,
    controllers: [...new Set(planned.filter((one) => one.parent === parent).flatMap(({ enable }) => enable))],
  }));
  return { directories, enabled };
}

/** node:fs throws errors of its own kind; what the kernel refuses is a SystemError here. */
function asSystemError(error: unknown, path: string): unknown {
  const code = errnoCode(error);
  if (code === undefined) return error;
  const known = constants.errno as Record<string, number>;
  const syscall = error instanceof Error && 'syscall' in error ? String(error.syscall) : 'write';
  return new SystemError({ code, errno: -(known[code] ?? 0), syscall, message: path });
}

function put(path: string, value: string): void {
  try {
    writeFileSync(path, value);
  } catch (error) {
    throw asSystemError(error, path);
  }
}

export class LimitedCgroup {
  readonly #plan: CgroupPlan;
  readonly #directories = new Set<string>();

  constructor(plan: CgroupPlan) {
    this.#plan = plan;
  }

  /**
   * Makes the cgroup and sets its limits; memory cannot go to swap instead.
   * @throws FeatureUnavailableError where there is no place for it, or where a cgroup above has less memory left: that
   * one's limit would be hit first, and this process is in it. Nothing has been made then.
   */
  limit({ memoryMaxBytes, pidsMax }: CgroupLimitSettings): void {
    const memory = memoryMaxBytes === undefined ? undefined : this.#require('memory');
    const pids = pidsMax === undefined ? undefined : this.#require('pids');
    if (memoryMaxBytes !== undefined) requireRoomAbove(memoryMaxBytes);
    for (const planned of [memory, pids]) if (planned) this.#make(planned);
    if (memory) limitMemory(memory, memoryMaxBytes ?? 0);
    if (pids) put(join(pids.directory, 'pids.max'), String(pidsMax));
  }

  /** Moves a process into it. */
  join(pid: number): void {
    for (const directory of this.#directories) put(join(directory, 'cgroup.procs'), String(pid));
  }

  /** Bytes that are charged to it, what each CPU holds in stock for it among them. */
  usedBytes(): number {
    const { directory, version } = this.#require('memory');
    const path = join(directory, version === 'v1' ? 'memory.usage_in_bytes' : 'memory.current');
    const used = readNumberIfThere(path);
    if (used === undefined) throw new FeatureUnavailableError('The memory of a cgroup', `${path} cannot be read`, '');
    return used;
  }

  /** Processes of it that the OOM killer has ended since it was made. */
  oomKills(): number {
    const { directory, version } = this.#require('memory');
    const path = join(directory, version === 'v1' ? 'memory.oom_control' : 'memory.events');
    const kills = /^oom_kill (\d+)$/m.exec(readHostFile(path))?.[1];
    if (kills !== undefined) return Number(kills);
    throw new FeatureUnavailableError(
      'Counting OOM kills',
      `${path} does not show oom_kill`,
      'Linux 4.13 and later do.',
    );
  }

  #require(controller: Controller): Planned {
    const planned = this.#plan[controller];
    if ('directory' in planned) return planned;
    throw new FeatureUnavailableError(`A ${controller} cgroup`, planned.reason, planned.remedy);
  }

  #make({ directory, parent, enable }: Planned): void {
    if (this.#directories.has(directory)) return;
    const enabled = enable.map((controller) => `+${controller}`).join(' ');
    if (enabled !== '') put(join(parent, 'cgroup.subtree_control'), enabled);
    try {
      mkdirSync(directory, { mode: 0o755 });
    } catch (error) {
      throw asSystemError(error, directory);
    }
    this.#directories.add(directory);
  }
}

function limitMemory({ directory, version }: Planned, bytes: number): void {
  if (version === 'v1') {
    // The limit of memory and swap together must not be the smaller one at any time; it starts without a limit.
    put(join(directory, 'memory.limit_in_bytes'), String(bytes));
    const withSwap = join(directory, 'memory.memsw.limit_in_bytes');
    if (existsSync(withSwap)) put(withSwap, String(bytes));
    // Inherited: where it is 1 above, those who need memory would wait for ever.
    put(join(directory, 'memory.oom_control'), '0');
    return;
  }
  const swap = join(directory, 'memory.swap.max');
  if (existsSync(swap)) put(swap, '0');
  put(join(directory, 'memory.max'), String(bytes));
}

/** This process is in a cgroup above: a limit there must not be the first to be hit. */
function requireRoomAbove(bytes: number): void {
  const above = tightest(readCgroups('self').memory);
  if (!above) return;
  const room = above.limit - (above.used ?? 0);
  if (room > bytes * 1.1) return;
  throw new FeatureUnavailableError(
    `A cgroup with ${String(bytes)} bytes`,
    `${above.directory} has ${String(room)} bytes left, and in that one cowlab itself could be killed`,
    'Choose a smaller limit, or end what else runs there.',
  );
}
