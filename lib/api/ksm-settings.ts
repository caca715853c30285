/** The settings of ksmd, which merges equal pages [Documentation/admin-guide/mm/ksm.rst, mm/ksm.c]. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { FeatureUnavailableError } from '../errors.js';
import { readKsm } from '../proc/ksm.js';
import { readIfThere } from '../proc/read.js';
import type { RestoreStep } from './journal.js';

const ROOT = '/sys/kernel/mm/ksm';

const SETTINGS = [
  'run',
  'max_page_sharing',
  'pages_to_scan',
  'sleep_millisecs',
  'smart_scan',
  'use_zero_pages',
] as const;
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
  const state = readKsm();
  if (state === undefined) {
    throw new FeatureUnavailableError(
      feature,
      'this kernel does not show it (CONFIG_KSM)',
      'Use another: `cowlab vm`.',
    );
  }
  if (state.run === 1 || state.pagesShared) {
    const others = state.run === 1 ? 'ksmd runs already, for others' : 'others have merged pages';
    throw new FeatureUnavailableError(feature, others, `Stop it, and unmerge: echo 2 > ${ROOT}/run`);
  }
  if (readIfThere(join(ROOT, 'advisor_mode'))?.includes('[scan-time]')) {
    throw new FeatureUnavailableError(
      feature,
      'its advisor chooses how many pages are scanned',
      `Stop it: echo none > ${ROOT}/advisor_mode`,
    );
  }
}

/**
 * How each setting is put back. First ksmd stops, and what it has merged is unmerged (2): max_page_sharing cannot be
 * changed before that [max_page_sharing_store].
 */
export function restoreKsm(): RestoreStep[] {
  const restored = ksmSettings().map((setting): RestoreStep => {
    const path = ksmPath(setting);
    return { action: 'write', path, value: readFileSync(path, 'utf8').trim() };
  });
  return [{ action: 'write', path: ksmPath('run'), value: '2' }, ...restored.slice(1), ...restored.slice(0, 1)];
}
