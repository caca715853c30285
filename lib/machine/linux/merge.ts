/** Has ksmd merge what can be merged, and stop [mm/ksm.c: ksm_do_scan]. */
import { setTimeout as delay } from 'node:timers/promises';
import type { SystemChanges } from '../../api/system-changes.js';
import { readKsm } from '../../proc/ksm.js';
import { readSmaps } from '../../proc/smaps.js';
import type { Outcome } from '../../schema/step.js';

const POLL_MS = 1;

/**
 * A page is merged in the second whole pass that finds it unchanged, and the pass that is under way may have begun before
 * the last write.
 */
const PASSES = 4;

interface Merged {
  sharedPages: number;
  sharingPages: number;
}

/** @param pids Of the machine's processes. Without mergeable memory ksmd would sleep, and there is nothing to wait for. */
export async function mergePages(changes: SystemChanges, pids: readonly number[]): Promise<Outcome> {
  const mergeable = pids.some((pid) => readSmaps(pid).some(({ vmFlags }) => vmFlags.includes('mg')));
  if (!mergeable) return { merged: { sharedPages: 0, sharingPages: 0 } };
  changes.setKsm({
    // Otherwise pages of zeros become the zero page, which is not an anonymous one, and what was not merged is passed over.
    use_zero_pages: 0,
    smart_scan: 0,
    max_page_sharing: 2 ** 30,
    pages_to_scan: 10_000,
    sleep_millisecs: 0,
    run: 1,
  });
  try {
    return { merged: await settled() };
  } finally {
    changes.setKsm({ run: 0 });
  }
}

/** Resolves when a whole pass has merged nothing more. */
async function settled(): Promise<Merged> {
  let before = await nextPass();
  for (let passes = 2; ; passes++) {
    const after = await nextPass();
    const same = after.sharedPages === before.sharedPages && after.sharingPages === before.sharingPages;
    if (same && passes >= PASSES) return after;
    before = after;
  }
}

async function nextPass(): Promise<Merged> {
  const from = readKsm()?.fullScans ?? 0;
  for (;;) {
    const { fullScans = Infinity, pagesShared = 0, pagesSharing = 0 } = readKsm() ?? {};
    if (fullScans > from) return { sharedPages: pagesShared, sharingPages: pagesSharing };
    await delay(POLL_MS);
  }
}
