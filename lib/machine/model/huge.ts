/**
 * Transparent huge pages of private anonymous memory [mm/huge_memory.c]. The pages of a huge page are pages like any
 * others here, each with the mappings and bits that the kernel shows of it. What is added is how each process maps a
 * block, the memory of one page table: by one entry of the level above (a PMD), or by a table. As long as it is one
 * entry, all its pages change together.
 */
import type { PageRun } from '../../schema/selection.js';
import type { AccessKind } from './access.js';
import { mapCount, pteOf, ZERO, type Draft } from './configuration.js';
import type { Mapping, World } from './process.js';
import { protectPte } from './transitions.js';
import { clipRuns, endOf, prepareAnonVma, type Vma } from './vma.js';

/** How a process maps its blocks, by their number; one that is absent has neither an entry nor a table. */
export type Blocks = Map<number, 'huge' | 'table'>;

function blockRange({ facts }: World, block: number): PageRun {
  return { first: block * facts.pagesPerTable, pages: facts.pagesPerTable };
}

/** The blocks that a range has pages of. */
function blocksOf({ facts }: World, range: PageRun): { first: number; last: number } {
  const blockOf = (page: number): number => Math.floor(page / facts.pagesPerTable);
  return { first: blockOf(range.first), last: blockOf(endOf(range) - 1) };
}

function covers(range: PageRun, block: PageRun): boolean {
  return range.first <= block.first && endOf(block) <= endOf(range);
}

/** What became of blocks that were touched. */
export interface BlockEffect {
  faults: number;
  /** Blocks that were taken over by a write, for one of these faults each. */
  takenOver: number;
}

/**
 * What an access does to the blocks that have no page table: afterwards those that are huge need nothing more, and the
 * pages of all others are due one by one.
 */
export function touchBlocks(world: World, mapping: Mapping, kind: AccessKind, runs: readonly PageRun[]): BlockEffect {
  const effect: BlockEffect = { faults: 0, takenOver: 0 };
  for (const vma of mapping.vmas) {
    let done = -1;
    for (const run of clipRuns(runs, vma)) {
      const { first, last } = blocksOf(world, run);
      for (let block = Math.max(first, done + 1); block <= last; block++) {
        touchBlock(world, mapping, kind, vma, block, effect);
        done = block;
      }
    }
  }
  return effect;
}

function touchBlock(
  world: World,
  mapping: Mapping,
  kind: AccessKind,
  vma: Vma,
  block: number,
  effect: BlockEffect,
): void {
  const state = mapping.blocks?.get(block);
  if (state === 'table') return;
  if (state === 'huge') {
    if (kind === 'write') writeHuge(world, mapping, block, effect);
  } else if (covers(vma, blockRange(world, block))) {
    // thp_vma_suitable_order(): the VMA has the whole block.
    faultHuge(world, mapping, kind, vma, block);
    effect.faults++;
  } else {
    mapping.blocks?.set(block, 'table');
  }
}

/** do_huge_pmd_anonymous_page(). */
function faultHuge(world: World, mapping: Mapping, kind: AccessKind, vma: Vma, block: number): void {
  const { forbidsZeroPage = false, hugeZeroPage = true } = world.facts;
  const zero = kind === 'read' && hugeZeroPage && !forbidsZeroPage;
  // vmf_anon_prepare() comes first, also for a read, which sets no anon_vma where pages are small.
  if (!zero || world.mutation !== 'huge-read-sets-no-av') prepareAnonVma(mapping.vmas, vma);
  mapping.blocks?.set(block, 'huge');
  changeBlock(world, mapping, block, (draft) => {
    if (zero) draft.set({ mapping: mapping.id, frame: ZERO, writable: false, dirty: false });
    else takePage(draft, mapping, vma.protection === 'rw');
  });
}

/** map_anon_folio_pmd(): dirty whatever the access was, and with the rights of the VMA. */
function takePage(draft: Draft, mapping: Mapping, writable: boolean): void {
  draft.set({ mapping: mapping.id, frame: draft.newAnonymousFrame(), writable, dirty: true });
}

/** do_huge_pmd_wp_page(), for one that is not writable; the processor writes to others by itself. */
function writeHuge(world: World, mapping: Mapping, block: number, effect: BlockEffect): void {
  // All pages of a huge page are mapped alike.
  const pte = pteOf(mapping.lineage.at(blockRange(world, block).first), mapping.id);
  if (!pte) throw new RangeError(`block ${block} of ${mapping.region} is huge and not mapped`);
  if (pte.writable) return;
  const zero = pte.frame === ZERO;
  if (!zero && isOwn(world, mapping, block)) {
    takeOver(world, mapping, block);
    effect.faults++;
    effect.takenOver++;
  } else if (zero ? world.rules.replacesHugeZeroPage : world.mutation === 'huge-page-is-copied-whole') {
    changeBlock(world, mapping, block, (draft) => {
      takePage(draft, mapping, true);
    });
    effect.faults++;
  } else {
    // __split_huge_pmd(), and the fault goes on with the page that is written.
    mapping.blocks?.set(block, 'table');
  }
}

