/** Findings of `cowlab doctor` on memory, its accounting and huge pages. */
import type { DoctorContext, Finding } from './doctor.js';
import { commitFigures, computeCommitLimitPages, readMeminfo } from './meminfo.js';
import { readSysctls } from './sysctl.js';
import { isTurnedOn, smallerSizesKb, TURN_ON, TURN_SMALLER_OFF } from './huge-pages.js';
import { readHugetlb, readThpSettings } from './system.js';

/** A count of pages as GiB. */
export function gib(pages: number, pageSizeBytes: number): string {
  return `${((pages * pageSizeBytes) / 2 ** 30).toFixed(2)} GiB`;
}

export function overcommitFinding({ procRoot }: DoctorContext): Finding {
  const { overcommitMemory, overcommitRatio, overcommitKbytes } = readSysctls(procRoot);
  const name = 'overcommit';
  const neededFor = 'enomem: which rule refuses a fork';
  switch (overcommitMemory) {
    case 0:
      return {
        name,
        status: 'ok',
        neededFor,
        found: '0, heuristic (the default): refuses one VMA beyond RAM plus swap',
      };
    case 1:
      return {
        name,
        status: 'limited',
        neededFor,
        found: '1, always: the commit rules refuse no fork at all',
        remedy: 'sudo sysctl vm.overcommit_memory=0 brings the default back',
      };
    case 2: {
      const share = overcommitKbytes ? `${overcommitKbytes} kB` : `${overcommitRatio ?? '?'}% of RAM`;
      return {
        name,
        status: 'limited',
        neededFor,
        found: `2, never (strict): all of Committed_AS stays below ${share} plus swap`,
        remedy: 'The heuristic-mode half of enomem does not run; sudo sysctl vm.overcommit_memory=0 brings it back',
      };
    }
    case undefined:
      return { name, status: 'unknown', neededFor, found: '/proc/sys/vm/overcommit_memory cannot be read' };
  }
}

export function commitFinding({ procRoot, sysRoot, pageSizeBytes }: DoctorContext): Finding {
  const figures = commitFigures(readMeminfo(procRoot), pageSizeBytes);
  const sysctls = readSysctls(procRoot);
  const { commitLimitPages, committedAsPages } = figures;
  const found = `CommitLimit ${gib(commitLimitPages, pageSizeBytes)}, Committed_AS ${gib(committedAsPages, pageSizeBytes)}`;
  const base = { name: 'commit-limit', neededFor: 'strict overcommit, predict' };
  if (sysctls.overcommitRatio === undefined || sysctls.overcommitKbytes === undefined) {
    return { ...base, status: 'ok', found };
  }
  const hugetlbPages = readHugetlb(sysRoot).reduce(
    (sum, { total, sizeKb }) => sum + (total * sizeKb * 1024) / pageSizeBytes,
    0,
  );
  const computed = computeCommitLimitPages({
    memTotalPages: figures.memTotalPages,
    swapTotalPages: figures.swapTotalPages,
    hugetlbPages,
    overcommitRatio: sysctls.overcommitRatio,
    overcommitKbytes: sysctls.overcommitKbytes,
    pageSizeBytes,
  });
  if (computed === commitLimitPages) return { ...base, status: 'ok', found: `${found}; as the settings compute it` };
  return {
    ...base,
    status: 'limited',
    found: `${found}, but the settings compute ${gib(computed, pageSizeBytes)}: /proc/meminfo may not be the kernel's own`,
    remedy: 'Run outside the LXC container, or trust the computed figure',
  };
}

export function memoryFinding({ procRoot, pageSizeBytes, probes }: DoctorContext): Finding {
  const figures = commitFigures(readMeminfo(procRoot), pageSizeBytes);
  const total = figures.memTotalPages + figures.swapTotalPages;
  const available = gib(figures.memAvailableBytes / pageSizeBytes, pageSizeBytes);
  const swap = figures.swapTotalPages === 0 ? 'no swap' : `swap ${gib(figures.swapTotalPages, pageSizeBytes)}`;
  const shown = `RAM ${gib(figures.memTotalPages, pageSizeBytes)} (${available} available), ${swap}; ${total} pages in all`;
  const base = { name: 'memory', neededFor: 'enomem: the threshold is RAM plus swap; cow-growth: room for the copies' };
  if (!probes)
    return { ...base, status: 'unknown', found: `${shown}; not compared with sysinfo(2)`, remedy: BUILD_ADDON };
  const { memTotalPages, swapTotalPages } = probes.sysinfo;
  if (memTotalPages === figures.memTotalPages && swapTotalPages === figures.swapTotalPages) {
    const status = figures.swapFreeBytes < figures.swapTotalBytes ? 'limited' : 'ok';
    const found = `${shown}; sysinfo(2) agrees`;
    if (status === 'ok') return { ...base, status, found };
    return {
      ...base,
      status,
      found: `${found}; swap is in use`,
      remedy: 'Free memory first: pages swapped out make a run inconclusive',
    };
  }
  return {
    ...base,
    status: 'limited',
    found: `${shown}; but sysinfo(2) says ${memTotalPages} + ${swapTotalPages} pages: /proc/meminfo is not the kernel's own (lxcfs?)`,
    remedy: 'cowlab uses the figures of sysinfo(2), which are those the kernel judges by',
  };
}

export function thpFinding({ sysRoot }: DoctorContext): Finding {
  const settings = readThpSettings(sysRoot);
  const { enabled, shmemEnabled, sizes } = settings;
  const base = { name: 'thp', neededFor: 'exact counts in 4K pages; regions of huge pages, the thp experiment' };
  if (enabled === undefined) return { ...base, status: 'missing', found: 'this kernel has no transparent huge pages' };
  const active = Object.entries(sizes).filter(([, choice]) => choice !== 'never' && choice !== 'inherit');
  const multi =
    active.length > 0 ? `; multi-size: ${active.map(([kb, choice]) => `${kb} kB ${choice}`).join(', ')}` : '';
  const found = `anonymous: ${enabled}, shared memory: ${shmemEnabled ?? 'not in this kernel'}${multi}`;
  if (!isTurnedOn(settings)) return { ...base, status: 'limited', found, remedy: TURN_ON };
  if (smallerSizesKb(settings).length > 0) return { ...base, status: 'limited', found, remedy: TURN_SMALLER_OFF };
  if (enabled === 'always' || shmemEnabled === 'always' || shmemEnabled === 'force') {
    return {
      ...base,
      status: 'limited',
      found,
      remedy: 'Nothing to do: regions get MADV_NOHUGEPAGE unless huge pages are asked for',
    };
  }
  return { ...base, status: 'ok', found };
}

/** The remedy for whatever only the addon can try. */
export const BUILD_ADDON = 'Build the addon: npm run build:native (needs a C++ compiler and python3)';
