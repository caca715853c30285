/** Kernel samepage merging [Documentation/admin-guide/mm/ksm.rst]. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { HostFacts } from '../schema/facts.js';
import { PROC_ROOT, SYS_ROOT, readNumberIfThere } from './read.js';
import { readKernelOption } from './system.js';

export interface KsmState {
  /** 0 stopped, 1 running, 2 stopped and everything unmerged. */
  run: number;
  /** Pages that others were merged into, and how many mappings beyond the first each. */
  pagesShared: number | undefined;
  pagesSharing: number | undefined;
  /** Entries of the zero page in place of pages of zeros (since 6.6, where use_zero_pages is set). */
  zeroPages: number | undefined;
  /** How often ksmd has gone through all mergeable memory. */
  fullScans: number | undefined;
}

/** Undefined on a kernel without it (CONFIG_KSM). */
export function readKsm(sysRoot: string = SYS_ROOT): KsmState | undefined {
  const read = (file: string): number | undefined => readNumberIfThere(join(sysRoot, 'kernel/mm/ksm', file));
  const run = read('run');
  if (run === undefined) return undefined;
  return {
    run,
    pagesShared: read('pages_shared'),
    pagesSharing: read('pages_sharing'),
    zeroPages: read('ksm_zero_pages'),
    fullScans: read('full_scans'),
  };
}

/** Where /sys does not tell whether ksmd runs, it may. */
export function readKsmFacts(
  sysRoot: string = SYS_ROOT,
  procRoot: string = PROC_ROOT,
): Pick<HostFacts, 'hasKsm' | 'ksmRuns'> {
  const state = readKsm(sysRoot);
  if (state) return { hasKsm: true, ksmRuns: state.run === 1 };
  const seesMemory = existsSync(join(sysRoot, 'kernel/mm'));
  if (seesMemory || readKernelOption('CONFIG_KSM', procRoot) === false) return { hasKsm: false };
  return { ksmRuns: true };
}
