/**
 * Commit charge and admission: whether the kernel lets a process promise itself more memory.
 * Pure arithmetic, for the model and for `cowlab predict`, which applies it to processes of others.
 */
import type { Figure } from '../../schema/figure.js';
import type { HostFacts } from '../../schema/facts.js';
import type { CommitReading } from '../../schema/step.js';

/** What admission depends on of the host. */
export type CommitFacts = Pick<
  HostFacts,
  | 'kernelVersion'
  | 'cpus'
  | 'memTotalPages'
  | 'swapTotalPages'
  | 'overcommitMode'
  | 'commitLimitPages'
  | 'adminReservePages'
  | 'userReservePages'
  | 'capSysAdmin'
  | 'free'
>;

/** One charge that is asked for. */
export interface Charge {
  pages: number;
  /** Committed_AS before it. */
  committedPages: number;
  /** total_vm of the process that asks. */
  totalPages: number;
  /** Frames taken since `facts.free` was read; only kernels before 5.2 ask what is free. */
  usedPages?: number;
  /** How much less sure `committedPages` is than the counter makes it: others have changed it meanwhile. */
  moreSlackPages?: number;
}

/** 'vma-beyond-memory': mode 0 since 5.2; 'free-memory': mode 0 before; 'commit-limit': mode 2. */
export type AdmissionRule = 'vma-beyond-memory' | 'free-memory' | 'commit-limit';

export type ChargeVerdict =
  | { verdict: 'allowed' }
  | {
      verdict: 'refused' | 'uncertain';
      rule: AdmissionRule;
      /** The rule with its figures, as a sentence. */
      why: string;
      /** The most that would have been allowed at this point. */
      allowedPages: Figure;
    };

const ALLOWED: ChargeVerdict = { verdict: 'allowed' };

/** Whether a charge is admitted [__vm_enough_memory, mm/util.c]. */
export function admitCharge(facts: CommitFacts, charge: Charge): ChargeVerdict {
  switch (facts.overcommitMode) {
    case 0:
      return judgesByFreeMemory(facts) ? admitByFreeMemory(facts, charge) : admitByVmaSize(facts, charge);
    case 1:
      return ALLOWED;
    case 2:
      return admitByCommitLimit(facts, charge);
  }
}

/** Commit 8c7829b04c52 (Linux 5.2) made the heuristic refuse obvious overcommits only. */
function judgesByFreeMemory({ kernelVersion: [major, minor] }: CommitFacts): boolean {
  return major < 5 || (major === 5 && minor < 2);
}

function admitByVmaSize(facts: CommitFacts, { pages }: Charge): ChargeVerdict {
  const allowedPages = facts.memTotalPages + facts.swapTotalPages;
  if (pages <= allowedPages) return ALLOWED;
  const why = `heuristic overcommit refuses ${pages} pages at once, more than all RAM and swap (${allowedPages} pages)`;
  return { verdict: 'refused', rule: 'vma-beyond-memory', why, allowedPages };
}

/** No kernel tells its totalreserve_pages; it is a few per cent of memory, and never near this part of it. */
const RESERVE_PART_AT_MOST = 1 / 16;

function admitByFreeMemory(facts: CommitFacts, { pages, usedPages = 0 }: Charge): ChargeVerdict {
  const { freePages, filePages, shmemPages, swapFreePages, reclaimableSlabPages } = facts.free;
  const adminReserve = facts.capSysAdmin ? 0 : facts.adminReservePages;
  const available = freePages + filePages - shmemPages + swapFreePages + reclaimableSlabPages - usedPages;
  // `free > pages` passes, so the most that is allowed is one page less.
  const max = Math.max(0, available - adminReserve - 1);
  const min = Math.max(0, max - Math.floor(facts.memTotalPages * RESERVE_PART_AT_MOST));
  if (pages <= min) return ALLOWED;
  const reserve = 'the kernel does not tell the pages it holds in reserve';
  return {
    verdict: pages > max ? 'refused' : 'uncertain',
    rule: 'free-memory',
    why:
      `before Linux 5.2 heuristic overcommit allows what is free or can be freed, ${min} to ${max} pages ` +
      `(${reserve}); ${pages} are asked for`,
    allowedPages: { min, max, why: reserve },
  };
}

