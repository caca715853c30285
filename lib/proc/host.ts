/** Facts and probes of this host, with what only system calls tell filled in by the addon. */
import { errnoName, native } from '../native.js';
import type { HostFacts } from '../schema/facts.js';
import type { NativeProbes, Probe } from './doctor.js';
import { collectHostFacts } from './facts.js';
import { commitFigures, readMeminfo } from './meminfo.js';

/** The facts for predicting what the kernel will do to a process and its descendants. */
export function readHostFacts(pid: number): HostFacts {
  const memory = native().systemMemory();
  return collectHostFacts({
    pageSizeBytes: native().pageSizeBytes,
    rootPid: pid,
    capSysAdmin: native().probe().capSysAdmin,
    memTotalPages: memory.totalPages,
    swapTotalPages: memory.swapPages,
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
    sysinfo: { memTotalPages: memory.totalPages, swapTotalPages: memory.swapPages },
  };
}

/** The page size of this machine in bytes. */
export function pageSizeBytes(): number {
  return native().pageSizeBytes;
}

/** Committed_AS in pages, as it stands now. */
export function readCommittedPages(): number {
  return commitFigures(readMeminfo(), native().pageSizeBytes).committedAsPages;
}
