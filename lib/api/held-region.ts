/** A region as one forked process has it, and what of that a child gets. */
import { native } from '../native.js';
import { countPages } from '../proc/pagemap.js';
import { requireRange } from '../schema/arguments.js';
import type { PageRange } from '../schema/arguments.js';
import { PageSet } from '../schema/page-set.js';
import { openMappings } from './mapping.js';
import type { Mapping } from './mapping.js';

/** A region that a forked process mapped; its descendants know it by the same handle. */
export class ForkedRegion {
  /** Distinguishes the type. */
  readonly kind = 'forked region';
}

/** Memory that a forked process has: its own regions, and the mappings of Node that it inherited. */
export type RegionHandle = ForkedRegion | Mapping;

/** Where a region lies in one process. */
export interface Placement {
  address: bigint;
  pages: number;
}

export class HeldRegion implements Placement {
  address: bigint;
  pages: number;
  /** Pages that a child will not have. */
  readonly dontfork: PageSet;
  /** How often pages of it have been given back, by MADV_DONTNEED or munmap of a part. */
  givenBack = 0;
  /** Where it will lie is not known until the process has answered. */
  moving = false;

  constructor({ address, pages }: Placement, dontfork = new PageSet()) {
    this.address = address;
    this.pages = pages;
    this.dontfork = dontfork;
  }

  /** Addresses of some pages, by default of all. @throws TypeError while it is being grown. */
  span(range?: PageRange): { address: bigint; length: bigint } {
    if (this.moving) throw new TypeError('region is being grown: wait for that first');
    const { first, pages } = requireRange(range, this.pages);
    return { address: this.address + bytesOf(first), length: bytesOf(pages) };
  }

  /** Memory that a write to it need not take: its own pages. Those it shares may have to be copied. */
  ownBytes(pid: number): number {
    return countPages(pid, this, { checkHuge: false }).exclusive * native().pageSizeBytes;
  }
}

export function bytesOf(pages: number): bigint {
  return BigInt(pages) * BigInt(native().pageSizeBytes);
}

/** The regions that a child of their process has: all but those that are MADV_DONTFORK throughout. */
export function inheritedRegions(held: ReadonlyMap<RegionHandle, HeldRegion>): Map<RegionHandle, HeldRegion> {
  const inherited = new Map<RegionHandle, HeldRegion>();
  for (const [region, { address, pages, dontfork }] of held) {
    if (dontfork.size < pages) inherited.set(region, new HeldRegion({ address, pages }, dontfork.copy()));
  }
  return inherited;
}

/** The same for a child of Node. */
export function inheritedMappings(): Map<RegionHandle, HeldRegion> {
  return inheritedRegions(new Map(openMappings().map((one) => [one, new HeldRegion(one, one.dontfork)])));
}
