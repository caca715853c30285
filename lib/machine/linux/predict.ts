/**
 * `cowlab predict`: what would a fork of a process charge, VMA by VMA, and would it succeed here? Nothing is forked:
 * the charges are read from the VmFlags of smaps, and the model's admission rules judge them (MODEL.md rules 12, 13).
 */
import { admitCountedFork, admitFork, strictLimitPages, type AdmissionRule } from '../model/admission.js';
import { inInitialUserNamespace, readForkFailureEvidence } from '../../proc/fork-evidence.js';
import {
  explainForkFailure,
  type AdmissionVerdict,
  type CauseName,
  type ForkErrno,
  type ForkFailureCause,
} from '../../proc/fork-failure.js';
import { noMemoryError } from '../../proc/process-tree.js';
import { PROC_ROOT, type Pid } from '../../proc/read.js';
import { readSmaps, vmaPages, type SmapsVma } from '../../proc/smaps.js';
import { readStat, readStatm } from '../../proc/stat.js';
import { CAP_SYS_ADMIN, hasCapability, readStatus } from '../../proc/status.js';
import type { HostFacts } from '../../schema/facts.js';
import type { Figure } from '../../schema/figure.js';
import type { CommitReading, Failure } from '../../schema/step.js';

/** Why a VMA is charged at fork or not. */
export type ChargeReason =
  /** VM_ACCOUNT (`ac`): private memory that is or was writable; its whole length is asked for. */
  | 'accounted'
  /** MADV_DONTFORK (`dc`): the child does not get it. */
  | 'dontfork'
  /** MAP_NORESERVE (`nr`). */
  | 'noreserve'
  /** Shared, read-only or special memory. */
  | 'not-accounted';

export interface VmaCharge {
  /** Addresses in hexadecimal, as in maps. */
  start: string;
  end: string;
  perms: string;
  /** '' for anonymous memory. */
  path: string;
  pages: number;
  /** What fork asks for: all of its pages or none. */
  chargedPages: number;
  reason: ChargeReason;
  /** MADV_WIPEONFORK (`wf`): charged in full though the child finds it empty. */
  wipeonfork: boolean;
}

export interface ForkPrediction {
  pid: number;
  comm: string;
  overcommitMode: HostFacts['overcommitMode'];
  pageSizeBytes: number;
  /** In address order, which is the order in which fork asks. */
  vmas: VmaCharge[];
  chargedPages: number;
  chargedBytes: number;
  /** VMAs and their pages by reason. */
  byReason: Record<ChargeReason, { vmas: number; pages: number }>;
  /** What the commit rules alone say. */
  admission: AdmissionVerdict;
  /** The VMA that is refused, or with an uncertain verdict the first that may be. */
  refusedVma?: VmaCharge;
  outcome: 'succeeds' | 'fails' | 'uncertain';
  /** What fork would say; only when it fails. */
  errno?: ForkErrno;
  /** Causes other than the commit rules that are not excluded: limits that are full, or could not be read. */
  otherCauses: ForkFailureCause[];
  /** The answer in one sentence. */
  sentence: string;
}

/** What a fork asks for each VMA [kernel/fork.c: dup_mmap], in address order. Pure. */
export function chargesOf(vmas: readonly SmapsVma[], pageSizeBytes: number): VmaCharge[] {
  return vmas.map((vma) => {
    const pages = vmaPages(vma, pageSizeBytes);
    const reason = reasonOf(vma.vmFlags);
    return {
      start: vma.start.toString(16),
      end: vma.end.toString(16),
      perms: vma.perms,
      path: vma.path,
      pages,
      chargedPages: reason === 'accounted' ? pages : 0,
      reason,
      wipeonfork: vma.vmFlags.includes('wf'),
    };
  });
}

function reasonOf(flags: readonly string[]): ChargeReason {
  if (flags.includes('dc')) return 'dontfork';
  if (flags.includes('ac')) return 'accounted';
  return flags.includes('nr') ? 'noreserve' : 'not-accounted';
}

const MODE_NAMES = ['heuristic', 'always', 'never'] as const;

const SPAWN = 'To start another program, use posix_spawn or vfork, which charge nothing.';
const REMEDIES: Record<AdmissionRule, string> = {
  'vma-beyond-memory': `MADV_DONTFORK on a part of that VMA, or splitting it (mprotect on a part). ${SPAWN}`,
  'free-memory': `Fork before the memory is mapped, or add swap. ${SPAWN}`,
  'commit-limit': `Add swap or raise vm.overcommit_ratio, which raise CommitLimit; MADV_DONTFORK on big VMAs. ${SPAWN}`,
};

