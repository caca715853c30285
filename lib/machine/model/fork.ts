/** fork: which VMAs and which page table entries the child gets [dup_mmap, copy_page_range]. */
import type { Outcome } from '../../schema/step.js';
import { pidsRefusal } from './cgroup.js';
import { chargeFork, GUARD_PAGES } from './commit.js';
import { inheritedBlocks } from './huge.js';
import { inheritedHugetlb } from './hugetlb.js';
import { type Mapping, type ModelProcess, toObject, type World } from './process.js';
import { copyPte } from './transitions.js';
import type { Vma } from './vma.js';

export function fork(world: World, parent: ModelProcess, childName: string, recorded?: Outcome): Outcome {
  const before = world.chargedPages;
  const admitted = chargeFork(world, parent, recorded);
  if (admitted.failure) return admitted;
  // copy_process() asks cgroup_can_fork() once the memory is copied, and gives all of it back if that refuses.
  const refused = pidsRefusal(world, parent);
  if (refused) {
    world.chargedPages = before;
    return refused;
  }
  const { baseVmas, basePages } = parent;
  const child: ModelProcess = { name: childName, mappings: new Map(), baseVmas, basePages };
  for (const mapping of parent.mappings.values()) {
    const inherited = forkMapping(world, mapping);
    if (inherited) child.mappings.set(inherited.region, inherited);
    else child.basePages += GUARD_PAGES;
  }
  world.processes.set(childName, child);
  if (world.cgroup?.members.has(parent.name)) world.cgroup.members.add(childName);
  return admitted;
}

function forkMapping(world: World, mapping: Mapping): Mapping | undefined {
  // VM_DONTCOPY: the child has no such VMA.
  const parents = mapping.vmas.filter((vma) => !vma.dontfork);
  if (parents.length === 0) return undefined;
  const id = mapping.lineage.addMapping();
  const vmas = parents.map((vma) => forkVma(world, vma));
  const copied = parents.filter((vma) => needsCopy(world, mapping, vma)).map((vma) => toObject(mapping, vma));
  mapping.lineage.change(copied, (draft) => {
    copyPte(draft, mapping.id, id, world.mutation);
  });
  const blocks = mapping.blocks && inheritedBlocks(world, mapping.blocks, copied);
  return { ...mapping, id, vmas, blocks, hugetlb: inheritedHugetlb(world, mapping.hugetlb) };
}

/** vma_needs_copy(): page tables are copied only for a VMA that has an anon_vma; a wiped one is not copied at all. */
function needsCopy(world: World, mapping: Mapping, vma: Vma): boolean {
  if (vma.wipeonfork || mapping.shared) return false;
  return vma.anonVma !== undefined || world.mutation === 'fork-copies-all';
}

function forkVma(world: World, vma: Vma): Vma {
  return {
    ...vma,
    wipeonfork: vma.wipeonfork && world.mutation !== 'wipeonfork-is-not-inherited',
    mergeable: vma.mergeable && world.mutation !== 'mergeable-is-not-inherited',
    // anon_vma_fork() makes an anon_vma for each VMA; a wiped one "gets a clean slate".
    anonVma: vma.anonVma && !vma.wipeonfork ? { inherited: true } : undefined,
  };
}
