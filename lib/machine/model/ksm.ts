/**
 * Kernel samepage merging [mm/ksm.c]. While ksmd, a thread of the kernel's own, does not run, MADV_MERGEABLE is a flag of
 * the VMA and no more. Where it runs, pages of equal content become one at times of its own: what depends on which, is
 * then unknown of every process that has the memory, also after the flag is taken back.
 */
import type { Figure } from '../../schema/figure.js';
import type { Outcome, StateRuns } from '../../schema/step.js';
import type { PageRun } from '../../schema/selection.js';
import { type Mapping, toObject, type World } from './process.js';
import { unmerge } from './transitions.js';
import type { Vma } from './vma.js';

const RUNS = 'ksmd runs, and merges equal pages of mergeable memory at times of its own';

export function becomeMergeable({ facts }: World, { lineage }: Mapping): void {
  if (facts.ksmRuns === true) lineage.mergeDoubt = RUNS;
}

/** Gives the process pages of its own in the place of merged ones [unmerge_ksm_pages]; returns the faults. */
export function unmergeRange({ rules }: World, mapping: Mapping, vma: Vma, part: PageRun): number {
  const writable = rules.unsharesMerged ? 'unshared' : vma.protection === 'rw';
  return mapping.lineage.apply([toObject(mapping, part)], (draft) => unmerge(draft, mapping, writable)).faults;
}

/** Shared mappings have nothing but the page cache, which is never merged. */
function doubtOf({ lineage, shared }: Mapping): { unknown: string } | undefined {
  return lineage.mergeDoubt === undefined || shared ? undefined : { unknown: lineage.mergeDoubt };
}

/**
 * Carries out an access or advice. Whether it faults is unknown of pages that may have been merged, or are just being
 * so: the entry is then read-only, or for a moment not there [write_protect_page, replace_page].
 */
export function doubtingFaults(mapping: Mapping, act: () => Outcome): Outcome {
  const doubt = doubtOf(mapping);
  const outcome = act();
  return doubt && outcome.minorFaults !== undefined ? { ...outcome, minorFaults: doubt } : outcome;
}

/** @param frames Behind a region, were nothing merged. */
export function doubtFrames(mapping: Mapping, frames: number): Figure {
  return doubtOf(mapping) ?? frames;
}

/**
 * What is present stays so; but with whom a page is shared is unknown, or whether it is the zero page now
 * (use_zero_pages). Huge pages are split, after which a touch brings another number of pages than without ksmd.
 */
export function doubtStates(mapping: Mapping, runs: StateRuns): StateRuns {
  if (!doubtOf(mapping)) return runs;
  return runs.map(([pages, state]) => [pages, state === 'not-present' && !mapping.blocks ? state : 'unknown']);
}

/** @param counts Pages by state, were nothing merged. */
export function doubtCounts(mapping: Mapping, counts: Record<string, Figure>): Record<string, Figure> {
  const certain = mapping.blocks ? ['swapped'] : ['swapped', 'not-present'];
  return allUnknownBut(certain, counts, doubtOf(mapping));
}

/** @param smapsKb Figures of a region, were nothing merged. */
export function doubtFigures(mapping: Mapping, smapsKb: Record<string, Figure>): Record<string, Figure> {
  return allUnknownBut(['Size'], smapsKb, doubtOf(mapping));
}

function allUnknownBut(
  certain: readonly string[],
  figures: Record<string, Figure>,
  doubt: Figure | undefined,
): Record<string, Figure> {
  if (doubt === undefined) return figures;
  return Object.fromEntries(
    Object.entries(figures).map(([name, figure]) => [name, certain.includes(name) ? figure : doubt]),
  );
}
