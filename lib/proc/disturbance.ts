/** Whether the machine did something meanwhile that makes exact page figures impossible. */
import type { Vmstat } from './vmstat.js';

/** Counters of /proc/vmstat whose growth means that our pages may have been moved out or merged. */
const DISTURBING: Record<string, string> = {
  pswpin: 'pages were swapped in',
  pswpout: 'pages were swapped out',
  ksm_swpin_copy: 'KSM copied pages that were swapped in',
  oom_kill: 'the OOM killer ended a process',
};

/** Counters whose growth means that transparent huge pages may be others than those that faults have made. */
const DISTURBING_HUGE_PAGES: Record<string, string> = {
  thp_fault_fallback: 'a huge page was not to be had',
  thp_collapse_alloc: 'khugepaged made base pages a huge page',
  thp_split_page: 'a huge page was taken apart',
};

/** Counters whose growth means that pages of mergeable memory may be shared with others. */
const DISTURBING_MERGEABLE: Record<string, string> = {
  ksm_pages_sharing: 'KSM merged pages',
  ksm_zero_pages: 'KSM put the zero page in place of pages',
  ksm_full_scans: 'KSM went through all mergeable memory',
  cow_ksm: 'pages that KSM had merged were copied',
};

/** File pages that were read again after they had been reclaimed [mm/workingset.c: workingset_refault]; before 5.9 one for all. */
const REFAULTS = ['workingset_refault_file', 'workingset_refault'];

/** What was ourselves, between two readings. */
export interface OwnActivity {
  /** What we meant to happen, by the counter. */
  meant?: Vmstat;
  /**
   * Major faults of our processes. Files are in the page cache when they are mapped, so that there are none, unless their
   * pages were reclaimed. That others' file pages are read again, which they always are, disturbs nobody.
   */
  majorFaults?: number;
  /** Some of our regions have huge pages. */
  hasHugePages?: boolean;
  /** Some of our memory was given MADV_MERGEABLE. */
  hasMergeable?: boolean;
}

/** What happened between two readings, a phrase each; nothing for a quiet machine. */
export function disturbances(
  before: Vmstat,
  after: Vmstat,
  { meant = {}, majorFaults = 0, hasHugePages = false, hasMergeable = false }: OwnActivity = {},
): string[] {
  const growth = (counter: string): number => (after[counter] ?? 0) - (before[counter] ?? 0) - (meant[counter] ?? 0);
  const disturbing = {
    ...DISTURBING,
    ...(hasHugePages ? DISTURBING_HUGE_PAGES : {}),
    ...(hasMergeable ? DISTURBING_MERGEABLE : {}),
  };
  const found = Object.entries(disturbing).flatMap(([counter, phrase]) =>
    growth(counter) > 0 ? [`${phrase} (${counter} +${String(growth(counter))})`] : [],
  );
  if (majorFaults > 0 && REFAULTS.some((counter) => growth(counter) > 0)) {
    found.push(`pages of a file were reclaimed and read again (major faults: ${String(majorFaults)})`);
  }
  return found;
}
