/**
 * The journal of system settings that a run changes: what they were, and how they are put back. It is on the disk
 * before the first change and goes when all has been put back, so one that is found tells of a run whose restorer
 * was killed too.
 */
import { existsSync, readFileSync, rmdirSync, unlinkSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { errnoCode, readHostFile } from '../proc/read.js';
import { removeSwapFile } from './swap-file.js';

/** In the order in which it is to be carried out. */
export type RestoreStep =
  | { action: 'write'; path: string; value: string }
  /** Of a cgroup: once its processes have gone. */
  | { action: 'remove'; path: string }
  /** Of a swap file, which is then removed. */
  | { action: 'swapoff'; path: string };

export interface Journal {
  version: 1;
  /** /proc/sys/kernel/random/boot_id: another boot has put every setting back already. */
  bootId: string;
  pid: number;
  /** What the run was for. */
  purpose: string;
  startedAt: string;
  steps: RestoreStep[];
}

/** Where the lock and the journal are: of the whole machine for root, of the user otherwise (XDG Base Directory). */
export function stateDirectory(): string {
  if (process.geteuid?.() === 0) return '/var/lib/cowlab';
  return join(process.env['XDG_STATE_HOME'] ?? join(homedir(), '.local/state'), 'cowlab');
}

export function journalPath(directory: string): string {
  return join(directory, 'journal.json');
}

export function lockPath(directory: string): string {
  return join(directory, 'lock');
}

export function readBootId(): string {
  return readHostFile('/proc/sys/kernel/random/boot_id').trim();
}

/** What a journal may ask for; it is data from a file, and root carries it out. */
const SETTING = new RegExp(
  '^(/proc/sys/vm/(overcommit_(memory|ratio|kbytes)|admin_reserve_kbytes|nr_hugepages)' +
    '|/sys/kernel/mm/ksm/(run|max_page_sharing|pages_to_scan|sleep_millisecs|smart_scan|use_zero_pages))$',
);
/** Wherever cgroups are mounted; applyJournal asks whether it is one. */
const OWN_CGROUP = /^(\/[^/]+)+\/cowlab-[0-9a-f-]+$/;
const OWN_SWAP = /^(\/[^/]+)+\/cowlab-swap$/;
const SUBTREE_CONTROL = /^(\/[^/]+)+\/cgroup\.subtree_control$/;

function isStep(value: unknown): value is RestoreStep {
  if (typeof value !== 'object' || value === null) return false;
  const { action, path, value: written } = value as Record<string, unknown>;
  if (typeof path !== 'string' || path.split('/').includes('..')) return false;
  if (action === 'remove') return OWN_CGROUP.test(path);
  if (action === 'swapoff') return OWN_SWAP.test(path);
  if (action !== 'write' || typeof written !== 'string') return false;
  return SETTING.test(path)
    ? /^\d{1,20}$/.test(written)
    : SUBTREE_CONTROL.test(path) && /^-(memory|pids|memory -pids)$/.test(written);
}

/** @throws TypeError that says what is wrong with the text. */
export function parseJournal(text: string): Journal {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch {
    throw new TypeError('it is not JSON');
  }
  const { version, bootId, pid, purpose, startedAt, steps } = (parsed ?? {}) as Record<string, unknown>;
  if (version !== 1) throw new TypeError('it is of another version');
  for (const [name, part] of Object.entries({ bootId, purpose, startedAt })) {
    if (typeof part !== 'string') throw new TypeError(`${name} is missing`);
  }
  if (!Number.isSafeInteger(pid)) throw new TypeError('pid is missing');
  if (!Array.isArray(steps) || !steps.every(isStep)) throw new TypeError('it asks for what cowlab never changes');
  return parsed as Journal;
}

/** The journal that is there; undefined when there is none. @throws TypeError for one that makes no sense. */
export function readJournal(directory: string): Journal | undefined {
  const path = journalPath(directory);
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    if (errnoCode(error) === 'ENOENT') return undefined;
    throw error;
  }
  try {
    return parseJournal(text);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new TypeError(`${path} cannot be used, ${reason}: put the settings back by hand, and remove it`, {
      cause: error,
    });
  }
}

/** What became of one step of a journal. */
export interface Restored {
  step: RestoreStep;
  result: 'done' | 'not needed' | 'failed';
  /** What was found, or why it failed. */
  detail: string;
}

/** A boot has turned swap off, and has left the file. */
function restoreSwap(step: RestoreStep): Restored {
  if (!existsSync(step.path)) return { step, result: 'not needed', detail: 'it has gone' };
  removeSwapFile(step.path);
  return { step, result: 'done', detail: 'turned off and removed' };
}

function restoreStep(step: RestoreStep, sameBoot: boolean): Restored {
  if (!sameBoot && step.action !== 'swapoff')
    return { step, result: 'not needed', detail: 'the machine has been booted since' };
  try {
    if (step.action === 'swapoff') return restoreSwap(step);
    if (step.action === 'remove') {
      if (existsSync(step.path) && !existsSync(join(step.path, 'cgroup.procs'))) {
        return { step, result: 'failed', detail: 'it is not a cgroup' };
      }
      rmdirSync(step.path);
      return { step, result: 'done', detail: 'removed' };
    }
    const found = readFileSync(step.path, 'utf8').trim();
    // Written even if it reads the same: writing overcommit_ratio also unsets overcommit_kbytes.
    writeFileSync(step.path, step.value);
    return { step, result: 'done', detail: `was ${found}` };
  } catch (error) {
    if (step.action === 'remove' && errnoCode(error) === 'ENOENT') {
      return { step, result: 'not needed', detail: 'it has gone' };
    }
    return { step, result: 'failed', detail: error instanceof Error ? error.message : String(error) };
  }
}

/**
 * Carries a journal out and removes it, unless a step fails. Its lock must be held.
 * Settings under /proc and /sys and cgroups do not survive a boot, so after one nothing is left to do but to remove a swap
 * file.
 */
export function applyJournal(directory: string, journal: Journal, bootId = readBootId()): Restored[] {
  const restored = journal.steps.map((step) => restoreStep(step, journal.bootId === bootId));
  if (restored.every(({ result }) => result !== 'failed')) unlinkSync(journalPath(directory));
  return restored;
}
