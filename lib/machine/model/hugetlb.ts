/**
 * Memory of hugetlb pages [mm/hugetlb.c]. A page of the pool is mapped, copied and counted as a whole, so here all base
 * pages of a block change together. What is added to copy-on-write is the pool: of its free pages some are reserved for
 * those who have mapped memory and not touched all of it, and whoever needs a page and finds none ends by SIGBUS.
 */
import type { HugetlbPool } from '../../schema/facts.js';
import { pageOrder, type PageRun, type Selection } from '../../schema/selection.js';
import type { Outcome, StepOf } from '../../schema/step.js';
import { type AccessKind, permits } from './access.js';
import { CACHE, type Configuration, mapCount, type Pte, pteOf } from './configuration.js';
import { Lineage } from './lineage.js';
import { endProcess, failed, type Mapping, type ModelProcess, type World } from './process.js';
import { refreshed, STALE } from './transitions.js';
import { prepareAnonVma } from './vma.js';

/** What a mapping of hugetlb pages knows beside its pages. */
export interface Hugetlb {
  /** HPAGE_RESV_OWNER: the process that mapped a private region has a page reserved for each that it has not touched. */
  owner: boolean;
  /** HPAGE_RESV_UNMAPPED: the owner has taken a page from it, and so it may have no further one. */
  robbed: boolean;
}

/** 'stale': mapped, and the processor may hold an old translation, which costs a fault. */
type Touched = 'mapped' | 'faulted' | 'stale' | 'SIGBUS';

/** mmap: reserves all pages of the region, or is refused [hugetlb_reserve_pages, hugetlb_acct_memory]. */
export function mapHugetlb(world: World, process: ModelProcess, step: StepOf<'map'>): Outcome {
  const { pages, sharing, protection, noreserve } = step;
  const { pagesPerTable } = world.facts;
  if (!world.pool) return failed('EINVAL', 'mmap', 'this kernel has no hugetlb memory');
  const wanted = pages / pagesPerTable;
  // hugetlb_acct_memory() also holds it against all that are free, though others may have reserved them.
  const free = freePages(world, world.pool);
  const unreserved = Math.min(free, free - reservedPages(world, world.pool));
  if (!noreserve && wanted > unreserved) {
    const why = `${String(wanted)} huge pages are to be reserved, and ${String(unreserved)} are free and not reserved`;
    return failed('ENOMEM', 'mmap', why);
  }
  const shared = sharing === 'shared';
  const lineage = new Lineage(shared ? 'shared-hugetlb' : 'private-hugetlb', shared ? pages : Infinity, false);
  world.lineages.add(lineage);
  // accountable_mapping(): "hugetlbfs does its own accounting".
  const vma = {
    first: 0,
    pages,
    protection,
    accounted: false,
    dontfork: false,
    wipeonfork: false,
    mergeable: false,
    anonVma: undefined,
  };
  const mapping: Mapping = {
    id: lineage.addMapping(),
    shared,
    cached: lineage.cached,
    writeNotify: false,
    region: step.region,
    lineage,
    sharing,
    offset: 0,
    pages,
    noreserve,
    vmas: [vma],
    blocks: undefined,
    hugetlb: { owner: !shared && !noreserve, robbed: false },
  };
  process.mappings.set(step.region, mapping);
  if (step.populate) populate(world, mapping);
  return {};
}

/** mm_populate(): it stops silently where there is no page. */
function populate(world: World, mapping: Mapping): void {
  const kind = mapping.vmas.some((vma) => permits(vma, 'write')) && !mapping.shared ? 'write' : 'read';
  if (!mapping.vmas.every((vma) => permits(vma, kind))) return;
  for (let page = 0; page < mapping.pages; page += world.facts.pagesPerTable) {
    if (touchPage(world, mapping, kind, page) === 'SIGBUS') return;
  }
}

/** Touches the selected pages in their order; the process ends at the first for which there is no page. */
export function accessHugetlb(
  world: World,
  process: ModelProcess,
  mapping: Mapping,
  kind: AccessKind,
  selection: Selection,
): Outcome {
  const pageAt = pageOrder(selection);
  let faults = 0;
  let stale = 0;
  for (let position = selection.from; position < selection.to; position++) {
    const allowed = mapping.vmas.every((vma) => permits(vma, kind));
    const touched = allowed ? touchPage(world, mapping, kind, pageAt(position)) : 'SIGSEGV';
    if (touched === 'SIGBUS' || touched === 'SIGSEGV') {
      endProcess(world, process);
      return { ended: { signal: touched } };
    }
    if (touched === 'faulted') faults++;
    if (touched === 'stale') stale++;
  }
  const minorFaults = stale === 0 ? faults : { min: faults, max: faults + stale, why: STALE };
  return { minorFaults, majorFaults: 0 };
}

