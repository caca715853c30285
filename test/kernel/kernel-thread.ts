/** A process without memory, to be looked at. */
import { existsSync } from 'node:fs';
import { readStatus } from '../../lib/proc/status.js';

/** kthreadd, where it can be seen. */
export const KERNEL_THREAD = 2;

/** Why there is no kernel thread here that one may look at; undefined if there is one. */
export function whyNoKernelThread(): string | undefined {
  if (!existsSync(`/proc/${String(KERNEL_THREAD)}/comm`) || readStatus(KERNEL_THREAD).fields['VmSize'] !== undefined) {
    return 'process 2 is no kernel thread here';
  }
  return process.getuid?.() === 0 ? undefined : 'only root may read the smaps of a kernel thread';
}
