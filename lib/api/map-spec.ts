/** What to map, as callers say it, checked and completed. */
import { native } from '../native.js';
import {
  MAX_REGION_PAGES,
  or,
  requireBoolean,
  requireInteger,
  requireObject,
  requireOneOf,
} from '../schema/arguments.js';
import type { Protection, Sharing } from '../schema/step.js';
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
  /** A memfd or file to map; anonymous memory without it. */
  object?: FileObject;
  /** First page of the object. Default 0. */
  offset?: number;
}

export type FullMapSpec = Required<Omit<RawMapSpec, 'length' | 'object'>> & { object: FileObject | undefined };

export function requirePages(spec: { length?: number; pages?: number }): number {
  const pageSize = native().pageSizeBytes;
  if ((spec.length === undefined) === (spec.pages === undefined)) {
    throw new TypeError('give either length (bytes) or pages');
  }
  if (spec.pages !== undefined) return requireInteger('pages', spec.pages, 1, MAX_REGION_PAGES);
  const length = requireInteger('length', spec.length, pageSize, MAX_REGION_PAGES * pageSize);
  if (length % pageSize !== 0) {
    throw new RangeError(`length must be a multiple of the page size, ${String(pageSize)}, not ${String(length)}`);
  }
  return length / pageSize;
}

/** @throws TypeError, RangeError that name the field. */
export function requireMapSpec(spec: RawMapSpec): FullMapSpec {
  requireObject('spec', spec);
  const { object } = spec;
  if (object !== undefined && !(object instanceof FileObject)) {
    throw new TypeError('object must be what createMemfd() or createTemporaryFile() returned');
  }
  const offset = requireInteger('offset', or(spec.offset, 0), 0, MAX_REGION_PAGES);
  if (offset !== 0 && !object) throw new RangeError('offset is for an object; anonymous memory has none');
  return {
    pages: requirePages(spec),
    sharing: requireOneOf('sharing', or(spec.sharing, 'private'), ['private', 'shared']),
    protection: requireOneOf('protection', or(spec.protection, 'rw'), ['none', 'r', 'rw']),
    populate: requireBoolean('populate', or(spec.populate, false)),
    noreserve: requireBoolean('noreserve', or(spec.noreserve, false)),
    object,
    offset,
  };
}
