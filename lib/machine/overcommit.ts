/** Checks of what vm.overcommit_memory is to be set to, and the settings that this means. */
import type { HostFacts } from '../schema/facts.js';
import { requireInteger, requireObject } from '../schema/arguments.js';
import type { StepOf } from '../schema/step.js';
import type { OvercommitSpec } from './machine.js';

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
  if (adminReserveBytes !== undefined) {
    requireInteger('adminReserveBytes', adminReserveBytes, 0, Number.MAX_SAFE_INTEGER);
    settings.adminReserveKbytes = Math.floor(adminReserveBytes / 1024);
  }
  return settings;
}
