/**
 * What this host offers to a copy-on-write laboratory, what it lacks, and what would help: `cowlab doctor`.
 * Everything here only looks; nothing is changed.
 */
import { detectContainer } from './container.js';
import { cgroupFindings, containerFinding, privilegeFinding, processLimitsFinding } from './doctor-limits.js';
import {
  hugetlbFinding,
  kernelFinding,
  ksmFinding,
  namedVmasFinding,
  nodeFinding,
  pagemapFinding,
  pfnFinding,
  probeFindings,
  userfaultfdFinding,
  zeroPageFinding,
} from './doctor-features.js';
import { commitFinding, memoryFinding, overcommitFinding, thpFinding } from './doctor-memory.js';
import { PROC_ROOT, SYS_ROOT, errnoCode } from './read.js';

/**
 * 'ok': there, as experiments want it; 'limited': there, but some experiments cannot run or be exact;
 * 'missing': not there; 'unknown': could not be found out, which is never taken for 'missing'.
 */
export type FindingStatus = 'ok' | 'limited' | 'missing' | 'unknown';

export interface Finding {
  name: string;
  status: FindingStatus;
  /** What was found, with figures. */
  found: string;
  /** What cowlab uses it for. */
  neededFor: string;
  /** What would help; absent where nothing needs help or can. */
  remedy?: string;
}

/** Outcome of trying a system call or an ioctl; `code` is an errno such as 'ENOTTY'. */
export type Probe = { ok: true } | { ok: false; code: string };

/** What only the addon can try (native.ts fills it in). */
export interface NativeProbes {
  /** ioctl PAGEMAP_SCAN on /proc/self/pagemap (6.7). */
  pagemapScan: Probe;
  /** ioctl PROCMAP_QUERY on /proc/self/maps (6.11). */
  procmapQuery: Probe;
  /** Pagemap bit 55 is set by a write after '4' was written to clear_refs (CONFIG_MEM_SOFT_DIRTY). */
  softDirty: Probe;
  /** userfaultfd(2) with UFFD_USER_MODE_ONLY opens, and UFFDIO_API accepts UFFD_FEATURE_WP_ASYNC (6.7). */
  userfaultfdWpAsync: Probe;
  /** The pagemap entry of a touched page has a frame number that is not zero (CAP_SYS_ADMIN). */
  pfnVisible: Probe;
  /** A read of untouched private memory allocates a page, where others map the zero page. */
  forbidsZeroPage: boolean;
  /** prctl PR_SET_VMA_ANON_NAME (CONFIG_ANON_VMA_NAME, 5.17). Undefined: not tried. */
  namedAnonymousVmas?: Probe;
  /** totalram and totalswap of sysinfo(2), in pages. */
  sysinfo: { memTotalPages: number; swapTotalPages: number };
}

export interface ExamineInput {
  /** Undefined when the addon could not be loaded: what it would try is then unknown. */
  probes: NativeProbes | undefined;
  pageSizeBytes: number;
  /** As process.version, the default. */
  nodeVersion?: string;
  procRoot?: string;
  sysRoot?: string;
  /** Where /run and the mount points of cgroups are found; '/' but in tests. */
  fsRoot?: string;
}

/** What each check is given. */
export interface DoctorContext {
  probes: NativeProbes | undefined;
  pageSizeBytes: number;
  nodeVersion: string;
  procRoot: string;
  sysRoot: string;
  fsRoot: string;
}

type Check = (context: DoctorContext) => Finding | Finding[];

const CHECKS: [name: string, check: Check][] = [
  ['kernel', kernelFinding],
  ['node', nodeFinding],
  ['container', ({ fsRoot }) => containerFinding(detectContainer(fsRoot))],
  ['privileges', privilegeFinding],
  ['overcommit', overcommitFinding],
  ['commit-limit', commitFinding],
  ['memory', memoryFinding],
  ['thp', thpFinding],
  ['pagemap', pagemapFinding],
  ['zero-page', zeroPageFinding],
  ['pfn', pfnFinding],
  ['probes', probeFindings],
  ['userfaultfd', userfaultfdFinding],
  ['named-vmas', namedVmasFinding],
  ['cgroup', cgroupFindings],
  ['process-limits', processLimitsFinding],
  ['ksm', ksmFinding],
  ['hugetlb', hugetlbFinding],
];

/**
 * Examines the host. A check that itself cannot be made is a finding of status 'unknown', and not an error.
 */
export function examineHost(input: ExamineInput): Finding[] {
  const procRoot = input.procRoot ?? PROC_ROOT;
  const context: DoctorContext = {
    probes: input.probes,
    pageSizeBytes: input.pageSizeBytes,
    nodeVersion: input.nodeVersion ?? process.version,
    procRoot,
    sysRoot: input.sysRoot ?? SYS_ROOT,
    fsRoot: input.fsRoot ?? '/',
  };
  return CHECKS.flatMap(([name, check]) => {
    try {
      return check(context);
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      const code = errnoCode(error);
      const found = `could not be examined: ${error.message}`;
      const neededFor = `see 'cowlab explain' for the experiments that use it`;
      const remedy = code === 'ENOENT' ? `Mount proc on ${procRoot}` : undefined;
      return [{ name, status: 'unknown', found, neededFor, ...(remedy === undefined ? {} : { remedy }) }];
    }
  });
}

/** What nothing works without; the rest only limits which experiments run. */
const ESSENTIAL: readonly string[] = ['kernel', 'node', 'pagemap'];

/** Whether the laboratory can work here at all. */
export function isUsable(findings: readonly Finding[]): boolean {
  return !findings.some(({ name, status }) => status === 'missing' && ESSENTIAL.includes(name));
}
