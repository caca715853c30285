/** The model's own account of committed memory, and admission as the model's processes meet it. */
import type { Figure } from '../../schema/figure.js';
import type { CommitReading, Failure, Outcome, StepOf } from '../../schema/step.js';
import {
  admitCharge,
  admitCountedFork,
  admitFork,
  type ChargeVerdict,
  type ForkVerdict,
  limitByRatioPages,
  refusableVmas,
  strictLimitPages,
} from './admission.js';
import type { Mapping, ModelProcess, World } from './process.js';

/** A guard page stands before and after every region; they count in total_vm. */
export const GUARD_PAGES = 2;

/** total_vm of a process. */
export function totalPages(process: ModelProcess): number {
  let total = process.basePages;
  for (const mapping of process.mappings.values()) total += mapping.pages + GUARD_PAGES;
  return total;
}

export function committedPages(world: World): number {
  return world.facts.committedPages + world.chargedPages;
}

/** Frames that the model's processes have taken since the facts were read. */
function usedPages(world: World): number {
  let used = 0;
  for (const lineage of world.lineages) used += lineage.frames();
  return used;
}

/** How an admission ended: with a failure, or with a doubt that is kept for the outcome. */
export interface Admitted {
  failure?: Failure;
  uncertain?: string;
}

/**
 * Asks for a charge on behalf of a process, and charges it if it is admitted.
 * @param extraPages What total_vm counts beside the regions at this moment.
 * @param recorded Decides where the rules do not.
 */
export function charge(
  world: World,
  process: ModelProcess,
  request: { pages: number; syscall: string; extraPages?: number },
  recorded: Outcome | undefined,
): Admitted {
  const { pages, syscall, extraPages = 0 } = request;
  const verdict = admitCharge(world.facts, {
    pages,
    committedPages: committedPages(world),
    totalPages: totalPages(process) + extraPages,
    usedPages: world.facts.overcommitMode === 0 ? usedPages(world) : 0,
  });
  const admitted = follow(verdict, syscall, pages, recorded);
  if (!admitted.failure) world.chargedPages += pages;
  return admitted;
}

/** Doubt about memory that was charged page by page as it was touched: a refusal there is a signal, not an errno. */
export function doubtAfterTouching(world: World, process: ModelProcess, chargedBefore: number): Admitted {
  const pages = world.chargedPages - chargedBefore;
  if (world.facts.overcommitMode !== 2 || pages <= 0) return {};
  const verdict = admitCharge(world.facts, {
    pages,
    committedPages: committedPages(world) - pages,
    totalPages: totalPages(process),
  });
  return verdict.verdict === 'allowed' ? {} : { uncertain: verdict.why };
}

function follow(verdict: ChargeVerdict, syscall: string, pages: number, recorded: Outcome | undefined): Admitted {
  if (verdict.verdict === 'allowed') return {};
  if (verdict.verdict === 'uncertain') return followRecorded(verdict.why, recorded);
  const { why, allowedPages } = verdict;
  return { failure: { code: 'ENOMEM', syscall, why, vmaPages: pages, allowedPages } };
}

function followRecorded(uncertain: string, recorded: Outcome | undefined): Admitted {
  return recorded?.failure ? { uncertain, failure: recorded.failure } : { uncertain };
}

/** Lengths of the VMAs that a child of the process is charged for. */
export function chargedAtFork(process: ModelProcess): number[] {
  const regions = [...process.mappings.values()].flatMap((mapping: Mapping) =>
    mapping.vmas.filter((vma) => vma.accounted && !vma.dontfork).map((vma) => vma.pages),
  );
  return [...process.baseVmas, ...regions];
}

/** Asks for a fork, and charges the child if it is admitted. */
export function chargeFork(world: World, process: ModelProcess, recorded: Outcome | undefined): Outcome {
  const vmas = chargedAtFork(process);
  const total = totalPages(process);
  const reading = world.facts.overcommitMode === 2 ? recorded?.commit : undefined;
  const admitted = reading
    ? countedFork(world, reading, { vmas, total }, recorded)
    : followFork(world, judgeFork(world, vmas, total), vmas, total, recorded);
  if (!admitted.failure) world.chargedPages += vmas.reduce((sum, pages) => sum + pages, 0);
  return admitted;
}

