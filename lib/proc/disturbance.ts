/** Whether the machine did something meanwhile that makes exact page figures impossible. */
import type { Vmstat } from './vmstat.js';

/** Counters of /proc/vmstat whose growth means that our pages may have been moved out or merged. */
const DISTURBING: Record<string, string> = {
  pswpin: 'pages were swapped in',
  pswpout: 'pages were swapped out',
  ksm_swpin_copy: 'KSM copied pages that were swapped in',
  oom_kill: 'the OOM killer ended a process',
};

/**
 * What happened between two readings, a phrase each; nothing for a quiet machine.
 * @param own What was ourselves and meant to be, by the counter.
 */
export function disturbances(before: Vmstat, after: Vmstat, own: Vmstat = {}): string[] {
  return Object.entries(DISTURBING).flatMap(([counter, phrase]) => {
    const grown = (after[counter] ?? 0) - (before[counter] ?? 0) - (own[counter] ?? 0);
    return grown > 0 ? [`${phrase} (${counter} +${String(grown)})`] : [];
  });
}
