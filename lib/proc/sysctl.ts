/** The settings under /proc/sys that decide whether fork is admitted [Documentation/admin-guide/sysctl]. */
import { join } from 'node:path';
import { PROC_ROOT, ProcFormatError, readNumberIfThere } from './read.js';

/** 0 heuristic, 1 always, 2 never (strict). */
export type OvercommitMode = 0 | 1 | 2;

/** A setting that this kernel has not got, or this user may not read, is undefined. */
export interface Sysctls {
  /** vm.overcommit_memory. */
  overcommitMemory: OvercommitMode | undefined;
  /** vm.overcommit_ratio, in percent of RAM; 0 while overcommit_kbytes is in force. */
  overcommitRatio: number | undefined;
  /** vm.overcommit_kbytes; 0 while the ratio is in force. */
  overcommitKbytes: number | undefined;
  /** vm.admin_reserve_kbytes: held back from processes without CAP_SYS_ADMIN in mode 2. */
  adminReserveKbytes: number | undefined;
  /** vm.user_reserve_kbytes: in mode 2 a process is left min(total_vm / 32, this). */
  userReserveKbytes: number | undefined;
  /** vm.max_map_count: VMAs of one process. */
  maxMapCount: number | undefined;
  /** vm.unprivileged_userfaultfd. */
  unprivilegedUserfaultfd: number | undefined;
  /** kernel.threads-max: tasks of the whole system. */
  threadsMax: number | undefined;
  /** kernel.pid_max: of this PID namespace since 6.14, of the system before. */
  pidMax: number | undefined;
}

/**
 * Reads one setting.
 * @param name With dots, as for sysctl(8): 'vm.overcommit_memory'.
 * @throws ProcFormatError when it is not one number.
 */
export function readSysctl(name: string, procRoot: string = PROC_ROOT): number | undefined {
  return readNumberIfThere(join(procRoot, 'sys', ...name.split('.')));
}

/** Reads all of {@link Sysctls}. @throws ProcFormatError when one is not a number, or the mode not 0, 1 or 2. */
export function readSysctls(procRoot: string = PROC_ROOT): Sysctls {
  const mode = readSysctl('vm.overcommit_memory', procRoot);
  if (mode !== undefined && mode !== 0 && mode !== 1 && mode !== 2) {
    throw new ProcFormatError(join(procRoot, 'sys/vm/overcommit_memory'), 1, String(mode), '0, 1 or 2');
  }
  return {
    overcommitMemory: mode,
    overcommitRatio: readSysctl('vm.overcommit_ratio', procRoot),
    overcommitKbytes: readSysctl('vm.overcommit_kbytes', procRoot),
    adminReserveKbytes: readSysctl('vm.admin_reserve_kbytes', procRoot),
    userReserveKbytes: readSysctl('vm.user_reserve_kbytes', procRoot),
    maxMapCount: readSysctl('vm.max_map_count', procRoot),
    unprivilegedUserfaultfd: readSysctl('vm.unprivileged_userfaultfd', procRoot),
    threadsMax: readSysctl('kernel.threads-max', procRoot),
    pidMax: readSysctl('kernel.pid_max', procRoot),
  };
}