/** Nobody else has a page of it [folio_ref_count]. */
function isOwn(world: World, mapping: Mapping, block: number): boolean {
  if (world.mutation === 'huge-page-is-never-reused') return false;
  const sharedPages = mapping.lineage.countPages([blockRange(world, block)], (page) => {
    const pte = pteOf(page, mapping.id);
    return pte !== undefined && mapCount(page, pte.frame) > 1;
  });
  return sharedPages === 0;
}

/**
 * The entry becomes writable in place, and no flush follows, as in populatePrivate(). One entry maps all pages, yet the
 * processor may hold translations of single ones, also of pages that were not touched: where small pages stand behind a
 * huge one, as in a virtual machine, it must.
 */
function takeOver(world: World, mapping: Mapping, block: number): void {
  mapping.lineage.hasStale = true;
  changeBlock(world, mapping, block, (draft) => {
    const pte = draft.pte(mapping.id);
    if (!pte) return;
    draft.exclusive[pte.frame] = true;
    draft.set({ mapping: mapping.id, frame: pte.frame, writable: true, dirty: true, stale: true });
  });
}

function changeBlock(world: World, mapping: Mapping, block: number, by: (draft: Draft) => void): void {
  mapping.lineage.change([blockRange(world, block)], by);
}

/** Where a range begins or ends inside a huge page, that gets a page table [vma_adjust_trans_huge, zap_pmd_range]. */
export function splitEdges(world: World, { blocks }: Mapping, range: PageRun): void {
  if (!blocks || world.mutation === 'huge-page-is-not-split') return;
  const { pagesPerTable } = world.facts;
  for (const edge of [range.first, endOf(range)]) {
    const block = Math.floor(edge / pagesPerTable);
    if (edge % pagesPerTable !== 0 && blocks.get(block) === 'huge') blocks.set(block, 'table');
  }
}

/** After the pages of a range were unmapped or given back. */
export function zapBlocks(world: World, mapping: Mapping, range: PageRun): void {
  const { blocks } = mapping;
  if (!blocks) return;
  splitEdges(world, mapping, range);
  const { first, last } = blocksOf(world, range);
  for (let block = first; block <= last; block++) {
    if (!covers(range, blockRange(world, block))) continue;
    if (blocks.get(block) === 'huge' || world.rules.reclaimsTables) blocks.delete(block);
  }
}

/** change_huge_pmd(): before 6.2 a huge page did not become writable before the next write. */
export function protectBlocks(world: World, mapping: Mapping, range: PageRun): void {
  if (!mapping.blocks || world.rules.protectsHugeWritable) return;
  const { first, last } = blocksOf(world, range);
  for (let block = first; block <= last; block++) {
    if (mapping.blocks.get(block) !== 'huge') continue;
    changeBlock(world, mapping, block, (draft) => {
      protectPte(draft, mapping, false);
    });
  }
}

/** What a child has of the blocks, where page tables are copied [copy_pmd_range, copy_huge_pmd]. */
export function inheritedBlocks(world: World, blocks: Blocks, copied: readonly PageRun[]): Blocks {
  const inherited: Blocks = new Map();
  for (const range of copied) {
    const { first, last } = blocksOf(world, range);
    for (let block = first; block <= last; block++) {
      const state = blocks.get(block);
      if (state) inherited.set(block, state);
    }
  }
  return inherited;
}

/** The parts of a VMA that smaps leaves out. */
export function hiddenParts(world: World, mapping: Mapping, vma: Vma): PageRun[] {
  if (world.rules.countsUnreadableHuge || vma.protection !== 'none') return [];
  const { first, last } = blocksOf(world, vma);
  const blocks = [...(mapping.blocks ?? [])].filter(
    ([block, state]) => state === 'huge' && block >= first && block <= last,
  );
  return blocks.map(([block]) => blockRange(world, block));
}

/** How many pages of a VMA smaps counts in AnonHugePages; those of the huge zero page are none [smaps_pmd_entry]. */
export function hugePages(world: World, mapping: Mapping, vma: Vma): number {
  if (!mapping.blocks || hiddenParts(world, mapping, vma).length > 0) return 0;
  let pages = 0;
  const { first, last } = blocksOf(world, vma);
  for (let block = first; block <= last; block++) {
    if (mapping.blocks.get(block) !== 'huge') continue;
    const range = blockRange(world, block);
    if (pteOf(mapping.lineage.at(range.first), mapping.id)?.frame !== ZERO) pages += range.pages;
  }
  return pages;
}
