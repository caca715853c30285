/** Whether madvise(MADV_HUGEPAGE) gets transparent huge pages here [Documentation/admin-guide/mm/transhuge.rst]. */
import { FeatureUnavailableError } from '../errors.js';
import { countsMappings } from './pagemap.js';
import { readStatus } from './status.js';
import { readThpSettings, type ThpSettings } from './system.js';

const FEATURE = 'Transparent huge pages';

/** What a size's `enabled` comes to; before 6.8 there is one setting for all. */
function settingOf(kb: string, { enabled, sizes }: ThpSettings): string {
  const own = sizes[kb] ?? 'inherit';
  return own === 'inherit' ? (enabled ?? 'never') : own;
}

function pmdKb({ pmdSizeBytes = 0 }: ThpSettings): string {
  return String(pmdSizeBytes / 1024);
}

export const TURN_ON = 'As root: echo madvise > /sys/kernel/mm/transparent_hugepage/enabled';
export const TURN_SMALLER_OFF =
  'As root, write never to /sys/kernel/mm/transparent_hugepage/hugepages-*kB/enabled of these sizes';

/** Whether a region that is advised to gets huge pages by these settings. Pure. */
export function isTurnedOn(settings: ThpSettings): boolean {
  return settingOf(pmdKb(settings), settings) !== 'never';
}

/**
 * Refuses where a region that is advised to would get none.
 * @throws FeatureUnavailableError that says what is turned off, and how it is turned on.
 */
export function requireHugePages(settings: ThpSettings = readThpSettings(), pid = process.pid): void {
  if (settings.enabled === undefined) {
    throw new FeatureUnavailableError(FEATURE, 'this kernel was built without them', 'Leave hugePages away.');
  }
  if (!isTurnedOn(settings)) throw new FeatureUnavailableError(FEATURE, 'they are turned off', `${TURN_ON}.`);
  // prctl(PR_SET_THP_DISABLE), which children inherit [fs/proc/array.c: task_thp_status].
  if (readStatus(pid).fields['THP_enabled'] === '0') {
    throw new FeatureUnavailableError(
      FEATURE,
      'they are turned off for this process (PR_SET_THP_DISABLE)',
      'Start it from a process that has them.',
    );
  }
}

/** Smaller sizes (multi-size THP, 6.8) that advised regions get as well, in kB. */
export function smallerSizesKb(settings: ThpSettings = readThpSettings()): string[] {
  return Object.keys(settings.sizes).filter((kb) => kb !== pmdKb(settings) && settingOf(kb, settings) !== 'never');
}

/**
 * Refuses where it is not exact which pages a touch of a region of huge pages brings, or what smaps shows of them.
 * @throws FeatureUnavailableError.
 */
export function requireExactHugePages(): void {
  const smaller = smallerSizesKb();
  if (smaller.length > 0) {
    throw new FeatureUnavailableError(
      'Exact figures of huge pages',
      `faults bring pages of ${smaller.join(', ')} kB as well (multi-size THP)`,
      `${TURN_SMALLER_OFF}.`,
    );
  }
  if (!countsMappings()) {
    throw new FeatureUnavailableError(
      'Exact figures of huge pages',
      'this kernel counts no mappings of single pages, or does not tell (CONFIG_NO_PAGE_MAPCOUNT)',
      'Use a kernel that does.',
    );
  }
}

/** Why there are no regions of huge pages here, or none with exact figures; undefined where there are. */
export function whyNoHugePages(): string | undefined {
  try {
    requireHugePages();
    requireExactHugePages();
    return undefined;
  } catch (error) {
    if (error instanceof FeatureUnavailableError) return error.message;
    throw error;
  }
}
