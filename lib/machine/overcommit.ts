/** Checks of what vm.overcommit_memory is to be set to, and the settings that this means. */
import type { HostFacts } from '../schema/facts.js';
import { requireInteger, requireObject } from '../schema/arguments.js';
import type { StepOf } from '../schema/step.js';
import type { OvercommitSpec } from './machine.js';

/**
 * What strict overcommit holds back from the tree, which has no CAP_SYS_ADMIN, at least, and so leaves to Node and to
 * root's shells while the tree brings the system to its limit. The usual reserve is 8 MiB; a total_vm / 32 that is
 * greater than a small tree's may cost Node 30 MiB more than that, and a Node that is refused memory aborts.
 */
export const LEAST_RESERVE_BYTES = 64 * 2 ** 20;

/** @throws TypeError or RangeError that names the argument. */
export function requireOvercommit(spec: OvercommitSpec, facts: HostFacts): Omit<StepOf<'overcommit'>, 'op'> {
  requireObject('spec', spec);
  const { mode, limitBytes, ratio, adminReserveBytes } = spec;
  requireInteger('mode', mode, 0, 2);
  if (limitBytes !== undefined && ratio !== undefined) throw new TypeError('give either limitBytes or ratio');
  const swapBytes = facts.swapTotalPages * facts.pageSizeBytes;
  const settings: Omit<StepOf<'overcommit'>, 'op'> = { mode };
  if (limitBytes !== undefined) {
    requireInteger('limitBytes', limitBytes, swapBytes + facts.pageSizeBytes, Number.MAX_SAFE_INTEGER);
    settings.kbytes = Math.floor((limitBytes - swapBytes) / 1024);
  }
  if (ratio !== undefined) settings.ratio = requireInteger('ratio', ratio, 0, 1_000_000);
  const usual = Math.max(LEAST_RESERVE_BYTES, facts.adminReservePages * facts.pageSizeBytes);
  const reserve = adminReserveBytes ?? (mode === 2 ? usual : undefined);
  if (reserve !== undefined) {
    requireInteger('adminReserveBytes', reserve, 0, Number.MAX_SAFE_INTEGER);
    settings.adminReserveKbytes = Math.floor(reserve / 1024);
  }
  return settings;
}