/** hugetlb_fault(). */
function touchPage(world: World, mapping: Mapping, kind: AccessKind, page: number): Touched {
  const { pagesPerTable } = world.facts;
  const range = { first: page - (page % pagesPerTable), pages: pagesPerTable };
  const pte = pteOf(mapping.lineage.at(page), mapping.id);
  if (!pte) return mapping.shared ? touchShared(world, mapping, range) : touchMissing(world, mapping, kind, range);
  if (kind === 'read') return 'mapped';
  const touched = pte.writable ? (pte.stale ? 'stale' : 'mapped') : writeProtected(world, mapping, range, pte);
  if (touched !== 'mapped' && touched !== 'SIGBUS') refresh(mapping, page);
  return touched;
}

/** hugetlb_no_page() of shared memory: whoever touches a page takes it for all, out of the region's reservation. */
function touchShared(world: World, mapping: Mapping, range: PageRun): Touched {
  const cached = mapping.lineage.at(range.first).cache.present;
  if (!cached && !(mapping.noreserve ? hasUnreserved(world) : hasFree(world))) return 'SIGBUS';
  mapping.lineage.change([range], (draft) => {
    draft.dirtyCache();
    draft.set({ mapping: mapping.id, frame: CACHE, writable: true, dirty: true });
  });
  return 'faulted';
}

/** hugetlb_no_page() of private memory, which has no zero page: also a read takes a page. */
function touchMissing(world: World, mapping: Mapping, kind: AccessKind, range: PageRun): Touched {
  if (mapping.hugetlb?.robbed && world.mutation !== 'hugetlb-robbed-child-lives') return 'SIGBUS';
  // Where pages are owed, others may have got what is reserved.
  if (mapping.hugetlb?.owner ? !hasFree(world) : !hasUnreserved(world)) return 'SIGBUS';
  takePage(mapping, range, kind === 'write');
  return 'faulted';
}

/** hugetlb_wp(). */
function writeProtected(world: World, mapping: Mapping, range: PageRun, { frame }: Pte): Touched {
  if (mapCount(mapping.lineage.at(range.first), frame) > 1) {
    // "attempt to satisfy the allocation without using the existing reserves", also for the owner.
    if (hasUnreserved(world)) {
      takePage(mapping, range, true);
      return 'faulted';
    }
    if (!mapping.hugetlb?.owner) return 'SIGBUS';
    robOthers(world, mapping, range, frame);
  }
  mapping.lineage.change([range], (draft) => {
    draft.exclusive[frame] = true;
    // No flush follows [set_huge_ptep_writable], and the processor may have translations of single pages: huge.ts, takeOver().
    const pte = draft.pte(mapping.id);
    if (pte) draft.set({ ...pte, writable: true, dirty: true, stale: true });
  });
  return 'faulted';
}

/** The processor looks the page up anew after a fault on it. */
function refresh(mapping: Mapping, page: number): void {
  mapping.lineage.change([{ first: page, pages: 1 }], (draft) => {
    const pte = draft.pte(mapping.id);
    if (pte?.stale) draft.set(refreshed(pte));
  });
}

/** unmap_ref_private(): the owner takes the page from all others that map it. */
function robOthers(world: World, owner: Mapping, range: PageRun, frame: number): void {
  for (const process of world.processes.values()) {
    for (const mapping of process.mappings.values()) {
      if (mapping.lineage !== owner.lineage || mapping === owner || !mapping.hugetlb) continue;
      if (pteOf(mapping.lineage.at(range.first), mapping.id)?.frame !== frame) continue;
      mapping.hugetlb.robbed = true;
      // The owner's mapping is the first of them, so its frame keeps its number whatever others lose.
      mapping.lineage.change([range], (draft) => {
        draft.remove(mapping.id);
      });
    }
  }
}