/** The figures by which a fork that nothing refuses was judged, as a sentence. */
function figuresOf(facts: HostFacts, asked: readonly number[], totalPages: number): string {
  const mode = `Overcommit ${facts.overcommitMode} (${MODE_NAMES[facts.overcommitMode]})`;
  const charge = asked.reduce((sum, pages) => sum + pages, 0);
  const largest = asked.reduce((most, pages) => Math.max(most, pages), 0);
  switch (facts.overcommitMode) {
    case 0: {
      const [major, minor] = facts.kernelVersion;
      const judged = `the largest that is charged has ${largest} pages`;
      if (major < 5 || (major === 5 && minor < 2)) {
        return `${mode} of Linux before 5.2 judges each VMA by what is free: ${judged}.`;
      }
      const allowed = facts.memTotalPages + facts.swapTotalPages;
      return `${mode} judges each VMA alone: ${judged}, and up to ${allowed} (RAM plus swap) are allowed.`;
    }
    case 1:
      return `${mode} refuses no fork.`;
    case 2:
      return (
        `${mode}: ${charge} pages more make ${facts.committedPages + charge} of the ` +
        `${strictLimitPages(facts, totalPages)} pages that may be promised.`
      );
  }
}

/**
 * The verdict of the model's rules with its figures as a sentence, and the VMA that is (or may be) refused. Pure.
 * @param facts With the CAP_SYS_ADMIN of the process that forks.
 * @param totalPages Its total_vm.
 * @param reading What the commit counter stood at, where it was read right before a fork.
 */
export function judgeAdmission(
  facts: HostFacts,
  charges: readonly VmaCharge[],
  totalPages: number,
  reading?: CommitReading,
): { admission: AdmissionVerdict; vma: VmaCharge | undefined; allowedPages?: Figure } {
  const charged = charges.filter(({ reason }) => reason === 'accounted');
  const asked = charged.map(({ chargedPages }) => chargedPages);
  const verdict = reading
    ? admitCountedFork(facts, reading)
    : admitFork(facts, asked, facts.committedPages, totalPages);
  if (verdict.verdict === 'allowed') {
    return { admission: { fork: 'admitted', why: figuresOf(facts, asked, totalPages) }, vma: undefined };
  }
  const why = `${verdict.why.slice(0, 1).toUpperCase()}${verdict.why.slice(1)}.`;
  const admission = { fork: verdict.verdict, why, remedy: REMEDIES[verdict.rule] };
  return { admission, vma: charged[verdict.index], allowedPages: verdict.allowedPages };
}

interface Judged {
  comm: string;
  pid: number;
  vmas: VmaCharge[];
  admission: AdmissionVerdict;
  refusedVma: VmaCharge | undefined;
  allowedPages: Figure | undefined;
}

/** What a process's fork would be asked for, and what the commit rules say to it. */
function judgeProcess(
  pid: Pid,
  facts: HostFacts,
  procRoot: string,
  smaps: readonly SmapsVma[],
  reading?: CommitReading,
): Judged {
  const stat = readStat(pid, procRoot);
  if (smaps.length === 0) throw noMemoryError(`A fork of ${stat.pid} (${stat.comm})`);
  const vmas = chargesOf(smaps, facts.pageSizeBytes);
  // The admin reserve is asked with the rights of who forks, in the initial user namespace [cap_vm_enough_memory].
  const capSysAdmin =
    hasCapability(readStatus(pid, procRoot), CAP_SYS_ADMIN) === true && inInitialUserNamespace(pid, procRoot) === true;
  const { sizePages } = readStatm(pid, procRoot);
  const { admission, vma, allowedPages } = judgeAdmission({ ...facts, capSysAdmin }, vmas, sizePages, reading);
  return { comm: stat.comm, pid: stat.pid, vmas, admission, refusedVma: vma, allowedPages };
}

/**
 * Explains a fork that has just failed: which rule refused which VMA, or which other limit of the same errno is full.
 * @param facts With `committedPages` as it is now.
 * @param reading What the commit counter stood at right before the fork, if it was read.
 */
export function explainRefusal(pid: Pid, errno: ForkErrno, facts: HostFacts, reading?: CommitReading): Failure {
  const { admission, refusedVma, allowedPages } = judgeProcess(pid, facts, PROC_ROOT, readSmaps(pid), reading);
  const { summary } = explainForkFailure(errno, readForkFailureEvidence(pid, admission));
  const failure: Failure = { code: errno, syscall: 'fork', why: summary };
  if (errno === 'ENOMEM' && refusedVma && allowedPages !== undefined) {
    return { ...failure, vmaPages: refusedVma.chargedPages, allowedPages };
  }
  return failure;
}

