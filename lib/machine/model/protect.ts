/** mprotect and madvise. */
import type { PageRun } from '../../schema/selection.js';
import type { Advice, Outcome, Protection } from '../../schema/step.js';
import { charge, type Admitted } from './commit.js';
import { protectBlocks, splitEdges, zapBlocks } from './huge.js';
import { becomeMergeable, unmergeRange } from './ksm.js';
import { advisePopulate } from './populate.js';
import { failed, type Mapping, type ModelProcess, toObject, type World, zapRange } from './process.js';
import { pageOut, protectPte } from './transitions.js';
import { modifyFlags, overlap, sameFlags, type Vma, type VmaFlags, vmasIn } from './vma.js';

/** mprotect(): VMA by VMA [mprotect_fixup]; if one is refused, those before it stay changed. */
export function protect(
  world: World,
  process: ModelProcess,
  mapping: Mapping,
  range: PageRun,
  protection: Protection,
  recorded?: Outcome,
): Outcome {
  let outcome: Outcome = {};
  forEachPart(mapping, range, (vma, part) => {
    if (outcome.failure || vma.protection === protection) return;
    const admitted = protectPart(world, process, mapping, vma, part, protection, recorded);
    outcome = { ...outcome, ...admitted };
  });
  return outcome;
}

function protectPart(
  world: World,
  process: ModelProcess,
  mapping: Mapping,
  vma: Vma,
  part: PageRun,
  protection: Protection,
  recorded: Outcome | undefined,
): Admitted {
  let accounted = vma.accounted;
  let admitted: Admitted = {};
  if (protection === 'rw') {
    // Private memory that was never charged is charged when it becomes writable.
    if (!vma.accounted && !mapping.shared && !mapping.noreserve) {
      admitted = charge(world, process, { pages: part.pages, syscall: 'mprotect' }, recorded);
      if (admitted.failure) return admitted;
      accounted = true;
    }
  } else if (world.rules.unchargesUnwritten && vma.accounted && !mapping.cached && !vma.anonVma) {
    // "cannot reduce our commit ... except in the anonymous case where no anon_vma has yet to be assigned".
    accounted = false;
    world.chargedPages -= part.pages;
  }
  splitEdges(world, mapping, part);
  modifyFlags(mapping.vmas, vma, part, { protection, accounted }, world.rules);
  mapping.lineage.change([toObject(mapping, part)], (draft) => {
    protectPte(draft, mapping, protection === 'rw');
  });
  protectBlocks(world, mapping, part);
  return admitted;
}

/** madvise(). */
export function advise(world: World, mapping: Mapping, range: PageRun, advice: Advice): Outcome {
  switch (advice) {
    case 'dontfork':
      return adviseFlags(world, mapping, range, { dontfork: true });
    case 'dofork':
      return adviseFlags(world, mapping, range, { dontfork: false });
    case 'wipeonfork':
      // madvise_vma_behavior(): "MADV_WIPEONFORK is only supported on anonymous memory".
      if (mapping.shared || mapping.cached) return failed('EINVAL', 'madvise', 'only for private anonymous memory');
      return adviseFlags(world, mapping, range, { wipeonfork: true });
    case 'keeponfork':
      return adviseFlags(world, mapping, range, { wipeonfork: false });
    case 'mergeable':
    case 'unmergeable':
      return adviseMerging(world, mapping, range, advice);
    case 'dontneed':
      return dontneed(world, mapping, range);
    case 'pageout':
      return pageout(world, mapping, range);
    case 'populate-read':
      return advisePopulate(world, mapping, 'read', range);
    case 'populate-write':
      return advisePopulate(world, mapping, 'write', range);
  }
}

const NO_FAULTS: Outcome = { minorFaults: 0, majorFaults: 0 };

function adviseFlags(world: World, mapping: Mapping, range: PageRun, flags: Partial<VmaFlags>): Outcome {
  forEachPart(mapping, range, (vma, part) => {
    // madvise_update_vma(): nothing to change, nothing to merge.
    if (sameFlags(vma, { ...vma, ...flags })) return;
    splitEdges(world, mapping, part);
    modifyFlags(mapping.vmas, vma, part, flags, world.rules);
  });
  return NO_FAULTS;
}

/** ksm_madvise(): shared memory is passed over, and the call succeeds all the same [vma_ksm_compatible]. */
function adviseMerging(world: World, mapping: Mapping, range: PageRun, advice: 'mergeable' | 'unmergeable'): Outcome {
  // madvise_behavior_valid(): a kernel without KSM does not know the advice.
  if (world.facts.hasKsm === false) return failed('EINVAL', 'madvise', 'this kernel has no KSM');
  if (mapping.shared && world.mutation !== 'shared-memory-is-mergeable') return NO_FAULTS;
  const mergeable = advice === 'mergeable';
  if (mergeable) becomeMergeable(world, mapping);
  let minorFaults = 0;
  forEachPart(mapping, range, (vma, part) => {
    if (!mergeable && vma.mergeable) minorFaults += unmergeRange(world, mapping, vma, part);
  });
  return { ...adviseFlags(world, mapping, range, { mergeable }), minorFaults };
}

/** madvise_dontneed_single_vma(): page table entries go, the anon_vma stays. */
function dontneed(world: World, mapping: Mapping, range: PageRun): Outcome {
  for (const vma of vmasIn(mapping.vmas, range)) {
    const part = overlap(vma, range);
    if (part) zapRange(mapping, part);
    if (part) zapBlocks(world, mapping, part);
    if (world.mutation === 'dontneed-clears-av') vma.anonVma = undefined;
  }
  return NO_FAULTS;
}

/** MADV_PAGEOUT: without swap anonymous memory stays as it is [folio_alloc_swap]. */
function pageout(world: World, mapping: Mapping, range: PageRun): Outcome {
  if (!world.hasSwap) return NO_FAULTS;
  mapping.lineage.hasSwapped = true;
  for (const vma of vmasIn(mapping.vmas, range)) {
    const part = overlap(vma, range);
    if (!part) continue;
    mapping.lineage.change([toObject(mapping, part)], (draft) => {
      pageOut(draft, mapping, world.mutation);
    });
  }
  return NO_FAULTS;
}

/**
 * Visits the part of each VMA that lies in the range, in address order. The list may change under it: what a visit
 * merges or splits is looked up again behind the part that was visited.
 */
function forEachPart(mapping: Mapping, range: PageRun, visit: (vma: Vma, part: PageRun) => void): void {
  let at = range.first;
  const end = range.first + range.pages;
  while (at < end) {
    const from = { first: at, pages: end - at };
    const [vma] = vmasIn(mapping.vmas, from);
    const part = vma && overlap(vma, from);
    if (!part) return;
    visit(vma, part);
    at = part.first + part.pages;
  }
}