function judgeFork(world: World, vmas: readonly number[], total: number): ForkVerdict {
  const used = world.facts.overcommitMode === 0 ? usedPages(world) : 0;
  return admitFork(world.facts, vmas, committedPages(world), total, used);
}

/** Judges a fork by what was read right before it, and says beside it what the model itself would have read. */
function countedFork(
  world: World,
  reading: CommitReading,
  own: { vmas: readonly number[]; total: number },
  recorded: Outcome | undefined,
): Outcome {
  // Others have charged memory since the facts were taken.
  knowCommitted(world, reading.committedPages);
  const commit = { ...reading, vmaPages: inOrderOf(reading.vmaPages, own.vmas), totalPages: own.total };
  const verdict = admitCountedFork(world.facts, reading);
  if (verdict.verdict === 'allowed') return { commit };
  if (verdict.verdict === 'uncertain') return { commit, ...followRecorded(verdict.why, recorded) };
  const { why, askedPages, allowedPages } = verdict;
  return { commit, failure: { code: 'ENOMEM', syscall: 'fork', why, vmaPages: askedPages, allowedPages } };
}

/** Where the kernel has put the VMAs, and so their order, no model knows: it is taken from the reading. */
function inOrderOf(read: readonly number[], own: readonly number[]): number[] {
  const inAscent = (lengths: readonly number[]): string => [...lengths].sort((a, b) => a - b).join();
  return inAscent(read) === inAscent(own) ? [...read] : [...own];
}

/** Takes Committed_AS as it was read, in the place of what the model has added up. */
function knowCommitted(world: World, pages: number): void {
  world.facts = { ...world.facts, committedPages: pages - world.chargedPages };
}

/** Settings of vm.overcommit_* [mm/util.c: vm_commit_limit]. */
export function setOvercommit(world: World, step: StepOf<'overcommit'>, recorded?: Outcome): Outcome {
  const { mode, kbytes, ratio, adminReserveKbytes } = step;
  const { swapTotalPages, pageSizeBytes } = world.facts;
  const toPages = (kb: number): number => Math.floor((kb * 1024) / pageSizeBytes);
  let { commitLimitPages, adminReservePages } = world.facts;
  if (kbytes !== undefined) commitLimitPages = toPages(kbytes) + swapTotalPages;
  if (ratio !== undefined) commitLimitPages = limitByRatioPages(world.facts, ratio);
  if (adminReserveKbytes !== undefined) adminReservePages = toPages(adminReserveKbytes);
  world.facts = { ...world.facts, overcommitMode: mode, commitLimitPages, adminReservePages };
  if (recorded?.committedPages !== undefined) knowCommitted(world, recorded.committedPages);
  return { commitLimitPages, committedPages: committedPages(world) };
}

/** Swap counts for the heuristic rule and for CommitLimit. A page of it is its header's. */
export function addSwap(world: World, { pages }: StepOf<'swap'>): Outcome {
  const { swapTotalPages, commitLimitPages } = world.facts;
  const usable = pages - 1;
  world.hasSwap = true;
  world.facts = {
    ...world.facts,
    swapTotalPages: swapTotalPages + usable,
    commitLimitPages: commitLimitPages + usable,
  };
  return { commitLimitPages: world.facts.commitLimitPages };
}

function followFork(
  world: World,
  verdict: ForkVerdict,
  vmas: readonly number[],
  total: number,
  recorded: Outcome | undefined,
): Admitted {
  if (verdict.verdict === 'allowed') return {};
  if (verdict.verdict === 'uncertain') return followRecorded(verdict.why, recorded);
  const strict = verdict.rule === 'commit-limit';
  const headroom = strict ? strictLimitPages(world.facts, total) - 1 - committedPages(world) : undefined;
  const lengths = refusableVmas(world.facts, vmas, headroom);
  const vmaPages = lengths.length === 0 ? verdict.askedPages : rangeOf(lengths, ADDRESS_ORDER);
  // What is left for the refused VMA depends on those that were charged before it.
  const allowedPages = strict ? { unknown: ADDRESS_ORDER } : verdict.allowedPages;
  return { failure: { code: 'ENOMEM', syscall: 'fork', why: verdict.why, vmaPages, allowedPages } };
}

const ADDRESS_ORDER = 'the VMAs are charged in address order, which the model does not know';

function rangeOf(values: readonly number[], why: string): Figure {
  const min = Math.min(...values);
  const max = Math.max(...values);
  return min === max ? min : { min, max, why };
}
