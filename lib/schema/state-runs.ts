/** Runs of pages in one state. */
import type { PageState, StateRuns } from './step.js';

/** How many pages are in each state. */
export function countStates(runs: StateRuns): Record<PageState, number> {
  const counts = { exclusive: 0, shared: 0, zero: 0, swapped: 0, 'not-present': 0, unknown: 0 };
  for (const [pages, state] of runs) counts[state] += pages;
  return counts;
}
