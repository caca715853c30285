/**
 * ksmd at work, until it finds nothing more [mm/ksm.c: cmp_and_merge_page]. What a page holds is known of anonymous memory:
 * zeros, or what a write of a Machine leaves, which is the same in all. So there are at most two merged pages.
 */
import type { Outcome } from '../../schema/step.js';
import { type Configuration, isMerged, MERGED_WRITTEN, MERGED_ZEROS, type Pte } from './configuration.js';
import type { Lineage } from './lineage.js';
import { failed, type Mapping, toObject, type World } from './process.js';

const MERGED = [MERGED_ZEROS, MERGED_WRITTEN] as const;

export function mergePages(world: World): Outcome {
  if (world.facts.hasKsm === false) return failed('ENOENT', 'open', 'this kernel has no KSM');
  const mappings = mergeableMappings(world);
  const lineages = [...world.lineages].filter((lineage) => !lineage.isHugetlb);
  mark(mappings);
  const doubt = doubtOf(mappings, lineages);
  for (const frame of MERGED) if (isToMerge(lineages, frame)) merge(world, lineages, frame);
  const counts = MERGED.map((frame) => sumOver(lineages, (page) => page.ptes.filter(isMarked(frame)).length));
  unmark(mappings);
  if (doubt !== undefined) {
    for (const { lineage } of mappings) lineage.mergeDoubt = doubt;
    return { merged: { sharedPages: { unknown: doubt }, sharingPages: { unknown: doubt } } };
  }
  const sharedPages = counts.filter((mapped) => mapped > 0).length;
  return { merged: { sharedPages, sharingPages: counts.reduce((sum, mapped) => sum + mapped, 0) - sharedPages } };
}

function mergeableMappings({ processes }: World): Mapping[] {
  return [...processes.values()]
    .flatMap(({ mappings }) => [...mappings.values()])
    .filter(({ shared, vmas }) => !shared && vmas.some(({ mergeable }) => mergeable));
}

function mark(mappings: readonly Mapping[]): void {
  for (const mapping of mappings) {
    const advised = mapping.vmas.filter(({ mergeable }) => mergeable).map((vma) => toObject(mapping, vma));
    mapping.lineage.change(advised, (draft) => {
      const pte = draft.pte(mapping.id);
      if (pte) draft.set({ ...pte, mergeable: true });
    });
  }
}

function unmark(mappings: readonly Mapping[]): void {
  for (const { lineage } of mappings) {
    lineage.change(EVERYWHERE, (draft) => {
      draft.ptes = draft.ptes.map((pte) => (pte.mergeable ? unmarked(pte) : pte));
    });
  }
}

function unmarked(pte: Pte): Pte {
  const { mergeable, ...rest } = pte;
  return mergeable ? rest : pte;
}

const EVERYWHERE = [{ first: 0, pages: Number.MAX_SAFE_INTEGER }];

/** Which merged page such an entry maps, or would. */
function targetOf({ written }: Configuration, { frame }: Pte): number | undefined {
  if (isMerged(frame)) return frame;
  if (frame < 0) return undefined;
  return written[frame] === true ? MERGED_WRITTEN : MERGED_ZEROS;
}

function isMarked(frame: number): (pte: Pte) => boolean {
  return (pte) => pte.mergeable === true && pte.frame === frame;
}

function candidates(page: Configuration, into: number): Pte[] {
  return page.ptes.filter((pte) => pte.mergeable && pte.frame >= 0 && targetOf(page, pte) === into);
}

function sumOver(lineages: readonly Lineage[], countOf: (page: Configuration) => number): number {
  return lineages.reduce((sum, lineage) => sum + lineage.sumPages(countOf), 0);
}

function isThere(lineages: readonly Lineage[], frame: number): boolean {
  return sumOver(lineages, (page) => page.ptes.filter((pte) => pte.frame === frame).length) > 0;
}

/** A page that forked processes share is not merged with itself: there must be another [unstable_tree_search_insert]. */
function isToMerge(lineages: readonly Lineage[], frame: number): boolean {
  if (isThere(lineages, frame)) return true;
  return sumOver(lineages, (page) => new Set(candidates(page, frame).map((pte) => pte.frame)).size) > 1;
}

function merge({ mutation }: World, lineages: readonly Lineage[], frame: number): void {
  for (const lineage of lineages) {
    const { faults: merged } = lineage.apply(EVERYWHERE, (draft) => {
      const into = candidates(draft, frame);
      // write_protect_page() makes it dirty, and replace_page() the entry read-only.
      for (const pte of into)
        draft.set({ ...pte, frame, writable: false, dirty: mutation !== 'merged-pages-are-clean' });
      return into.length;
    });
    lineage.hasMerged ||= merged > 0;
  }
}

/** Why it cannot be told what is merged with what; before anything is. */
function doubtOf(mappings: readonly Mapping[], lineages: readonly Lineage[]): string | undefined {
  for (const { lineage, blocks } of mappings) {
    if (lineage.mergeDoubt !== undefined) return lineage.mergeDoubt;
    if (blocks) return 'ksmd splits huge pages, and when it does is not modelled';
    if (lineage.cached) return 'pages that were copied of a memfd or file hold what the model does not know';
  }
  const mixed = (page: Configuration, frame: number): boolean =>
    candidates(page, frame).some((one) => page.ptes.some((pte) => pte.frame === one.frame && !pte.mergeable));
  const unclear = MERGED.some(
    (frame) =>
      !isThere(lineages, frame) &&
      isToMerge(lineages, frame) &&
      sumOver(lineages, (page) => (mixed(page, frame) ? 1 : 0)) > 0,
  );
  return unclear ? 'a page that others share who do not merge may become the merged one, or may not' : undefined;
}

/** How many entries map each merged page, over all processes. */
export function mergedMapCounts({ lineages }: World): ReadonlyMap<number, number> {
  const merged = [...lineages].filter(({ hasMerged }) => hasMerged);
  return new Map(
    MERGED.map((frame) => [frame, sumOver(merged, (page) => page.ptes.filter((pte) => pte.frame === frame).length)]),
  );
}
