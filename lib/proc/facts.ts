/** The facts of this host that the model needs (schema/facts.ts), read from /proc and /sys. */
import os from 'node:os';
import { join } from 'node:path';
import { FeatureUnavailableError } from '../errors.js';
import type { HostFacts, HugetlbPool } from '../schema/facts.js';
import { readKsmFacts } from './ksm.js';
import { commitFigures, computeCommitLimitPages, readMeminfo } from './meminfo.js';
import { PROC_ROOT, SYS_ROOT, readIfThere, readNumberIfThere } from './read.js';
import { isChargedAtFork, readSmaps, vmaPages } from './smaps.js';
import { readStatm } from './stat.js';
import { readSysctls } from './sysctl.js';
import {
  parseCpuList,
  parseKernelRelease,
  readHugetlb,
  readKernelOption,
  readKernelRelease,
  readThpSettings,
} from './system.js';
import { readVmstat } from './vmstat.js';

/**
 * Inferred: the kernel's default [mm/memory.c: fault_around_pages], which only root can see, in debugfs.
 * MODEL.md rule 7 was found with it.
 */
export const DEFAULT_FAULT_AROUND_BYTES = 65536;

/** An entry of a page table is 8 bytes on x86-64 and arm64, and a table fills one page. */
const TABLE_ENTRY_BYTES = 8;

export interface HostFactsInput {
  pageSizeBytes: number;
  /** The process whose forks are to be predicted; 'self' in most tests. */
  rootPid: number | 'self';
  /** Whether that process has CAP_SYS_ADMIN in the initial user namespace. */
  capSysAdmin: boolean;
  /** totalram and totalswap of sysinfo(2), in pages: the kernel's own, where lxcfs may have rewritten /proc/meminfo. */
  memTotalPages: number;
  swapTotalPages: number;
  /** Default false. */
  forbidsZeroPage?: boolean;
  noHugePages?: string | undefined;
  hugetlbPool?: HugetlbPool | undefined;
  procRoot?: string;
  sysRoot?: string;
}

/** CPUs present, which is what the kernel sizes its counter batch by [mm/mm_init.c: mm_compute_batch]. */
function presentCpus(sysRoot: string): number {
  const path = join(sysRoot, 'devices/system/cpu/present');
  const list = readIfThere(path);
  return list === undefined ? Math.max(1, os.cpus().length) : parseCpuList(list, path);
}

/** A figure without which no prediction can be made. */
function required<T extends number>(value: T | undefined, name: string): T {
  if (value !== undefined) return value;
  throw new FeatureUnavailableError(name, 'this /proc does not show it', 'Mount the proc file system of the kernel');
}

/** vm.*_reserve_kbytes in pages, as the kernel shifts them: rounded down. */
export function kbToPages(kb: number, pageSizeBytes: number): number {
  return Math.floor((kb * 1024) / pageSizeBytes);
}

/** hugetlb_total_pages() [mm/hugetlb.c]. */
function readHugetlbPages(sysRoot: string, pageSizeBytes: number): number {
  return readHugetlb(sysRoot).reduce((sum, { total, sizeKb }) => sum + (total * sizeKb * 1024) / pageSizeBytes, 0);
}

/**
 * CommitLimit from /proc/meminfo when that is the kernel's own, else computed from the settings.
 */
function commitLimit(input: HostFactsInput, shownPages: number, memShownPages: number, sysRoot: string): number {
  const { memTotalPages, swapTotalPages, pageSizeBytes } = input;
  if (memShownPages === memTotalPages) return shownPages;
  const sysctls = readSysctls(input.procRoot);
  return computeCommitLimitPages({
    memTotalPages,
    swapTotalPages,
    hugetlbPages: readHugetlbPages(sysRoot, pageSizeBytes),
    overcommitRatio: required(sysctls.overcommitRatio, 'vm.overcommit_ratio'),
    overcommitKbytes: required(sysctls.overcommitKbytes, 'vm.overcommit_kbytes'),
    pageSizeBytes,
  });
}

function ifKnown<Name extends string>(name: Name, value: boolean | undefined): Partial<Record<Name, boolean>> {
  return value === undefined ? {} : ({ [name]: value } as Record<Name, boolean>);
}

/**
 * Collects the facts of this host, before the first step of a program.
 * What a kernel has not got reads as it behaves without it (THP 'never').
 * @throws SystemError ESRCH when there is no process `rootPid`; ProcFormatError for a file of an unknown form.
 */
export function collectHostFacts(input: HostFactsInput): HostFacts {
  const { pageSizeBytes, procRoot = PROC_ROOT, sysRoot = SYS_ROOT } = input;
  const kernelRelease = readKernelRelease(procRoot);
  const figures = commitFigures(readMeminfo(procRoot), pageSizeBytes);
  const sysctls = readSysctls(procRoot);
  const thp = readThpSettings(sysRoot);
  const vmstat = readVmstat(procRoot);
  const faultAroundBytes =
    readNumberIfThere(join(sysRoot, 'kernel/debug/fault_around_bytes')) ?? DEFAULT_FAULT_AROUND_BYTES;
  return {
    kernelRelease,
    kernelVersion: parseKernelRelease(kernelRelease),
    arch: process.arch,
    pageSizeBytes,
    cpus: presentCpus(sysRoot),
    memTotalPages: input.memTotalPages,
    swapTotalPages: input.swapTotalPages,
    overcommitMode: required(sysctls.overcommitMemory, 'vm.overcommit_memory'),
    commitLimitPages: commitLimit(input, figures.commitLimitPages, figures.memTotalPages, sysRoot),
    hugetlbPages: readHugetlbPages(sysRoot, pageSizeBytes),
    committedPages: figures.committedAsPages,
    adminReservePages: kbToPages(required(sysctls.adminReserveKbytes, 'vm.admin_reserve_kbytes'), pageSizeBytes),
    userReservePages: kbToPages(required(sysctls.userReserveKbytes, 'vm.user_reserve_kbytes'), pageSizeBytes),
    capSysAdmin: input.capSysAdmin,
    faultAroundPages: Math.max(1, Math.floor(faultAroundBytes / pageSizeBytes)),
    pagesPerTable: pageSizeBytes / TABLE_ENTRY_BYTES,
    forbidsZeroPage: input.forbidsZeroPage ?? false,
    ...(input.noHugePages === undefined ? {} : { noHugePages: input.noHugePages }),
    ...(input.hugetlbPool === undefined ? {} : { hugetlbPool: input.hugetlbPool }),
    ...ifKnown('hugeZeroPage', thp.usesZeroPage),
    ...ifKnown('reclaimsTables', readKernelOption('CONFIG_PT_RECLAIM', procRoot)),
    ...readKsmFacts(sysRoot, procRoot),
    thpEnabled: thp.enabled ?? 'never',
    shmemThpEnabled: thp.shmemEnabled ?? 'never',
    rootAccountedVmas: readSmaps(input.rootPid, procRoot)
      .filter(isChargedAtFork)
      .map((vma) => vmaPages(vma, pageSizeBytes)),
    rootTotalPages: readStatm(input.rootPid, procRoot).sizePages,
    free: {
      freePages: required(vmstat['nr_free_pages'], 'nr_free_pages'),
      filePages: required(vmstat['nr_file_pages'], 'nr_file_pages'),
      shmemPages: required(vmstat['nr_shmem'], 'nr_shmem'),
      swapFreePages: Math.floor(figures.swapFreeBytes / pageSizeBytes),
      reclaimableSlabPages: required(vmstat['nr_slab_reclaimable'], 'nr_slab_reclaimable'),
    },
  };
}