/** The order in which the kernel meets the limits [kernel/fork.c: copy_process]; the first that is full decides. */
const ORDER: readonly CauseName[] = [
  'rlimit-nproc',
  'threads-max',
  'overcommit',
  'pid-namespace-without-init',
  'pid-max',
  'cgroup-pids',
];

/**
 * Predicts a fork of a process that is left alone. The process is not stopped: one that maps memory meanwhile is seen
 * in between, so stop it (SIGSTOP) where each page matters.
 * @param facts Of this host; `committedPages` is taken as it stands there. Its figures of a root are not used.
 * @param smaps The mappings of the process, for who has read them already: the kernel walks all its pages to make them.
 * @throws SystemError ESRCH: there is no such process; EACCES: its smaps may not be read by this user.
 * @throws FeatureUnavailableError when the process has no memory (a kernel thread, a zombie).
 */
export function predictFork(
  pid: Pid,
  facts: HostFacts,
  procRoot: string = PROC_ROOT,
  fsRoot = '/',
  smaps: readonly SmapsVma[] = readSmaps(pid, procRoot),
): ForkPrediction {
  const { pageSizeBytes, overcommitMode } = facts;
  const { comm, pid: target, vmas, admission, refusedVma } = judgeProcess(pid, facts, procRoot, smaps);
  const evidence = readForkFailureEvidence(pid, admission, procRoot, fsRoot);
  const open = (['EAGAIN', 'ENOMEM'] as const).flatMap((errno) =>
    explainForkFailure(errno, evidence)
      .causes.filter(({ likelihood }) => likelihood !== 'excluded')
      .map((cause) => ({ errno, ...cause })),
  );
  const decisive = open
    .filter(({ likelihood }) => likelihood === 'certain')
    .sort((a, b) => ORDER.indexOf(a.cause) - ORDER.indexOf(b.cause))[0];
  const byReason: ForkPrediction['byReason'] = {
    accounted: { vmas: 0, pages: 0 },
    dontfork: { vmas: 0, pages: 0 },
    noreserve: { vmas: 0, pages: 0 },
    'not-accounted': { vmas: 0, pages: 0 },
  };
  for (const { reason, pages } of vmas) {
    byReason[reason].vmas++;
    byReason[reason].pages += pages;
  }
  const chargedPages = byReason.accounted.pages;
  const chargedBytes = chargedPages * pageSizeBytes;
  const outcome = decisive ? 'fails' : admission.fork === 'uncertain' ? 'uncertain' : 'succeeds';
  return {
    pid: target,
    comm,
    overcommitMode,
    pageSizeBytes,
    vmas,
    chargedPages,
    chargedBytes,
    byReason,
    admission,
    ...(refusedVma ? { refusedVma } : {}),
    outcome,
    ...(decisive ? { errno: decisive.errno } : {}),
    otherCauses: open
      // The rules are told above, and max_map_count refuses other calls than fork.
      .filter(({ cause }) => cause !== 'overcommit' && cause !== 'max-map-count')
      .map(({ cause, likelihood, evidence, remedy }) => ({
        cause,
        likelihood,
        evidence,
        ...(remedy === undefined ? {} : { remedy }),
      })),
    sentence: sentenceOf({ pid: target, comm }, chargedBytes, outcome, decisive),
  };
}

function sentenceOf(
  { pid, comm }: { pid: number; comm: string },
  chargedBytes: number,
  outcome: ForkPrediction['outcome'],
  decisive: { errno: ForkErrno; cause: CauseName } | undefined,
): string {
  const charge = `A fork of ${pid} (${comm}) would charge ${binaryBytes(chargedBytes)}`;
  if (decisive) return `${charge} and would fail with ${decisive.errno} (${decisive.cause}).`;
  if (outcome === 'succeeds') return `${charge} and would succeed.`;
  return `${charge}; whether it would succeed is too close to tell.`;
}

/** A count of bytes for people: '2.1 GiB'. */
export function binaryBytes(bytes: number): string {
  const units = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  const power = bytes < 1024 ? 0 : Math.min(units.length - 1, Math.floor(Math.log2(bytes) / 10));
  return `${power === 0 ? String(bytes) : (bytes / 1024 ** power).toFixed(1)} ${units[power] ?? ''}`;
}
