/** The settings of ksmd, which merges equal pages [Documentation/admin-guide/mm/ksm.rst, mm/ksm.c]. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { FeatureUnavailableError } from '../errors.js';
import { readKsm } from '../proc/ksm.js';
import { readIfThere } from '../proc/read.js';
import type { RestoreStep } from './journal.js';

const ROOT = '/sys/kernel/mm/ksm';

/** In the order in which they are put back: ksmd first stops. */
const SETTINGS = ['run', 'pages_to_scan', 'sleep_millisecs', 'smart_scan', 'use_zero_pages'] as const;
export type KsmSetting = (typeof SETTINGS)[number];

export function ksmPath(setting: KsmSetting): string {
  return join(ROOT, setting);
}

/** Those that this kernel has: smart_scan came with Linux 6.7. */
export function ksmSettings(): KsmSetting[] {
  return SETTINGS.filter((setting) => existsSync(ksmPath(setting)));
}

/** @throws FeatureUnavailableError where there is no KSM, or where others have ksmd running or tuned by itself. */
export function requireIdleKsm(): void {
  const feature = 'Merging pages by KSM';
  const run = readKsm()?.run;
  if (run === undefined) {
    throw new FeatureUnavailableError(
      feature,
      'this kernel does not show it (CONFIG_KSM)',
      'Use another: `cowlab vm`.',
    );
  }
  if (run === 1) {
    throw new FeatureUnavailableError(feature, 'ksmd runs already, for others', `Stop it: echo 0 > ${ROOT}/run`);
  }
  if (readIfThere(join(ROOT, 'advisor_mode'))?.includes('[scan-time]')) {
    throw new FeatureUnavailableError(
      feature,
      'its advisor chooses how many pages are scanned',
      `Stop it: echo none > ${ROOT}/advisor_mode`,
    );
  }
}

/** How each setting is put back. */
export function restoreKsm(): RestoreStep[] {
  return ksmSettings().map((setting) => {
    const path = ksmPath(setting);
    return { action: 'write', path, value: readFileSync(path, 'utf8').trim() };
  });
}
