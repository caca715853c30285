/** Checks of what callers pass: every error names the argument, and nothing has happened before it is thrown. */
import { MAX_RANDOM_PAGES } from './selection.js';
import type { Pattern, Selection } from './selection.js';
import type { Protection, Sharing } from './step.js';

function show(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value);
  if (typeof value === 'bigint') return `${String(value)}n`;
  if (typeof value === 'object' && value !== null) return 'an object';
  if (typeof value === 'function') return 'a function';
  return String(value);
}

/** What was given, or the default where nothing was. Null is something, and wrong. */
export function or(given: unknown, standard: unknown): unknown {
  return given === undefined ? standard : given;
}

/** A whole number within bounds. @throws TypeError if it is no number, RangeError if it is none of these. */
export function requireInteger(name: string, value: unknown, min: number, max: number): number {
  if (typeof value !== 'number') throw new TypeError(`${name} must be a number, not ${show(value)}`);
  if (!Number.isInteger(value) || value < min || value > max) {
    throw new RangeError(`${name} must be a whole number from ${String(min)} to ${String(max)}, not ${show(value)}`);
  }
  return value;
}

/** A share of something, above 0 and up to 1. */
export function requireShare(name: string, value: unknown): number {
  if (typeof value !== 'number') throw new TypeError(`${name} must be a number, not ${show(value)}`);
  if (!(value > 0 && value <= 1)) throw new RangeError(`${name} must be above 0 and at most 1, not ${show(value)}`);
  return value;
}

export function requireBoolean(name: string, value: unknown): boolean {
  if (typeof value !== 'boolean') throw new TypeError(`${name} must be true or false, not ${show(value)}`);
  return value;
}

export function requireOneOf<T extends string>(name: string, value: unknown, choices: readonly T[]): T {
  if (typeof value !== 'string') throw new TypeError(`${name} must be a string, not ${show(value)}`);
  const found = choices.find((choice) => choice === value);
  if (found === undefined) throw new RangeError(`${name} must be one of ${choices.join(', ')}, not ${show(value)}`);
  return found;
}

export function requireObject(name: string, value: unknown): object {
  if (typeof value !== 'object' || value === null) throw new TypeError(`${name} must be an object, not ${show(value)}`);
  return value;
}

/** The most pages a region may have: 2^34 pages of 4 KiB are 64 TiB, half of what a process can address. */
export const MAX_REGION_PAGES = 2 ** 34;

/** As long as it takes to make the file, everybody waits. */
export const MAX_SWAP_PAGES = 2 ** 18;

/** The pages of a swap file: the kernel refuses one of fewer than ten [mm/swapfile.c: read_swap_header]. */
export function requireSwapPages(pages: unknown): number {
  return requireInteger('pages', pages, 10, MAX_SWAP_PAGES);
}

/**
 * A length given in bytes under `name`, or in pages: in pages.
 * @throws TypeError for both or neither; RangeError for what is no positive number of whole pages.
 */
export function requirePages(name: string, length: unknown, pages: unknown, pageSizeBytes: number): number {
  if ((length === undefined) === (pages === undefined)) throw new TypeError(`give either ${name} or pages`);
  if (pages !== undefined) return requireInteger('pages', pages, 1, MAX_REGION_PAGES);
  const bytes = requireInteger(name, length, pageSizeBytes, MAX_REGION_PAGES * pageSizeBytes);
  if (bytes % pageSizeBytes !== 0) {
    throw new RangeError(`${name} must be a multiple of the page size, ${String(pageSizeBytes)}, not ${String(bytes)}`);
  }
  return bytes / pageSizeBytes;
}

/** What every way to map memory may be told. */
export interface MapFlags {
  sharing?: Sharing;
  protection?: Protection;
  populate?: boolean;
  noreserve?: boolean;
  hugePages?: boolean;
  hugetlb?: boolean;
  offset?: number;
}