function takePage(mapping: Mapping, range: PageRun, writable: boolean): void {
  for (const vma of mapping.vmas) prepareAnonVma(mapping.vmas, vma);
  mapping.lineage.change([range], (draft) => {
    draft.set({ mapping: mapping.id, frame: draft.newAnonymousFrame(), writable, dirty: true });
  });
}

/** dequeue_hugetlb_folio_vma(), whose counts are unsigned: only what is exactly none is none. */
function hasUnreserved(world: World): boolean {
  const { pool } = world;
  return pool !== undefined && hasFree(world) && freePages(world, pool) !== reservedPages(world, pool);
}

function hasFree(world: World): boolean {
  return world.pool !== undefined && freePages(world, world.pool) > 0;
}

function freePages({ facts, lineages }: World, pool: HugetlbPool): number {
  let free = pool.freePages;
  for (const lineage of lineages) if (lineage.isHugetlb) free -= lineage.frames() / facts.pagesPerTable;
  return free;
}

/** A reservation goes with its mapping [hugetlb_vm_op_close]; what is owed has been given up twice. */
function reservedPages(world: World, pool: HugetlbPool): number {
  const { pagesPerTable } = world.facts;
  const shared = new Map<Lineage, number>();
  let reserved = pool.reservedPages;
  for (const process of world.processes.values()) {
    for (const { lineage, id, pages, hugetlb, noreserve, shared: isShared } of process.mappings.values()) {
      if (!hugetlb || noreserve) continue;
      const whole = [{ first: 0, pages }];
      if (isShared) shared.set(lineage, (pages - lineage.cachedPages()) / pagesPerTable);
      else if (hugetlb.owner) reserved += lineage.countPages(whole, (page) => !pteOf(page, id)) / pagesPerTable;
    }
  }
  for (const pages of shared.values()) reserved += pages;
  for (const lineage of world.lineages) {
    if (lineage.isHugetlb) reserved -= lineage.countPages(EVERYWHERE, isOwed) / pagesPerTable;
  }
  return reserved;
}

const EVERYWHERE = [{ first: 0, pages: Number.MAX_SAFE_INTEGER }];

function isOwed({ ptes }: Configuration): boolean {
  return ptes.some(({ owed }) => owed);
}

/** Before a mapping is unmapped: its pages that others have too are owed from then on. */
export function oweShared(world: World, mapping: Mapping): void {
  if (!mapping.hugetlb?.owner || !world.rules.owesReservations || world.mutation === 'hugetlb-owes-nothing') return;
  mapping.lineage.change([{ first: 0, pages: mapping.pages }], (draft) => {
    const own = draft.pte(mapping.id);
    for (const pte of draft.ptes) if (pte.frame === own?.frame && pte !== own) draft.set({ ...pte, owed: true });
  });
}

/** What a child has of it: none of the reservations of private memory [hugetlb_dup_vma_private]. */
export function inheritedHugetlb(world: World, hugetlb: Hugetlb | undefined): Hugetlb | undefined {
  return hugetlb && { owner: hugetlb.owner && world.mutation === 'hugetlb-child-has-reservation', robbed: false };
}

/** vm.nr_hugepages, set while no process has such memory. How much memory there is in one piece, only a reading tells. */
export function setHugetlb(world: World, { pages }: StepOf<'hugetlb'>, recorded?: Outcome): Outcome {
  const { pool } = world;
  if (!pool) return failed('ENOENT', 'open', 'this kernel has no hugetlb memory');
  const held = pool.totalPages - pool.freePages;
  world.pool = recorded?.hugetlbPool ?? { ...pool, totalPages: pages, freePages: pages - held };
  const more = (world.pool.totalPages - pool.totalPages) * world.facts.pagesPerTable;
  const limit = recorded?.commitLimitPages;
  world.facts = {
    ...world.facts,
    hugetlbPages: world.facts.hugetlbPages + more,
    ...(typeof limit === 'number' ? { commitLimitPages: limit } : {}),
  };
  return { hugetlbPool: world.pool };
}

/** @throws RangeError for a step that these rules do not know. */
export function requireModelled(mapping: Mapping, step: { op: string; first?: number; pages?: number }): void {
  if (!mapping.hugetlb) return;
  const { op, first, pages } = step;
  if (op === 'read' || op === 'write' || (op === 'unmap' && first === 0 && pages === mapping.pages)) return;
  throw new RangeError(`${op} of hugetlb memory, or of a part of it, is not modelled`);
}
