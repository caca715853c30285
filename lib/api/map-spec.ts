/** What to map, as callers say it, checked and completed. */
import { native } from '../native.js';
import { requireMapFlags, requireObject, requirePages, requireWholeHugePages } from '../schema/arguments.js';
import type { Protection, Sharing } from '../schema/step.js';
import { requireHugePages } from '../proc/huge-pages.js';
import { requireHugetlb } from '../proc/hugetlb.js';
import { MapFlag } from './command.js';
import { FileObject } from './file-object.js';

export interface RawMapSpec {
  /** Length in bytes, a positive multiple of the page size. Give this or `pages`. */
  length?: number;
  pages?: number;
  /** MAP_PRIVATE or MAP_SHARED. Default 'private'. */
  sharing?: Sharing;
  /** Default 'rw'. */
  protection?: Protection;
  /** MAP_POPULATE. Default false. */
  populate?: boolean;
  /** MAP_NORESERVE. Default false. */
  noreserve?: boolean;
  /**
   * Transparent huge pages (MADV_HUGEPAGE) for all whole 2 MiB of the region that the kernel can give one, and base
   * pages (MADV_NOHUGEPAGE) otherwise. Only for private anonymous memory. Default false.
   */
  hugePages?: boolean;
  /**
   * Huge pages of the pool of vm.nr_hugepages (MAP_HUGETLB): anonymous memory, private or shared, of whole huge pages.
   * Unless `noreserve`, mmap reserves all of them, or fails with ENOMEM; without a reservation a touch for which the pool
   * has no page ends the process by SIGBUS. Only in forked processes. Default false.
   */
  hugetlb?: boolean;
  /** A memfd or file to map; anonymous memory without it. */
  object?: FileObject;
  /** First page of the object. Default 0. */
  offset?: number;
}

export type FullMapSpec = Required<Omit<RawMapSpec, 'length' | 'object'>> & { object: FileObject | undefined };

/** @throws TypeError, RangeError that name the field; FeatureUnavailableError for huge pages that are not to be had. */
export function requireMapSpec(spec: RawMapSpec): FullMapSpec {
  requireObject('spec', spec);
  const { object } = spec;
  if (object !== undefined && !(object instanceof FileObject)) {
    throw new TypeError('object must be what createMemfd() or createTemporaryFile() returned');
  }
  const flags = requireMapFlags(spec, object !== undefined);
  if (flags.hugePages) requireHugePages();
  const pages = requirePages('length', spec.length, spec.pages, native().pageSizeBytes);
  if (flags.hugetlb) requireWholeHugePages(pages, requireHugetlb(native().pageSizeBytes));
  return { pages, ...flags, object };
}

/** As a forked process is told them. */
export function mapFlags({ sharing, populate, noreserve, hugePages, hugetlb, object }: FullMapSpec): bigint {
  let flags = 0n;
  if (sharing === 'shared') flags |= MapFlag.shared;
  if (populate) flags |= MapFlag.populate;
  if (noreserve) flags |= MapFlag.noreserve;
  if (object) flags |= MapFlag.object;
  if (hugePages) flags |= MapFlag.hugePages;
  if (hugetlb) flags |= MapFlag.hugetlb;
  return flags;
}
