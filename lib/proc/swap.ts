/** Swap, as far as exact figures depend on it. */
import { FeatureUnavailableError } from '../errors.js';
import { native } from '../native.js';
import { readIfThere } from './read.js';

/** totalswap of sysinfo(2). */
export function readSystemSwapPages(): number {
  return native().systemMemory().swapPages;
}

/** Refuses where pages would also go elsewhere, or come back otherwise. @throws FeatureUnavailableError */
export function requireExactSwap(): void {
  const feature = 'Exact figures of pages in swap';
  if (readSystemSwapPages() > 0) {
    throw new FeatureUnavailableError(feature, 'there is swap already, which others use', 'As root: swapoff -a');
  }
  if (readIfThere('/sys/module/zswap/parameters/enabled')?.trim() !== 'Y') return;
  throw new FeatureUnavailableError(
    feature,
    'zswap is on, and what comes back from it is dirty',
    'As root: echo N > /sys/module/zswap/parameters/enabled',
  );
}
