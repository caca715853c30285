/** Swap for a test, taken away by the restorer whatever happens. */
import { fork } from '../lib/api/forked-process.js';
import { SystemChanges } from '../lib/api/system-changes.js';
import { FeatureUnavailableError } from '../lib/errors.js';
import { countPages } from '../lib/proc/pagemap.js';

const SWAP_PAGES = 16_384;

/** Whether a page that is sent to swap goes there: a cgroup may have a limit of none. */
async function takesPages(): Promise<boolean> {
  const process = fork();
  try {
    await process.restrict();
    const region = await process.map({ pages: 1 });
    await process.write(region);
    await process.advise(region, 'pageout');
    return countPages(process.pid, process.placement(region)).swapped === 1;
  } finally {
    await process.close();
  }
}

/** @returns Changes, for the caller to restore(), or why there can be no swap here. */
export async function takeSwap(directory?: string): Promise<SystemChanges | string> {
  let changes: SystemChanges;
  try {
    changes = SystemChanges.begin({ swap: true, purpose: 'a test', ...(directory === undefined ? {} : { directory }) });
  } catch (error) {
    if (error instanceof FeatureUnavailableError) return error.message;
    throw error;
  }
  try {
    changes.addSwap(SWAP_PAGES);
    if (await takesPages()) return changes;
    await changes.restore();
    return 'no page goes to swap here, as by the limit of a cgroup';
  } catch (error) {
    await changes.restore();
    if (error instanceof FeatureUnavailableError) return error.message;
    throw error;
  }
}
