/** Reads and writes of memory, by the process itself and by the kernel on its behalf (populate). */
import { bounds, sum, type Figure } from '../../schema/figure.js';
import { pageOrder, type PageRun, type Selection, selectedRuns } from '../../schema/selection.js';
import type { Outcome } from '../../schema/step.js';
import { type Configuration, pteOf } from './configuration.js';
import { ReadSimulation } from './fault.js';
import { touchBlocks, type BlockEffect } from './huge.js';
import type { Effect } from './lineage.js';
import { backedPages, endProcess, type Mapping, type ModelProcess, toObject, type World } from './process.js';
import {
  populatePrivate,
  populateShared,
  readMissing,
  readSwapped,
  STALE,
  SWAP_CACHE,
  writePrivate,
  writeShared,
} from './transitions.js';
import { clipRuns, endOf, overlap, prepareAnonVma, type Vma } from './vma.js';

export type AccessKind = 'read' | 'write';

const WRITEBACK = 'writeback may have cleaned pages of the file, and the write to a cleaned page faults again';

/** What a write does to one page of a private and of a shared mapping. */
interface WriteRules {
  onPrivate: typeof writePrivate;
  onShared: typeof writeShared;
}
const BY_PROCESS: WriteRules = { onPrivate: writePrivate, onShared: writeShared };
const NO_BLOCKS: BlockEffect = { faults: 0, takenOver: 0 };
const BY_POPULATE: WriteRules = { onPrivate: populatePrivate, onShared: populateShared };

/** Touches the selected pages in their order; the process ends at the first page that it may not touch. */
export function access(
  world: World,
  process: ModelProcess,
  mapping: Mapping,
  kind: AccessKind,
  selection: Selection,
): Outcome {
  const fatal = firstFatal(mapping, kind, selection);
  const survived = fatal ? { ...selection, to: fatal.position } : selection;
  const touched = touch(world, mapping, kind, survived, BY_PROCESS);
  if (!fatal) return faultsOf(touched);
  endProcess(world, process);
  return { ended: { signal: fatal.signal } };
}

/** What touching pages came to. */
export interface Touched {
  faults: Figure;
  /** How many of the faults brought a page back from swap, and may be major. */
  swappedIn: number;
}

/** Faults as an outcome says them: together, and which of them are major. */
export function faultsOf({ faults, swappedIn }: Touched): Outcome {
  if (swappedIn === 0) return { minorFaults: faults, majorFaults: 0 };
  const { min, max } = bounds(faults);
  return {
    minorFaults: { min: min - swappedIn, max, why: SWAP_CACHE },
    majorFaults: { min: 0, max: swappedIn, why: SWAP_CACHE },
    faults,
  };
}

/** Touches every page of a range, in order, as the kernel does to populate it; all pages must be permitted. */
export function touchRange(world: World, mapping: Mapping, kind: AccessKind, range: PageRun): Touched {
  return touch(world, mapping, kind, wholeRange(range), BY_POPULATE);
}

export function wholeRange({ first, pages }: PageRun): Selection {
  return { first, pages, pattern: 'sequential', seed: 0, stride: 1, from: 0, to: pages };
}

export function permits(vma: Vma, kind: AccessKind): boolean {
  return kind === 'write' ? vma.protection === 'rw' : vma.protection !== 'none';
}

/** The first position of the selection at which the access raises a signal. */
function firstFatal(
  mapping: Mapping,
  kind: AccessKind,
  selection: Selection,
): { position: number; signal: 'SIGSEGV' | 'SIGBUS' } | undefined {
  const whole = { first: selection.first, pages: selection.pages };
  const allowed = mapping.vmas.filter((vma) => permits(vma, kind)).flatMap((vma) => overlap(vma, whole) ?? []);
  const allowedPages = allowed.reduce((total, { pages }) => total + pages, 0);
  const end = backedPages(mapping);
  if (allowedPages === whole.pages && endOf(whole) <= end) return undefined;
  const pageAt = pageOrder(selection);
  for (let position = selection.from; position < selection.to; position++) {
    const page = pageAt(position);
    // access_error() is asked first [do_user_addr_fault]; then the memory behind [shmem_fault, filemap_fault].
    if (!allowed.some((range) => page >= range.first && page < endOf(range))) return { position, signal: 'SIGSEGV' };
    if (page >= end) return { position, signal: 'SIGBUS' };
  }
  return undefined;
}

function touch(world: World, mapping: Mapping, kind: AccessKind, selection: Selection, rules: WriteRules): Touched {
  if (selection.from >= selection.to) return { faults: 0, swappedIn: 0 };
  const runs = selectedRuns(selection);
  const isSwapped = (page: Configuration): boolean => pteOf(page, mapping.id)?.swapped === true;
  const swappedIn = mapping.lineage.hasSwapped ? mapping.lineage.countPages(toObjectRuns(mapping, runs), isSwapped) : 0;
  return { faults: touchRuns(world, mapping, kind, selection, runs, rules), swappedIn };
}