/** The flags of a mapping, defaults filled in. @param ofObject Whether it maps an object, which alone has an offset. */
export function requireMapFlags(spec: MapFlags, ofObject: boolean): Required<MapFlags> {
  const offset = requireInteger('offset', or(spec.offset, 0), 0, MAX_REGION_PAGES);
  if (offset !== 0 && !ofObject) throw new RangeError('offset is for an object; anonymous memory has none');
  const sharing = requireOneOf('sharing', or(spec.sharing, 'private'), ['private', 'shared']);
  const hugePages = requireBoolean('hugePages', or(spec.hugePages, false));
  if (hugePages && (ofObject || sharing === 'shared')) {
    throw new RangeError('hugePages are for private anonymous memory');
  }
  const hugetlb = requireBoolean('hugetlb', or(spec.hugetlb, false));
  if (hugetlb && ofObject) throw new RangeError('hugetlb is for anonymous memory');
  if (hugetlb && hugePages) throw new RangeError('give either hugePages, which are transparent, or hugetlb');
  return {
    sharing,
    hugePages,
    hugetlb,
    protection: requireOneOf('protection', or(spec.protection, 'rw'), ['none', 'r', 'rw']),
    populate: requireBoolean('populate', or(spec.populate, false)),
    noreserve: requireBoolean('noreserve', or(spec.noreserve, false)),
    offset,
  };
}

/** @param hugePages In pages of the base size. @throws RangeError for a length that is no whole number of huge pages. */
export function requireWholeHugePages(pages: number, hugePages: number): void {
  if (pages % hugePages === 0) return;
  throw new RangeError(`a region of hugetlb must have a multiple of ${String(hugePages)} pages, not ${String(pages)}`);
}

export interface PageRange {
  /** Default 0. */
  first?: number;
  /** Default: to the end of the region. */
  pages?: number;
}

export interface PageChoice extends PageRange {
  /** Default 'sequential'. */
  pattern?: Pattern;
  /** For 'random'. Default 1. */
  seed?: number;
  /** For 'stride', in pages. Default 2. */
  stride?: number;
  /** Positions of the pattern to touch: from (default 0) up to, not including, to (default: all). */
  from?: number;
  to?: number;
}

/** A range inside a region of `regionPages` pages, at least `least` pages long. */
export function requireRange(
  range: PageRange | undefined,
  regionPages: number,
  least = 1,
): { first: number; pages: number } {
  if (range !== undefined) requireObject('range', range);
  const given = range ?? {};
  const first = requireInteger('first', or(given.first, 0), 0, regionPages);
  const pages = requireInteger('pages', or(given.pages, regionPages - first), 0, Number.MAX_SAFE_INTEGER);
  if (pages < least || first + pages > regionPages) {
    throw new RangeError(
      `pages ${String(first)} to ${String(first + pages)} do not lie inside the region's ${String(regionPages)} pages`,
    );
  }
  return { first, pages };
}

/** The selection that a choice means in a region of `regionPages` pages, every field filled in. */
export function requireSelection(choice: PageChoice | undefined, regionPages: number): Selection {
  const { first, pages } = requireRange(choice, regionPages, 0);
  const given = choice ?? {};
  const pattern = requireOneOf('pattern', or(given.pattern, 'sequential'), ['sequential', 'random', 'stride']);
  if (pattern === 'random') requireInteger('pages of a random pattern', pages, 0, MAX_RANDOM_PAGES);
  const seed = pattern === 'random' ? requireInteger('seed', or(given.seed, 1), 0, 2 ** 32 - 1) : 0;
  const stride = pattern === 'stride' ? requireInteger('stride', or(given.stride, 2), 1, MAX_REGION_PAGES) : 1;
  const to = requireInteger('to', or(given.to, pages), 0, pages);
  const from = requireInteger('from', or(given.from, 0), 0, to);
  return { first, pages, pattern, seed, stride, from, to };
}
