/** Why ksmd cannot be set going for a test; undefined where it can. */
import { readKsm } from '../lib/proc/ksm.js';

export function whyNoKsmd(): string | undefined {
  const state = readKsm();
  if (!state) return 'this kernel has no KSM';
  if (process.geteuid?.() !== 0) return '/sys/kernel/mm/ksm is changed, for which one must be root';
  return state.run === 1 ? 'ksmd runs here already, for others' : undefined;
}