/** Returns the faults. */
function touchRuns(
  world: World,
  mapping: Mapping,
  kind: AccessKind,
  selection: Selection,
  runs: readonly PageRun[],
  rules: WriteRules,
): Figure {
  // What is left to the rules of single pages then are the blocks that have a page table.
  const { faults, takenOver } = mapping.blocks ? touchBlocks(world, mapping, kind, runs) : NO_BLOCKS;
  if (kind === 'write') return sum([faults, write(world, mapping, runs, rules, takenOver)]);
  const effect = mapping.cached ? readInOrder(world, mapping, selection) : readAnonymous(world, mapping, runs);
  return faults + settle(world, mapping, effect);
}

/** @param faulted How many of the pages have just faulted: of these no old translation is left. */
function write(world: World, mapping: Mapping, runs: readonly PageRun[], rules: WriteRules, faulted: number): Figure {
  const effect: Effect = { faults: 0, allocated: 0 };
  if (rules === BY_POPULATE) mapping.lineage.hasStale = true;
  const mayFaultAgain = (page: Configuration): boolean => {
    const pte = pteOf(page, mapping.id);
    return pte?.writable === true && (mapping.writeNotify || (pte.stale === true && rules === BY_PROCESS));
  };
  let doubtful = rules === BY_PROCESS ? -faulted : 0;
  for (const { vma, selected } of byVma(mapping, runs)) {
    if (mapping.writeNotify || mapping.lineage.hasStale) {
      doubtful += mapping.lineage.countPages(selected, mayFaultAgain);
    }
    const part = mapping.lineage.apply(selected, (draft) =>
      (mapping.shared ? rules.onShared : rules.onPrivate)(draft, mapping, world.mutation),
    );
    // vmf_anon_prepare() is called by every private write fault, and by no other fault but in readAnonymous().
    if (!mapping.shared && part.faults > 0) prepareAnonVma(mapping.vmas, vma);
    effect.faults += part.faults;
    effect.allocated += part.allocated;
  }
  const min = settle(world, mapping, effect);
  return doubtful === 0 ? min : { min, max: min + doubtful, why: mapping.writeNotify ? WRITEBACK : STALE };
}

function readAnonymous(world: World, mapping: Mapping, runs: readonly PageRun[]): Effect {
  const { forbidsZeroPage = false } = world.facts;
  const effect: Effect = { faults: 0, allocated: 0 };
  for (const { vma, selected } of byVma(mapping, runs)) {
    const part = mapping.lineage.apply(selected, (draft) => {
      const pte = draft.pte(mapping.id);
      if (pte?.swapped) return readSwapped(draft, pte, vma.protection === 'rw');
      return pte ? 0 : readMissing(draft, mapping, vma.protection === 'rw', forbidsZeroPage);
    });
    const allocated = forbidsZeroPage && part.faults > 0;
    if (allocated || world.mutation === 'av-set-by-reads') prepareAnonVma(mapping.vmas, vma);
    effect.faults += part.faults;
  }
  return effect;
}

function readInOrder(world: World, mapping: Mapping, selection: Selection): Effect {
  const simulation = new ReadSimulation(world, mapping);
  const pageAt = pageOrder(selection);
  let vma: Vma | undefined;
  for (let position = selection.from; position < selection.to; position++) {
    const page = pageAt(position);
    if (!vma || page < vma.first || page >= endOf(vma)) {
      vma = mapping.vmas.find((each) => page >= each.first && page < endOf(each));
      if (!vma) throw new RangeError(`page ${page} of ${mapping.region} is not mapped`);
    }
    simulation.read(page, vma);
  }
  simulation.finish();
  return simulation.effect;
}

/** The read of a page that has no memory behind it; the caller reports the error. */
export function readBeyondEnd(world: World, mapping: Mapping, page: number, vma: Vma): void {
  const simulation = new ReadSimulation(world, mapping);
  simulation.readBeyondEnd(page, vma);
  simulation.finish();
}

/** The selected pages VMA by VMA, as pages of the object. */
function byVma(mapping: Mapping, runs: readonly PageRun[]): { vma: Vma; selected: readonly PageRun[] }[] {
  return mapping.vmas
    .map((vma) => ({ vma, selected: toObjectRuns(mapping, clipRuns(runs, vma)) }))
    .filter(({ selected }) => selected.length > 0);
}

function toObjectRuns(mapping: Mapping, runs: readonly PageRun[]): readonly PageRun[] {
  // A random selection is hundreds of thousands of runs: not copied without need.
  return mapping.offset === 0 ? runs : runs.map((run) => toObject(mapping, run));
}

/** Charges what was allocated; returns the faults. */
function settle(world: World, mapping: Mapping, { faults, allocated }: Effect): number {
  if (mapping.lineage.chargedPerPage) world.chargedPages += allocated;
  return faults;
}
