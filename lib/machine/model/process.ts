/** The state of a model machine: processes, their mappings, the objects, and what is charged. */
import type { HostFacts, HugetlbPool } from '../../schema/facts.js';
import type { PageRun } from '../../schema/selection.js';
import type { Failure, Outcome, Sharing } from '../../schema/step.js';
import type { Blocks } from './huge.js';
import { oweShared, type Hugetlb } from './hugetlb.js';
import type { ModelCgroup } from './cgroup.js';
import type { KernelRules } from './kernel-rules.js';
import type { Lineage } from './lineage.js';
import { zap } from './transitions.js';
import type { MappingKind } from './transitions.js';
import type { Mutation } from './mutation.js';
import type { Vma } from './vma.js';

/** One region in one process. */
export interface Mapping extends MappingKind {
  region: string;
  lineage: Lineage;
  sharing: Sharing;
  /** Object page of the region's first page. */
  offset: number;
  /** Length of the region, holes included. */
  pages: number;
  noreserve: boolean;
  /** In address order. */
  vmas: Vma[];
  /** Of a region of transparent huge pages. */
  blocks: Blocks | undefined;
  /** Of a region of hugetlb pages. */
  hugetlb?: Hugetlb | undefined;
}

export interface ModelProcess {
  name: string;
  /** By region, in order of creation. */
  mappings: Map<string, Mapping>;
  /** Accounted and forkable VMAs that the process has beside its regions. */
  baseVmas: readonly number[];
  /** What total_vm counts beside the regions: what the root began with, and guards whose region no fork has taken along. */
  basePages: number;
}

export interface World {
  /** As they are now: a program may set vm.overcommit_memory. */
  facts: HostFacts;
  rules: KernelRules;
  mutation: Mutation | undefined;
  /** Living processes in order of birth. */
  processes: Map<string, ModelProcess>;
  objects: Map<string, Lineage>;
  /** Lineages that somebody maps, or that have a name. */
  lineages: Set<Lineage>;
  /** Growth of Committed_AS since the start. */
  chargedPages: number;
  cgroup?: ModelCgroup;
  /** The program has added swap. */
  hasSwap?: boolean;
  /** Of hugetlb pages, without what the model's own processes have and have reserved. */
  pool?: HugetlbPool | undefined;
}

/** Region pages as pages of the object. */
export function toObject(mapping: Mapping, range: PageRun): PageRun {
  return { first: mapping.offset + range.first, pages: range.pages };
}

/** Length in pages up to which the mapping has memory behind it; an access beyond it raises SIGBUS. */
export function backedPages(mapping: Mapping): number {
  return mapping.lineage.pages - mapping.offset;
}

/** A failed call. */
export function failed(code: string, syscall: string, why?: string): Outcome {
  const failure: Failure = why === undefined ? { code, syscall } : { code, syscall, why };
  return { failure };
}

/** Drops the page table entries of a range of region pages [unmap_page_range]. */
export function zapRange(mapping: Mapping, range: PageRun): void {
  mapping.lineage.change([toObject(mapping, range)], (draft) => {
    zap(draft, mapping.id);
  });
}

/** Takes back what removed VMAs were charged [vms_complete_munmap_vmas, exit_mmap]. */
export function unchargeVmas(world: World, vmas: readonly Vma[]): void {
  for (const vma of vmas) if (vma.accounted) world.chargedPages -= vma.pages;
}

/** Forgets a mapping that has no VMA any more, and with the last one the object behind it, if that has no name. */
export function dropMapping(world: World, process: ModelProcess, mapping: Mapping): void {
  process.mappings.delete(mapping.region);
  const { lineage } = mapping;
  lineage.mappings.delete(mapping.id);
  if (lineage.mappings.size > 0 || isNamed(world, lineage)) return;
  world.lineages.delete(lineage);
  // shmem_evict_inode(): the charge of a shared anonymous object ends with its last mapping.
  if (lineage.kind === 'shared-anonymous') {
    world.chargedPages -= lineage.chargedPerPage ? lineage.cachedPages() : lineage.pages;
  }
}

function isNamed(world: World, lineage: Lineage): boolean {
  for (const object of world.objects.values()) if (object === lineage) return true;
  return false;
}

/** Ends a process: its page table entries and its charges go, its children stay [exit_mmap]. */
export function endProcess(world: World, process: ModelProcess): void {
  for (const mapping of [...process.mappings.values()]) {
    oweShared(world, mapping);
    zapRange(mapping, { first: 0, pages: mapping.pages });
    unchargeVmas(world, mapping.vmas);
    dropMapping(world, process, mapping);
  }
  world.chargedPages -= process.baseVmas.reduce((total, pages) => total + pages, 0);
  world.processes.delete(process.name);
}
