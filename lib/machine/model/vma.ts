/** VMAs of one region in one process: how they are split and merged again, as mm/vma.c does. */
import type { PageRun } from '../../schema/selection.js';
import type { Protection } from '../../schema/step.js';
import type { KernelRules } from './kernel-rules.js';

/**
 * An anon_vma. VMAs that are split from one another share it by identity.
 * `inherited` says that the anon_vma_chain holds more than one entry, since it came by fork: such a VMA and one that
 * has none are never merged [vma_had_uncowed_parents]. A chain never becomes shorter while the VMA lives.
 */
export interface AnonVma {
  readonly inherited: boolean;
}

/** What two neighbours must have in common to be one VMA [is_mergeable_vma]; the rest is equal within a region. */
export interface VmaFlags {
  protection: Protection;
  /** VM_ACCOUNT. */
  accounted: boolean;
  /** VM_DONTCOPY. */
  dontfork: boolean;
  wipeonfork: boolean;
  /** VM_MERGEABLE. */
  mergeable: boolean;
}

export interface Vma extends VmaFlags {
  /** First page, counted from the start of the region. */
  first: number;
  pages: number;
  anonVma: AnonVma | undefined;
}

export function endOf(range: PageRun): number {
  return range.first + range.pages;
}

/** The pages that both ranges have. */
export function overlap(a: PageRun, b: PageRun): PageRun | undefined {
  const first = Math.max(a.first, b.first);
  const pages = Math.min(endOf(a), endOf(b)) - first;
  return pages > 0 ? { first, pages } : undefined;
}

/** The ascending runs of pages, cut to a range. */
export function clipRuns(runs: readonly PageRun[], range: PageRun): readonly PageRun[] {
  const first = runs[0];
  const last = runs.at(-1);
  if (first && last && first.first >= range.first && endOf(last) <= endOf(range)) return runs;
  return runs.flatMap((run) => overlap(run, range) ?? []);
}

/** The VMAs that have pages in the range, in address order; a copy, so the list may be changed on the way. */
export function vmasIn(vmas: readonly Vma[], range: PageRun): Vma[] {
  return vmas.filter((vma) => overlap(vma, range));
}

export function sameFlags(a: VmaFlags, b: VmaFlags): boolean {
  return a.protection === b.protection && sameFlagsButAccess(a, b);
}

function sameFlagsButAccess(a: VmaFlags, b: VmaFlags): boolean {
  const keys = ['accounted', 'dontfork', 'wipeonfork', 'mergeable'] as const;
  return keys.every((key) => a[key] === b[key]);
}

/** is_mergeable_anon_vma(). */
function anonVmasMerge(neighbour: AnonVma | undefined, changed: AnonVma | undefined, rules: KernelRules): boolean {
  if (neighbour === changed) return true;
  if (neighbour && changed) return false;
  if (rules.mergesWithUnwrittenNeighbour) return !(neighbour ?? changed)?.inherited;
  return neighbour?.inherited === false;
}

/**
 * Gives the pages of `range`, which lie in `vma`, new flags: merges them with a neighbour that has these flags, or
 * else splits the VMA [vma_modify, vma_merge_existing_range]. Changes the list in place.
 */
export function modifyFlags(vmas: Vma[], vma: Vma, range: PageRun, flags: Partial<VmaFlags>, rules: KernelRules): void {
  const changed: Vma = { ...vma, ...flags, first: range.first, pages: range.pages };
  const at = vmas.indexOf(vma);
  const before = range.first === vma.first ? neighbour(vmas[at - 1], changed, rules) : undefined;
  let after = endOf(range) === endOf(vma) ? neighbour(vmas[at + 1], changed, rules) : undefined;
  // can_vma_merge_right(): each may fit the middle and not the other.
  if (before?.anonVma && after?.anonVma && before.anonVma !== after.anonVma) after = undefined;

  const merged: Vma = { ...changed };
  if (before) {
    merged.first = before.first;
    merged.pages += before.pages;
  }
  if (after) merged.pages += after.pages;
  // dup_anon_vma(): whichever has one.
  merged.anonVma = before?.anonVma ?? after?.anonVma ?? changed.anonVma;

  const left: Vma = { ...vma, pages: range.first - vma.first };
  const right: Vma = { ...vma, first: endOf(range), pages: endOf(vma) - endOf(range) };
  const parts = [left, merged, right].filter((part) => part.pages > 0);
  const from = before ? at - 1 : at;
  vmas.splice(from, (after ? at + 2 : at + 1) - from, ...parts);
}

/** The VMA beside `changed`, if the two could be one. */
function neighbour(other: Vma | undefined, changed: Vma, rules: KernelRules): Vma | undefined {
  const adjacent = other && (endOf(other) === changed.first || endOf(changed) === other.first);
  const alike = adjacent && sameFlags(other, changed) && anonVmasMerge(other.anonVma, changed.anonVma, rules);
  return alike ? other : undefined;
}

/** Takes the pages of `range` out of the list [vms_gather_munmap_vmas]. Returns the pieces that were taken out. */
export function removeRange(vmas: Vma[], range: PageRun): Vma[] {
  const removed: Vma[] = [];
  for (const vma of vmasIn(vmas, range)) {
    const first = Math.max(vma.first, range.first);
    const end = Math.min(endOf(vma), endOf(range));
    const left: Vma = { ...vma, pages: first - vma.first };
    const right: Vma = { ...vma, first: end, pages: endOf(vma) - end };
    vmas.splice(vmas.indexOf(vma), 1, ...[left, right].filter((part) => part.pages > 0));
    removed.push({ ...vma, first, pages: end - first });
  }
  return removed;
}

/** Gives the VMA an anon_vma, a neighbour's if that may be shared [__anon_vma_prepare, find_mergeable_anon_vma]. */
export function prepareAnonVma(vmas: readonly Vma[], vma: Vma): void {
  if (vma.anonVma) return;
  const at = vmas.indexOf(vma);
  const near = [vmas[at + 1], vmas[at - 1]].find((other) => other && canShareAnonVma(other, vma));
  vma.anonVma = near?.anonVma ?? { inherited: false };
}

/** anon_vma_compatible() and reusable_anon_vma(): neighbours that differ in nothing but the protection. */
function canShareAnonVma(other: Vma, vma: Vma): boolean {
  const adjacent = endOf(other) === vma.first || endOf(vma) === other.first;
  return adjacent && sameFlagsButAccess(other, vma) && other.anonVma?.inherited === false;
}
