/** /proc/vmstat [mm/vmstat.c: vmstat_text]: counters of the whole system, most of them in pages or events. */
import { join } from 'node:path';
import { readKsm } from './ksm.js';
import { PROC_ROOT, ProcFormatError, linesOf, readHostFile } from './read.js';

/** Counters under the kernel's names; which there are depends on the kernel. */
export type Vmstat = Record<string, number>;

/** @throws ProcFormatError for a line that is not 'name number'. */
export function parseVmstat(text: string, file = 'vmstat'): Vmstat {
  const vmstat: Vmstat = {};
  linesOf(text).forEach((line, index) => {
    const space = line.indexOf(' ');
    const digits = line.slice(space + 1);
    const value = Number(digits);
    if (space <= 0 || digits === '' || !Number.isFinite(value)) {
      throw new ProcFormatError(file, index + 1, line, "'name number'");
    }
    vmstat[line.slice(0, space)] = value;
  });
  return vmstat;
}

/** The counters that {@link disturbances} looks at: vmstat's, and those that KSM keeps in /sys, as ksm_pages_sharing. */
export function readActivity(procRoot?: string, sysRoot?: string): Vmstat {
  const { pagesSharing = 0, zeroPages = 0, fullScans = 0 } = readKsm(sysRoot) ?? {};
  const ksm = { ksm_pages_sharing: pagesSharing, ksm_zero_pages: zeroPages, ksm_full_scans: fullScans };
  return { ...readVmstat(procRoot), ...ksm };
}

/** @throws SystemError when /proc is not there. */
export function readVmstat(procRoot: string = PROC_ROOT): Vmstat {
  const path = join(procRoot, 'vmstat');
  return parseVmstat(readHostFile(path), path);
}
