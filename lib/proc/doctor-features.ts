/** Findings of `cowlab doctor` on what this kernel, Node and privilege let us see. */
import { closeSync, openSync, readSync } from 'node:fs';
import { join } from 'node:path';
import type { DoctorContext, Finding, NativeProbes, Probe } from './doctor.js';
import { BUILD_ADDON, gib } from './doctor-memory.js';
import { errnoCode } from './read.js';
import { readSmaps } from './smaps.js';
import { readSysctls } from './sysctl.js';
import { readKsm } from './ksm.js';
import { isAtLeast, parseKernelRelease, readHugetlb, readKernelOption, readKernelRelease } from './system.js';

/** The floor of package.json, engines. */
const NODE_FLOOR = [20, 19] as const;

export function kernelFinding({ procRoot }: DoctorContext): Finding {
  const release = readKernelRelease(procRoot);
  const version = parseKernelRelease(release);
  const base = { name: 'kernel', neededFor: 'everything; the rules of fork differ between versions' };
  if (isAtLeast(version, [6, 7])) return { ...base, status: 'ok', found: release };
  if (isAtLeast(version, [5, 2])) {
    return {
      ...base,
      status: 'limited',
      found: `${release}: no PAGEMAP_SCAN before 6.7`,
      remedy: 'Linux 6.7 or later',
    };
  }
  return {
    ...base,
    status: 'limited',
    found: `${release}: before 5.2 the heuristic judges by free memory, so no threshold is exact`,
    remedy: 'Linux 5.2 or later; 6.7 for all readers',
  };
}

export function nodeFinding({ nodeVersion }: DoctorContext): Finding {
  const [major, minor] = parseKernelRelease(nodeVersion.replace(/^v/, ''));
  const base = { name: 'node', neededFor: 'everything', found: nodeVersion };
  if (isAtLeast([major, minor], NODE_FLOOR)) return { ...base, status: 'ok' };
  return { ...base, status: 'missing', remedy: `Node ${NODE_FLOOR.join('.')} or later` };
}

