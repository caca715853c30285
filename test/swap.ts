/** Swap for a test, taken away by the restorer whatever happens. */
import { readFileSync } from 'node:fs';
import { fork } from '../lib/api/forked-process.js';
import { SystemChanges } from '../lib/api/system-changes.js';
import { FeatureUnavailableError } from '../lib/errors.js';
import { openMachine } from '../lib/machine/open.js';

const SWAP_PAGES = 16_384;

/** Whether a page that is sent to swap goes there: a cgroup may have a limit of none. */
async function takesPages(): Promise<boolean> {
  const process = fork();
  try {
    await process.restrict();
    const region = await process.map({ pages: 1 });
    await process.write(region);
    await process.advise(region, 'pageout');
    // Not by a reader: those are what is tested.
    const smaps = readFileSync(`/proc/${String(process.pid)}/smaps`, 'utf8');
    return /^Swap: +[1-9]/m.test(smaps.slice(smaps.indexOf(process.placement(region).address.toString(16))));
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

/** Why a Machine can have no swap here: no leave, a disk that takes no swap file, other swap, zswap, or an older kernel. */
export async function whyNoExactSwap(): Promise<string | undefined> {
  const taken = await takeSwap();
  if (typeof taken === 'string') return taken;
  await taken.restore();
  const machine = await openMachine({ allow: ['swap'], purpose: 'a test' });
  try {
    await machine.addSwap(10);
    return undefined;
  } catch (error) {
    if (error instanceof FeatureUnavailableError) return error.message;
    throw error;
  } finally {
    await machine.close();
  }
}