/** CommitLimit by a vm.overcommit_ratio [mm/util.c: vm_commit_limit]. */
export function limitByRatioPages(
  facts: Pick<HostFacts, 'memTotalPages' | 'hugetlbPages' | 'swapTotalPages'>,
  ratio: number,
): number {
  return Math.floor(((facts.memTotalPages - facts.hugetlbPages) * ratio) / 100) + facts.swapTotalPages;
}

/** vm_committed_as_batch in strict mode [mm_compute_batch, mm/mm_init.c]. */
export function commitBatchPages({ cpus, memTotalPages }: CommitFacts): number {
  return Math.max(Math.floor(memTotalPages / cpus / 256), cpus * 2, 32);
}

/** How far percpu_counter_read_positive(&vm_committed_as) can be from the sum that /proc/meminfo shows. */
export function commitSlackPages(facts: CommitFacts): number {
  return facts.cpus * (commitBatchPages(facts) - 1);
}

/** Strict overcommit: what Committed_AS must stay below for this process. */
export function strictLimitPages(facts: CommitFacts, totalPages: number): number {
  const adminReserve = facts.capSysAdmin ? 0 : facts.adminReservePages;
  return facts.commitLimitPages - adminReserve - Math.min(Math.floor(totalPages / 32), facts.userReservePages);
}

function admitByCommitLimit(facts: CommitFacts, charge: Charge): ChargeVerdict {
  const { pages, committedPages, totalPages, moreSlackPages = 0 } = charge;
  const limit = strictLimitPages(facts, totalPages);
  const slack = commitSlackPages(facts) + moreSlackPages;
  // After adding, percpu_counter_read_positive() < allowed passes.
  const after = committedPages + pages;
  if (Math.max(0, after + slack) < limit) return ALLOWED;
  const exact = limit - 1 - committedPages;
  const counter = `the kernel reads a per-CPU counter that may be ${slack} pages off`;
  const allowedPages = { min: Math.max(0, exact - slack), max: Math.max(0, exact + slack), why: counter };
  const why = `strict overcommit: ${pages} pages more make ${after} of ${limit} pages that may be promised`;
  return Math.max(0, after - slack) >= limit
    ? { verdict: 'refused', rule: 'commit-limit', why, allowedPages }
    : { verdict: 'uncertain', rule: 'commit-limit', why: `${why}; ${counter}`, allowedPages };
}

export type ForkVerdict = {
  /** What the child is charged if the fork succeeds, in pages. */
  chargePages: number;
} & (
  | { verdict: 'allowed' }
  | {
      /** 'uncertain': the fork fails at this VMA or a later one, or not at all. */
      verdict: 'refused' | 'uncertain';
      rule: AdmissionRule;
      why: string;
      /** Index of the VMA that is refused. */
      index: number;
      /** Its length. */
      askedPages: number;
      allowedPages: Figure;
    }
);

/**
 * Whether a fork is admitted: dup_mmap() charges the child's accounted VMAs one by one, and one refusal fails it.
 *
 * @param vmaPages Lengths of the parent's VMAs that have VM_ACCOUNT (`ac`) and not VM_DONTCOPY (`dc`), in address order.
 * @param committedPages Committed_AS before the fork.
 * @param totalPages total_vm of the parent (first field of statm): dup_mmap() asks on behalf of the parent.
 * @param usedPages Frames taken since `facts.free` was read.
 * @param moreSlackPages By how much others may have changed Committed_AS since it was read.
 */