export function pagemapFinding({ procRoot, pageSizeBytes }: DoctorContext): Finding {
  const base = { name: 'pagemap', neededFor: 'the state of each page: exclusive, shared, swapped, not present' };
  try {
    const vma = readSmaps('self', procRoot)[0];
    const fd = openSync(join(procRoot, 'self/pagemap'), 'r');
    try {
      // One entry, of 8 bytes: that of the first page mapped.
      const entry = Buffer.alloc(8);
      const read = readSync(fd, entry, 0, 8, ((vma?.start ?? 0n) / BigInt(pageSizeBytes)) * 8n);
      if (read !== 8) return { ...base, status: 'unknown', found: `a read gave ${read} of 8 bytes` };
      return { ...base, status: 'ok', found: 'readable' };
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    const code = errnoCode(error);
    if (code === undefined) throw error;
    const remedy = code === 'ENOENT' ? 'A kernel with CONFIG_PROC_PAGE_MONITOR' : 'Run as the owner of the processes';
    return { ...base, status: 'missing', found: `cannot be read: ${code}`, remedy };
  }
}

export function zeroPageFinding({ probes }: DoctorContext): Finding {
  const base = { name: 'zero-page', neededFor: 'memory that is read before it is written' };
  if (!probes) return { ...base, status: 'unknown', found: 'needs the addon to try it', remedy: BUILD_ADDON };
  if (!probes.forbidsZeroPage) return { ...base, status: 'ok', found: 'a read takes no memory' };
  // Predicted as exactly, so that nothing is lacking.
  return { ...base, status: 'ok', found: 'this kernel forbids it: a read takes a page, as a write does' };
}

/** A finding from a probe; without the addon, it is unknown. */
function fromProbe(
  context: DoctorContext,
  probe: (probes: NativeProbes) => Probe | undefined,
  base: Pick<Finding, 'name' | 'neededFor'>,
  lacking: Pick<Finding, 'status'> & { remedy: string },
): Finding {
  if (!context.probes) return { ...base, status: 'unknown', found: 'needs the addon to try it', remedy: BUILD_ADDON };
  const result = probe(context.probes);
  if (!result) return { ...base, status: 'unknown', found: 'was not tried' };
  if (result.ok) return { ...base, status: 'ok', found: 'works' };
  return { ...base, found: `refused with ${result.code}`, ...lacking };
}

export function pfnFinding(context: DoctorContext): Finding {
  return fromProbe(
    context,
    ({ pfnVisible }) => pfnVisible,
    { name: 'pfn', neededFor: 'telling whether two processes map the very same frame' },
    { status: 'limited', remedy: 'CAP_SYS_ADMIN; without it frame numbers are unknown, and nothing else is lost' },
  );
}

export function probeFindings(context: DoctorContext): Finding[] {
  return [
    fromProbe(
      context,
      ({ pagemapScan }) => pagemapScan,
      { name: 'pagemap-scan', neededFor: 'telling the zero page from shared pages, and finding huge pages' },
      {
        status: 'missing',
        remedy: 'Linux 6.7 or later, or CAP_SYS_ADMIN for zero pages; else they are counted by smaps',
      },
    ),
    fromProbe(
      context,
      ({ procmapQuery }) => procmapQuery,
      { name: 'procmap-query', neededFor: 'finding one VMA fast among thousands' },
      { status: 'limited', remedy: 'Linux 6.11 or later; smaps is read whole instead' },
    ),
    fromProbe(
      context,
      ({ softDirty }) => softDirty,
      { name: 'soft-dirty', neededFor: 'pages written since a moment, on kernels without WP_ASYNC' },
      { status: 'limited', remedy: 'A kernel with CONFIG_MEM_SOFT_DIRTY (x86-64, s390, powerpc)' },
    ),
  ];
}

export function userfaultfdFinding(context: DoctorContext): Finding {
  const { unprivilegedUserfaultfd } = readSysctls(context.procRoot);
  const sysctl = `vm.unprivileged_userfaultfd=${unprivilegedUserfaultfd ?? 'not there'}`;
  const base = { name: 'userfaultfd', neededFor: 'pages written since a moment, without stopping the process' };
  const finding = fromProbe(context, ({ userfaultfdWpAsync }) => userfaultfdWpAsync, base, {
    status: 'missing',
    remedy: 'Linux 6.7 or later with CONFIG_USERFAULTFD, not forbidden by a seccomp filter',
  });
  const found = finding.status === 'ok' ? 'user mode and WP_ASYNC work' : `WP_ASYNC: ${finding.found}`;
  return { ...finding, found: `${found}; ${sysctl}` };
}

export function namedVmasFinding(context: DoctorContext): Finding {
  const base = { name: 'named-vmas', neededFor: "regions shown by name ('[anon:r1]') in smaps" };
  const remedy = 'A kernel with CONFIG_ANON_VMA_NAME (5.17); regions are found by address instead';
  if (context.probes?.namedAnonymousVmas) {
    return fromProbe(context, (probes) => probes.namedAnonymousVmas, base, { status: 'limited', remedy });
  }
  const built = readKernelOption('CONFIG_ANON_VMA_NAME', context.procRoot);
  if (built === undefined) return { ...base, status: 'unknown', found: 'not tried, and there is no /proc/config.gz' };
  if (built) return { ...base, status: 'ok', found: 'CONFIG_ANON_VMA_NAME is built in' };
  return { ...base, status: 'limited', found: 'the kernel is built without CONFIG_ANON_VMA_NAME', remedy };
}

export function ksmFinding({ sysRoot }: DoctorContext): Finding {
  const ksm = readKsm(sysRoot);
  const base = { name: 'ksm', neededFor: 'the advice experiment (merging equal pages)' };
  if (!ksm) {
    return {
      ...base,
      status: 'missing',
      found: 'not in this kernel, or not readable',
      remedy: 'A kernel with CONFIG_KSM',
    };
  }
  if (ksm.run === 1) {
    return {
      ...base,
      status: 'ok',
      found: `running; ${ksm.pagesSharing ?? '?'} mappings share ${ksm.pagesShared ?? '?'} pages`,
    };
  }
  return {
    ...base,
    status: 'limited',
    found: `there, not running (run=${ksm.run})`,
    remedy: 'sudo cowlab run advice --param ksm=true --allow-system-changes has it run meanwhile',
  };
}

export function hugetlbFinding({ sysRoot, pageSizeBytes }: DoctorContext): Finding {
  const pools = readHugetlb(sysRoot);
  const base = { name: 'hugetlb', neededFor: 'regions of hugetlb pages; CommitLimit leaves them out' };
  if (pools.length === 0) return { ...base, status: 'missing', found: 'no hugetlb pages in this kernel' };
  const shown = pools.map(({ sizeKb, total, free }) => `${sizeKb} kB: ${total} (${free ?? '?'} free)`).join(', ');
  const held = pools.reduce((sum, { total, sizeKb }) => sum + (total * sizeKb * 1024) / pageSizeBytes, 0);
  if (held > 0) return { ...base, status: 'ok', found: `${shown}; ${gib(held, pageSizeBytes)} held` };
  return { ...base, status: 'limited', found: shown, remedy: 'sudo sysctl vm.nr_hugepages=N reserves some' };
}
