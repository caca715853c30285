/** mmap, mremap and munmap. */
import type { PageRun } from '../../schema/selection.js';
import type { Outcome, StepOf } from '../../schema/step.js';
import { unmergeRange } from './ksm.js';
import { type Admitted, charge, doubtAfterTouching } from './commit.js';
import { zapBlocks } from './huge.js';
import { oweShared } from './hugetlb.js';
import { Lineage } from './lineage.js';
import { populateNewMapping } from './populate.js';
import { dropMapping, failed, type Mapping, type ModelProcess, unchargeVmas, type World, zapRange } from './process.js';
import { removeRange } from './vma.js';

/** do_mmap(), __mmap_region(). */
export function map(world: World, process: ModelProcess, step: StepOf<'map'>, recorded?: Outcome): Outcome {
  const anonymous = step.backing === 'anonymous';
  const shared = step.sharing === 'shared';
  const object = anonymous ? undefined : world.objects.get(step.backing);
  if (!anonymous && !object) return failed('ESRCH', 'map', `there is no object ${step.backing}`);
  // do_mmap(): strict overcommit does not honour MAP_NORESERVE.
  const noreserve = step.noreserve && world.facts.overcommitMode !== 2;
  // accountable_mapping(): private and writable. shmem_acct_size(): shared anonymous memory as a whole, at once.
  const accounted = !shared && step.protection === 'rw' && !noreserve;
  const chargedAtOnce = accounted || (shared && anonymous && !noreserve);
  let admitted: Admitted = {};
  if (chargedAtOnce) {
    // The region takes the place of a reservation, which total_vm counts until the new mapping stands.
    const request = { pages: step.pages, syscall: 'mmap', extraPages: step.pages + 2 };
    admitted = charge(world, process, request, recorded);
    if (admitted.failure) return admitted;
  }
  const lineage = object ?? newLineage(world, step, shared && noreserve);
  const mapping: Mapping = {
    id: lineage.addMapping(),
    shared,
    cached: lineage.cached,
    writeNotify: shared && lineage.kind === 'file',
    region: step.region,
    lineage,
    sharing: step.sharing,
    offset: step.offset,
    pages: step.pages,
    noreserve,
    vmas: [
      {
        first: 0,
        pages: step.pages,
        protection: step.protection,
        accounted,
        dontfork: false,
        wipeonfork: false,
        mergeable: false,
        anonVma: undefined,
      },
    ],
    blocks: step.hugePages === true ? new Map() : undefined,
  };
  process.mappings.set(step.region, mapping);
  if (!step.populate) return { ...admitted };
  const before = world.chargedPages;
  populateNewMapping(world, mapping);
  return { ...admitted, ...doubtAfterTouching(world, process, before) };
}

function newLineage(world: World, step: StepOf<'map'>, chargedPerPage: boolean): Lineage {
  const lineage =
    step.sharing === 'shared'
      ? new Lineage('shared-anonymous', step.pages, chargedPerPage)
      : new Lineage('private-anonymous', Infinity, false);
  world.lineages.add(lineage);
  return lineage;
}

/** mremap() to a greater length, at a new address. */
export function grow(
  world: World,
  process: ModelProcess,
  mapping: Mapping,
  step: StepOf<'grow'>,
  recorded?: Outcome,
): Outcome {
  const [vma] = mapping.vmas;
  const difference = step.pages - mapping.pages;
  // check_prep_vma(): what is resized must be one VMA.
  if (vma?.pages !== mapping.pages) {
    return failed('EFAULT', 'mremap', 'the region is not one VMA any more');
  }
  let admitted: Admitted = {};
  if (vma.accounted) {
    // vrm_calc_charge(): the difference alone. The place to move to is reserved at that moment.
    const request = { pages: difference, syscall: 'mremap', extraPages: step.pages + 2 };
    admitted = charge(world, process, request, recorded);
    if (admitted.failure) return admitted;
  }
  // move_vma(): "Advise KSM to break any KSM pages in the area to be moved".
  if (vma.mergeable && world.mutation !== 'grow-keeps-merged') unmergeRange(world, mapping, vma, vma);
  // move_page_tables(): page table entries, anon_vma and flags stay as they are.
  vma.pages = step.pages;
  mapping.pages = step.pages;
  return { ...admitted };
}

/** munmap() of a part or the whole; a part leaves a hole. */
export function unmap(world: World, process: ModelProcess, mapping: Mapping, range: PageRun): Outcome {
  oweShared(world, mapping);
  zapRange(mapping, range);
  zapBlocks(world, mapping, range);
  unchargeVmas(world, removeRange(mapping.vmas, range));
  if (mapping.vmas.length === 0) dropMapping(world, process, mapping);
  return {};
}

/** A memfd or a file. */
export function createObject(world: World, step: StepOf<'create-object'>): Outcome {
  // memfd_create() makes a VM_NORESERVE object: its pages are charged as they are allocated.
  const lineage = new Lineage(step.backing, step.pages, step.backing === 'memfd');
  world.objects.set(step.object, lineage);
  world.lineages.add(lineage);
  if (step.backing === 'file') {
    lineage.change([{ first: 0, pages: step.pages }], (draft) => {
      draft.dirtyCache();
    });
  }
  return {};
}

/** write(2) into an object: the pages are in the page cache after it, and dirty. */
export function writeObject(world: World, step: StepOf<'write-object'>): Outcome {
  const lineage = world.objects.get(step.object);
  if (!lineage) return failed('ESRCH', 'write-object', `there is no object ${step.object}`);
  const { allocated } = lineage.change([{ first: step.first, pages: step.pages }], (draft) => {
    draft.dirtyCache();
  });
  if (lineage.chargedPerPage) world.chargedPages += allocated;
  return {};
}
