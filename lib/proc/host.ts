/** Facts and probes of this host, with what only system calls tell filled in by the addon. */
import { errnoName, native } from '../native.js';
import type { HostFacts } from '../schema/facts.js';
import type { NativeProbes, Probe } from './doctor.js';
import { collectHostFacts, kbToPages } from './facts.js';
import { commitFigures, readMeminfo } from './meminfo.js';
import { whyNoHugePages } from './huge-pages.js';
import { readHugetlbPool } from './hugetlb.js';
import { inInitialUserNamespace } from './fork-evidence.js';
import { CAP_SYS_ADMIN, hasCapability, readStatus } from './status.js';
import { readSysctl } from './sysctl.js';

/** The facts for predicting what the kernel will do to a process and its descendants. */
export function readHostFacts(pid: number): HostFacts {
  const memory = native().systemMemory();
  return collectHostFacts({
    pageSizeBytes: native().pageSizeBytes,
    rootPid: pid,
    // capable() asks in the initial user namespace [cap_vm_enough_memory].
    capSysAdmin: hasCapability(readStatus(pid), CAP_SYS_ADMIN) === true && inInitialUserNamespace(pid) === true,
    memTotalPages: memory.totalPages,
    swapTotalPages: memory.swapPages,
    forbidsZeroPage: native().forbidsZeroPage(),
    noHugePages: whyNoHugePages(),
    hugetlbPool: readHugetlbPool(),
  });
}

function probe(errno: number): Probe {
  return errno === 0 ? { ok: true } : { ok: false, code: errnoName(errno) };
}

/** What this kernel and this process's privileges offer, tried by the addon. */
export function tryNativeProbes(): NativeProbes {
  const results = native().probe();
  const memory = native().systemMemory();
  return {
    pagemapScan: probe(results.pagemapScan),
    procmapQuery: probe(results.procmapQuery),
    softDirty: probe(results.softDirty),
    userfaultfdWpAsync: probe(results.userfaultfdWpAsync),
    pfnVisible: probe(results.pageFrameNumbers),
    forbidsZeroPage: native().forbidsZeroPage(),
    sysinfo: { memTotalPages: memory.totalPages, swapTotalPages: memory.swapPages },
  };
}

/** The page size of this machine in bytes. */
export function pageSizeBytes(): number {
  return native().pageSizeBytes;
}

/** Commit accounting as it stands now, in pages. */
export function readCommit(): Pick<HostFacts, 'commitLimitPages' | 'committedPages' | 'adminReservePages'> {
  const pageSize = native().pageSizeBytes;
  const { commitLimitPages, committedAsPages } = commitFigures(readMeminfo(), pageSize);
  const adminReservePages = kbToPages(readSysctl('vm.admin_reserve_kbytes') ?? 0, pageSize);
  return { commitLimitPages, committedPages: committedAsPages, adminReservePages };
}
