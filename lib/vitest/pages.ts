/** What the matchers about pages are applied to, and how pages are shown in their messages. */
import { Mapping } from '../api/mapping.js';
import type { ForkedProcess, RegionHandle } from '../api/forked-process.js';
import { pageSizeBytes } from '../proc/host.js';
import { PAGE_STATES, appendStateRuns, readPageStates } from '../proc/pagemap.js';
import { requireObject, requireRange } from '../schema/arguments.js';
import type { PageRange } from '../schema/arguments.js';
import { countStates } from '../schema/state-runs.js';
import type { PageState, RegionObservation, StateRuns } from '../schema/step.js';

/** Pages of a living process, which a matcher reads when it is called. */
export interface PagesOf {
  pid: number;
  /** Page-aligned. */
  address: bigint;
  pages: number;
}

/** Pages at the moment a matcher judges them. */
export interface JudgedPages {
  /** 'process 42' or 'region r1'. */
  owner: string;
  pages: number;
  runs: StateRuns;
  counts: Record<PageState, number>;
}

/** Runs shown in a message; the rest is counted. */
const SHOWN_RUNS = 24;

/**
 * The pages that a process has of a region, for `expect()`.
 * @param process A forked process, or Node's own `process` for a mapping of Node.
 * @param range Of the region. Default: all of it.
 * @throws TypeError if the process has no such region; RangeError for pages outside of it.
 */
export function pagesOf(process: ForkedProcess | NodeJS.Process, region: RegionHandle, range?: PageRange): PagesOf {
  requireObject('process', process);
  const { address, pages } = placementIn(process, region);
  const run = requireRange(range, pages);
  return { pid: process.pid, address: address + BigInt(run.first * pageSizeBytes()), pages: run.pages };
}

function placementIn(
  process: ForkedProcess | NodeJS.Process,
  region: RegionHandle,
): { address: bigint; pages: number } {
  if ('placement' in process) return process.placement(region);
  if (region instanceof Mapping) return region;
  throw new TypeError('region is not a mapping of Node, which is the process given');
}

/** @throws TypeError for what is no pages; errors as readPageStates. */
export function judge(received: unknown): JudgedPages {
  if (typeof received !== 'object' || received === null) throw new TypeError('received must be of pagesOf()');
  if (isObservation(received)) return judged(`region ${received.region}`, received.states);
  const { pid, address, pages } = received as PagesOf;
  return judged(`process ${pid}`, runsOf(readPageStates(pid, { address, pages })));
}

/** Runs of equal states. @param states Indices into PAGE_STATES. Pure. */
export function runsOf(states: Uint8Array): StateRuns {
  const runs: StateRuns = [];
  appendStateRuns(runs, states);
  return runs;
}

/** Pure. */
export function judged(owner: string, runs: StateRuns): JudgedPages {
  return { owner, pages: runs.reduce((sum, [pages]) => sum + pages, 0), runs, counts: countStates(runs) };
}

function isObservation(received: object): received is RegionObservation {
  return 'states' in received && Array.isArray(received.states) && 'region' in received;
}

/** 'pages 0..49 exclusive, 50..99 shared' and, of several runs, how many of each state. Pure. */
export function showPages({ runs, counts }: Pick<JudgedPages, 'runs' | 'counts'>): string {
  let first = 0;
  const shown: string[] = [];
  for (const [pages, state] of runs) {
    const last = first + pages - 1;
    shown.push(`${first === last ? String(first) : `${first}..${last}`} ${state}`);
    first += pages;
  }
  const hidden = shown.length - SHOWN_RUNS;
  const listed = shown.slice(0, SHOWN_RUNS).join(', ') + (hidden > 0 ? ` and ${hidden} more runs` : '');
  const sums = PAGE_STATES.filter((state) => counts[state] > 0).map((state) => `${counts[state]} ${state}`);
  return runs.length > 1 ? `pages ${listed} (${sums.join(', ')})` : `pages ${listed}`;
}
