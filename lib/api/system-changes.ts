/**
 * Changing settings of the whole machine, so that they are put back whatever happens: one run at a time, by a process
 * of its own (native/core/restorer.h) that acts when this one ends, and from a journal if that process is killed too.
 */
import {
  accessSync,
  closeSync,
  constants,
  existsSync,
  ftruncateSync,
  mkdirSync,
  readFileSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import net from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { FeatureUnavailableError, SystemError } from '../errors.js';
import { errnoName, native } from '../native.js';
import { readMeminfo } from '../proc/meminfo.js';
import { errnoCode } from '../proc/read.js';
import { readSysctl } from '../proc/sysctl.js';
import { requireSwapPages } from '../schema/arguments.js';
import { formatBytes } from '../schema/units.js';
import { plannedChanges } from './limited-cgroup.js';
import type { CgroupPlan } from './limited-cgroup.js';
import { applyJournal, journalPath, lockPath, readBootId, readJournal, stateDirectory } from './journal.js';
import type { Journal, Restored, RestoreStep } from './journal.js';
import { requireSwapRights, swapFilePath, turnSwapOn } from './swap-file.js';
import { ksmPath, ksmSettings, requireIdleKsm, restoreKsm } from './ksm-settings.js';
import type { KsmSetting } from './ksm-settings.js';

/** vm.overcommit_* and vm.admin_reserve_kbytes; what is left out stays as it is. */
export interface OvercommitSettings {
  mode: 0 | 1 | 2;
  /** vm.overcommit_kbytes, which unsets the ratio. */
  kbytes?: number | undefined;
  /** vm.overcommit_ratio, which unsets kbytes. */
  ratio?: number | undefined;
  adminReserveKbytes?: number | undefined;
}

const SETTINGS = {
  mode: 'vm.overcommit_memory',
  kbytes: 'vm.overcommit_kbytes',
  ratio: 'vm.overcommit_ratio',
  adminReserveKbytes: 'vm.admin_reserve_kbytes',
} as const;

/** The pool of huge pages of the default size [Documentation/admin-guide/mm/hugetlbpage.rst]. */
const POOL = 'vm.nr_hugepages';

function settingPath(name: string): string {
  return `/proc/sys/${name.replace('.', '/')}`;
}

function readSetting(name: string): number {
  const value = readSysctl(name);
  if (value !== undefined) return value;
  throw new FeatureUnavailableError(`Changing ${name}`, 'this kernel does not show it', 'Mount /proc.');
}

/**
 * How overcommit is put back. Writing kbytes unsets the ratio and the other way round, so only the one that was set is
 * written. A limit that the run has chosen must not be in force for others longer than it has to: strict mode is left
 * before the limit changes, and entered after it.
 */
export function restoreOvercommit(before: Required<OvercommitSettings>): RestoreStep[] {
  const write = (key: keyof typeof SETTINGS): RestoreStep => {
    return { action: 'write', path: settingPath(SETTINGS[key]), value: String(before[key] ?? 0) };
  };
  const limit = [write('adminReserveKbytes'), write(before.kbytes ? 'kbytes' : 'ratio')];
  return before.mode === 2 ? [...limit, write('mode')] : [write('mode'), ...limit];
}

/** How a cgroup goes, once its processes have; then the controllers that were enabled for it. */
function restoreCgroup(plan: CgroupPlan): RestoreStep[] {
  const { directories, enabled } = plannedChanges(plan);
  const writes = enabled.map(({ parent, controllers }): RestoreStep => {
    const value = controllers.map((controller) => `-${controller}`).join(' ');
    return { action: 'write', path: join(parent, 'cgroup.subtree_control'), value };
  });
  return [...directories.map((path): RestoreStep => ({ action: 'remove', path })), ...writes];
}

/** Whether a setting is as it should be after a write of `value`; `-memory` takes a word out of subtree_control. */
export function isPutBack(found: string, value: string): boolean {
  if (!value.startsWith('-')) return found === value;
  return value.split(' ').every((word) => !found.split(' ').includes(word.slice(1)));
}

/** @throws FeatureUnavailableError where the settings may not be written. */
function requireWritable(path: string): void {
  try {
    accessSync(path, constants.W_OK);
  } catch (error) {
    const code = errnoCode(error);
    const readOnly = code === 'EROFS';
    throw new FeatureUnavailableError(
      `Changing ${path}`,
      readOnly ? 'it is mounted read-only, as in a container' : `only root may (${code ?? 'no access'})`,
      'Run it as root, or in a virtual machine of its own: cowlab vm run.',
    );
  }
}

/** Node aborts when it is refused memory; this much it may need until strict mode ends, and others a little. */
const ROOM_BYTES = 128 * 2 ** 20;

/** @throws FeatureUnavailableError if CommitLimit would leave next to nothing. */
function requireRoomToLive({ kbytes, ratio }: OvercommitSettings): void {
  const { fieldsKb } = readMeminfo();
  const kb = (name: string): number => fieldsKb[name] ?? 0;
  let limitKb = kb('CommitLimit');
  if (kbytes !== undefined) limitKb = kbytes + kb('SwapTotal');
  if (ratio !== undefined) limitKb = ((kb('MemTotal') - kb('Hugetlb')) * ratio) / 100 + kb('SwapTotal');
  const committed = kb('Committed_AS') * 1024;
  if (limitKb * 1024 >= committed + ROOM_BYTES) return;
  throw new FeatureUnavailableError(
    `Strict overcommit with a CommitLimit of ${formatBytes(limitKb * 1024)}`,
    `${formatBytes(committed)} are committed already, and every program would be refused memory`,
    `Choose a limit of ${formatBytes(committed + ROOM_BYTES)} or more.`,
  );
}

/** Who holds the lock, as a phrase; the file may be empty for a moment. */
function describeHolder(path: string): string {
  try {
    const { pid, purpose, startedAt } = JSON.parse(readFileSync(path, 'utf8')) as Record<string, string | number>;
    return `process ${String(pid)} (${String(purpose)}) has been changing them since ${String(startedAt)}`;
  } catch {
    return 'another run of cowlab is changing them';
  }
}

/** A lock that at most one process of this state directory has. @throws FeatureUnavailableError if another has it. */
export function takeLock(directory: string, purpose: string): number {
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const path = lockPath(directory);
  let fd: number;
  try {
    fd = native().lockFile(path);
  } catch (error) {
    if (!(error instanceof SystemError) || error.code !== 'EAGAIN') throw error;
    throw new FeatureUnavailableError('Changing system settings', describeHolder(path), 'Wait until it has ended.');
  }
  ftruncateSync(fd);
  writeSync(fd, JSON.stringify({ pid: process.pid, purpose, startedAt: new Date().toISOString() }), 0);
  return fd;
}

/** What earlier runs have left of system settings. */
export type LeftBehind =
  | { state: 'nothing' }
  /** A run has them changed right now, said as a phrase. */
  | { state: 'in use'; holder: string }
  /** A run and its restorer were killed. */
  | { state: 'changed'; journal: Journal };

/** @throws TypeError for a journal that makes no sense. */
export function findLeftBehind(directory = stateDirectory()): LeftBehind {
  const journal = readJournal(directory);
  if (!journal) return { state: 'nothing' };
  try {
    closeSync(native().lockFile(lockPath(directory)));
  } catch (error) {
    if (!(error instanceof SystemError) || error.code !== 'EAGAIN') throw error;
    return { state: 'in use', holder: describeHolder(lockPath(directory)) };
  }
  return { state: 'changed', journal };
}

/**
 * Puts back what a run has left changed that was killed together with its restorer.
 * @returns What became of each setting; undefined when there is no journal.
 * @throws FeatureUnavailableError while a run is in progress; TypeError for a journal that makes no sense.
 */
export function restoreLeftBehind(directory = stateDirectory()): Restored[] | undefined {
  if (!readJournal(directory)) return undefined;
  const lock = takeLock(directory, 'cowlab doctor --restore');
  try {
    const journal = readJournal(directory);
    return journal && applyJournal(directory, journal);
  } finally {
    closeSync(lock);
  }
}

export interface PlannedChanges {
  overcommit?: boolean;
  /** vm.nr_hugepages. */
  hugetlb?: boolean;
  /** A swap file that will be made, in the state directory. */
  swap?: boolean;
  /** /sys/kernel/mm/ksm. */
  ksm?: boolean;
  /** A cgroup that will be made. */
  cgroup?: CgroupPlan;
  /** What for, for people who meet the lock. */
  purpose: string;
  /** Default {@link stateDirectory}; another in tests. */
  directory?: string;
}

const REPORT_BYTES = 16;

export class SystemChanges {
  readonly #steps: readonly RestoreStep[];
  readonly #pid: number;
  readonly #socket: net.Socket;
  #restored: Promise<void> | undefined;

  private constructor(steps: readonly RestoreStep[], pid: number, fd: number) {
    this.#steps = steps;
    this.#pid = pid;
    this.#socket = new net.Socket({ fd, readable: true, writable: true, allowHalfOpen: true });
    this.#socket.on('error', () => undefined);
    this.#socket.unref();
  }

  /**
   * Takes the lock, writes down how all that is planned is put back, and starts the restorer. Nothing is changed yet.
   * @throws FeatureUnavailableError if another run has the lock, if an earlier one has left settings changed, or if
   * this user may not change them.
   * @throws SystemError if the restorer cannot be started.
   */
  static begin(planned: PlannedChanges): SystemChanges {
    const directory = planned.directory ?? stateDirectory();
    const steps: RestoreStep[] = planned.cgroup ? restoreCgroup(planned.cgroup) : [];
    if (planned.overcommit) for (const name of Object.values(SETTINGS)) requireWritable(settingPath(name));
    if (planned.hugetlb) requireWritable(settingPath(POOL));
    if (planned.swap) requireSwapRights();
    if (planned.ksm) {
      requireIdleKsm();
      requireWritable(ksmPath('run'));
    }
    const lock = takeLock(directory, planned.purpose);
    try {
      if (readJournal(directory)) {
        throw new FeatureUnavailableError(
          'Changing system settings',
          'an earlier run was killed, with its restorer, before it could put back what it had changed',
          'Run `cowlab doctor --restore` first.',
        );
      }
      if (planned.overcommit) {
        const before = Object.entries(SETTINGS).map(([key, name]) => [key, readSetting(name)]);
        steps.unshift(...restoreOvercommit(Object.fromEntries(before) as Required<OvercommitSettings>));
      }
      if (planned.hugetlb) {
        steps.unshift({ action: 'write', path: settingPath(POOL), value: String(readSetting(POOL)) });
      }
      // Last: strict overcommit could refuse the memory to bring its pages back [mm/swapfile.c: swapoff].
      if (planned.swap) steps.push({ action: 'swapoff', path: swapFilePath(directory) });
      if (planned.ksm) steps.unshift(...restoreKsm());
      const journal: Journal = {
        version: 1,
        bootId: readBootId(),
        pid: process.pid,
        purpose: planned.purpose,
        startedAt: new Date().toISOString(),
        steps,
      };
      const flat = steps.flatMap((step) => [step.action, step.path, step.action === 'write' ? step.value : '']);
      const into = new Float64Array(2);
      native().startRestorer(lock, journalPath(directory), JSON.stringify(journal), flat, into);
      const [pid = 0, fd = 0] = into;
      return new SystemChanges(steps, pid, fd);
    } finally {
      // The restorer has the lock from here on.
      closeSync(lock);
    }
  }

  /** Whether vm.overcommit_* was planned, so that it will be put back. */
  get allowsOvercommit(): boolean {
    return this.#plans(SETTINGS.mode);
  }

  /** Whether vm.nr_hugepages was planned. */
  get allowsHugetlb(): boolean {
    return this.#plans(POOL);
  }

  /** Whether the settings of ksmd were planned. */
  get allowsKsm(): boolean {
    return this.#steps.some(({ path }) => path === ksmPath('run'));
  }

  /** Whether a swap file was planned. */
  get allowsSwap(): boolean {
    return this.#steps.some(({ action }) => action === 'swapoff');
  }

  #plans(name: string): boolean {
    return this.#steps.some(({ path }) => path === settingPath(name));
  }

  /**
   * Sets what ksmd goes by, in the order given, under the kernel's names; what the kernel has not got is passed over.
   * With `run: 0` it has stopped on return.
   * @throws SystemError of write(2).
   */
  setKsm(settings: Partial<Record<KsmSetting, number>>): void {
    if (!this.allowsKsm) throw new TypeError('changing /sys/kernel/mm/ksm was not planned');
    if (this.#restored) throw new TypeError('the settings have been put back');
    const known = new Set<string>(ksmSettings());
    for (const [setting, value] of Object.entries(settings)) {
      if (known.has(setting)) writeFileSync(ksmPath(setting as KsmSetting), String(value));
    }
  }

  /**
   * Sets how many huge pages of the default size the pool holds.
   * @returns How many it holds: fewer where the kernel finds no more memory in one piece.
   * @throws SystemError of write(2).
   */
  setHugetlbPages(pages: number): number {
    if (!this.allowsHugetlb) throw new TypeError('changing vm.nr_hugepages was not planned');
    if (this.#restored) throw new TypeError('the settings have been put back');
    writeFileSync(settingPath(POOL), String(pages));
    return readSetting(POOL);
  }

  /**
   * Makes a swap file of so many pages, one of which is its header's, and turns it on; once a run.
   * @throws FeatureUnavailableError where there is no room, or the file system of the state directory takes no swap file.
   * @throws SystemError of swapon(2).
   */
  addSwap(pages: number): void {
    const step = this.#steps.find(({ action }) => action === 'swapoff');
    if (!step) throw new TypeError('a swap file was not planned');
    if (this.#restored) throw new TypeError('the settings have been put back');
    requireSwapPages(pages);
    turnSwapOn(step.path, pages);
  }

  /**
   * @throws FeatureUnavailableError for a limit under which this very process would be refused memory.
   * @throws SystemError of write(2), such as EINVAL.
   */
  setOvercommit(settings: OvercommitSettings): void {
    if (!this.allowsOvercommit) throw new TypeError('changing vm.overcommit_memory was not planned');
    if (this.#restored) throw new TypeError('the settings have been put back');
    if (settings.mode === 2) requireRoomToLive(settings);
    const { mode, ...limits } = settings;
    const write = (key: keyof typeof SETTINGS, value: number | undefined): void => {
      if (value !== undefined) writeFileSync(settingPath(SETTINGS[key]), String(value));
    };
    // As in putting back: strict mode is left first, and entered last.
    if (mode !== 2) write('mode', mode);
    write('adminReserveKbytes', limits.adminReserveKbytes);
    write('kbytes', limits.kbytes);
    write('ratio', limits.ratio);
    if (mode === 2) write('mode', mode);
  }

  /**
   * Has everything put back, and resolves when it is. May be called again.
   * @throws Error (rejects) that names what could not be put back; the journal then stays.
   */
  restore(): Promise<void> {
    return (this.#restored ??= this.#restore());
  }

  async #restore(): Promise<void> {
    this.#socket.ref();
    const received: Buffer[] = [];
    this.#socket.on('data', (chunk: Buffer) => received.push(chunk));
    this.#socket.end();
    await new Promise((resolve) => this.#socket.once('close', resolve));
    while (!native().reapRestorer(this.#pid)) await delay(1);
    const reports = Buffer.concat(received);
    const failures: string[] = [];
    for (let at = 0; at + REPORT_BYTES <= reports.length; at += REPORT_BYTES) {
      const step = this.#steps[Number(reports.readBigUInt64LE(at)) - 1];
      failures.push(`${step?.path ?? 'a setting'}: ${errnoName(Number(reports.readBigUInt64LE(at + 8)))}`);
    }
    // Some are written twice.
    const last = new Map(this.#steps.map((step) => [step.path, step]));
    for (const step of last.values()) {
      if (step.action === 'swapoff' && existsSync(step.path)) failures.push(`${step.path} is still there`);
      if (step.action !== 'write') continue;
      const found = readFileSync(step.path, 'utf8').trim();
      if (!isPutBack(found, step.value)) failures.push(`${step.path} is ${found}, and was ${step.value}`);
    }
    if (failures.length === 0) return;
    throw new Error(`not everything could be put back: ${failures.join('; ')}. Run \`cowlab doctor --restore\`.`);
  }
}
