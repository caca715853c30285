/** Populating: MAP_POPULATE and madvise(MADV_POPULATE_READ, MADV_POPULATE_WRITE). */
import { sum, type Figure } from '../../schema/figure.js';
import type { PageRun } from '../../schema/selection.js';
import type { Outcome } from '../../schema/step.js';
import { type AccessKind, faultsOf, permits, readBeyondEnd, touchRange, type Touched } from './access.js';
import { backedPages, type Mapping, type World } from './process.js';
import { endOf, overlap, prepareAnonVma } from './vma.js';

/** mm_populate() after mmap: errors are not reported, so it stops silently where there is no memory. */
export function populateNewMapping(world: World, mapping: Mapping): void {
  for (const vma of mapping.vmas) {
    // populate_vma_page_range(): FOLL_WRITE only to break copy-on-write, so shared memory is read.
    const kind = vma.protection === 'rw' && !mapping.shared ? 'write' : 'read';
    if (permits(vma, kind)) populatePart(world, mapping, kind, vma);
  }
}

/** madvise_populate(): stops with an error at the first page that cannot be had; what came before stays. */
export function advisePopulate(world: World, mapping: Mapping, kind: AccessKind, range: PageRun): Outcome {
  const faults: Figure[] = [];
  let swappedIn = 0;
  let at = range.first;
  let code: string | undefined;
  while (at < endOf(range) && code === undefined) {
    const vma = mapping.vmas.find((each) => at >= each.first && at < endOf(each));
    if (!vma || !permits(vma, kind)) {
      // faultin_page_range(): permission problems are EINVAL. Where a part was unmapped a PROT_NONE guard stands.
      code = 'EINVAL';
      break;
    }
    const part = overlap(vma, { first: at, pages: endOf(range) - at });
    if (!part) break;
    const populated = populatePart(world, mapping, kind, part);
    faults.push(populated.faults);
    swappedIn += populated.swappedIn;
    // VM_FAULT_SIGBUS and VM_FAULT_SIGSEGV become EFAULT.
    if (populated.beyondEnd) code = 'EFAULT';
    at = endOf(part);
  }
  const counted = faultsOf({ faults: sum(faults), swappedIn });
  return code === undefined ? counted : { failure: { code, syscall: 'madvise' }, ...counted };
}

/** Populates a range that lies in one VMA, as far as there is memory behind it. */
function populatePart(
  world: World,
  mapping: Mapping,
  kind: AccessKind,
  range: PageRun,
): Touched & { beyondEnd: boolean } {
  const end = Math.max(range.first, Math.min(endOf(range), backedPages(mapping)));
  const touched = touchRange(world, mapping, kind, { first: range.first, pages: end - range.first });
  const beyondEnd = end < endOf(range);
  const vma = mapping.vmas.find((each) => end >= each.first && end < endOf(each));
  if (beyondEnd && vma) {
    // do_cow_fault() prepares the anon_vma, and do_read_fault() maps what is around, before they find no page.
    if (kind === 'read') readBeyondEnd(world, mapping, end, vma);
    else if (!mapping.shared) prepareAnonVma(mapping.vmas, vma);
  }
  return { ...touched, beyondEnd };
}