export function admitFork(
  facts: CommitFacts,
  vmaPages: readonly number[],
  committedPages: number,
  totalPages: number,
  usedPages = 0,
  moreSlackPages = 0,
): ForkVerdict {
  const chargePages = vmaPages.reduce((total, pages) => total + pages, 0);
  let committed = committedPages;
  let doubt: ForkVerdict | undefined;
  for (const [index, pages] of vmaPages.entries()) {
    const verdict = admitCharge(facts, { pages, committedPages: committed, totalPages, usedPages, moreSlackPages });
    committed += pages;
    if (verdict.verdict === 'allowed') continue;
    const found: ForkVerdict = { ...verdict, chargePages, index, askedPages: pages };
    if (verdict.verdict === 'refused') return found;
    doubt ??= found;
  }
  return doubt ?? { verdict: 'allowed', chargePages };
}

/**
 * What the check sees of the counter as a fork's VMAs are charged one by one. What is charged stays in the part of the
 * CPU until that has grown to a batch, and only then is seen [percpu_counter_add_batch, lib/percpu_counter.c]: so the
 * small VMAs at the end may pass beyond the limit.
 */
function* seenAsCharged(
  facts: CommitFacts,
  { vmaPages, committedPages }: CommitReading,
): Generator<{ index: number; pages: number; seen: number }> {
  const batch = commitBatchPages(facts);
  let seen = committedPages;
  let unseen = 0;
  for (const [index, pages] of vmaPages.entries()) {
    unseen += pages;
    if (unseen >= batch) [seen, unseen] = [seen + unseen, 0];
    yield { index, pages, seen };
  }
}

/** Whether a fork under strict overcommit is admitted, where the counter was read right before it. */
export function admitCountedFork(facts: CommitFacts, reading: CommitReading): ForkVerdict {
  const { vmaPages, committedPages, totalPages, slackPages } = reading;
  if (!reading.folded) return admitFork(facts, vmaPages, committedPages, totalPages, 0, slackPages);
  const chargePages = vmaPages.reduce((total, pages) => total + pages, 0);
  const limit = strictLimitPages(facts, totalPages);
  let doubt: ForkVerdict | undefined;
  for (const { index, pages, seen } of seenAsCharged(facts, reading)) {
    if (seen + slackPages < limit) continue;
    const exact = limit - 1 - (seen - pages);
    const others = 'others on this machine changed what is committed meanwhile';
    const allowedPages = slackPages === 0 ? exact : { min: exact - slackPages, max: exact + slackPages, why: others };
    const why = `strict overcommit: ${pages} pages more make ${seen} of ${limit} pages that may be promised`;
    const found = { rule: 'commit-limit' as const, chargePages, index, askedPages: pages, allowedPages };
    if (seen - slackPages >= limit) return { verdict: 'refused', why, ...found };
    doubt ??= { verdict: 'uncertain', why: `${why}; ${others}`, ...found };
  }
  return doubt ?? { verdict: 'allowed', chargePages };
}

/**
 * How many pages more a fork could have been charged (0 or more: it is admitted), or by how many its charge was too
 * great (negative), as the check sees it where the counter was folded, else by the plain sum.
 */
export function strictMarginPages(facts: CommitFacts, reading: CommitReading): number {
  let most = reading.committedPages;
  if (reading.folded) for (const { seen } of seenAsCharged(facts, reading)) most = Math.max(most, seen);
  else most += reading.vmaPages.reduce((total, pages) => total + pages, 0);
  return strictLimitPages(facts, reading.totalPages) - 1 - most;
}

/**
 * The lengths that a refused VMA can have when the address order of the VMAs is not known.
 * @param headroom How many pages more the commit limit allows; undefined for rules that judge each VMA alone.
 */
export function refusableVmas(
  facts: CommitFacts,
  vmaPages: readonly number[],
  headroom: number | undefined,
): readonly number[] {
  if (headroom === undefined) {
    const charge = { committedPages: 0, totalPages: 0 };
    return vmaPages.filter((pages) => admitCharge(facts, { ...charge, pages }).verdict !== 'allowed');
  }
  // A VMA is refused if those before it fit and it does not: those that fit alone must leave too little for it.
  const fitting = vmaPages.filter((pages) => pages <= headroom).reduce((total, pages) => total + pages, 0);
  return vmaPages.filter((pages) => (pages <= headroom ? fitting : fitting + pages) > headroom);
}
