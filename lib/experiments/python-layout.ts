/**
 * How CPython lays objects of one size out on pages: blocks in pools in arenas [Objects/obmalloc.c]. Simply: as if
 * nothing else had been allocated, so that it is the least that a real interpreter needs.
 */
import type { PageRun } from '../schema/selection.js';

/** Sizes in bytes, as they belong to versions of CPython. */
export interface Obmalloc {
  poolBytes: number;
  arenaBytes: number;
}

/** POOL_SIZE and ARENA_SIZE [Objects/obmalloc.c]: pools of a page before 3.10; of 16 KiB with the radix tree since. */
export const OBMALLOC: Readonly<Record<'3.10' | '3.9', Obmalloc>> = {
  '3.10': { poolBytes: 16 * 1024, arenaBytes: 2 ** 20 },
  '3.9': { poolBytes: 4 * 1024, arenaBytes: 256 * 1024 },
};

/** struct pool_header, rounded up to ALIGNMENT. */
const POOL_HEADER_BYTES = 48;
/** Blocks are multiples of it; beyond 512 bytes malloc is asked. */
const ALIGNMENT = 16;
export const LARGEST_BLOCK_BYTES = 512;
/** PyGC_Head, in front of every container [Include/internal/pycore_gc.h]. */
const GC_HEAD_BYTES = 16;

/** An object of one kind: where its reference count and its GC head are, from the start of its block. */
export interface ObjectKind {
  bytes: number;
  countAt: number;
  gcHeadAt: number | undefined;
}

/** PyListObject: PyObject_VAR_HEAD of 24 bytes, ob_item and allocated; its items lie elsewhere. */
export const LIST: ObjectKind = { bytes: GC_HEAD_BYTES + 40, countAt: GC_HEAD_BYTES, gcHeadAt: 0 };
/** PyFloatObject: PyObject_HEAD of 16 bytes and the double. It is no container. */
export const FLOAT: ObjectKind = { bytes: 24, countAt: 0, gcHeadAt: undefined };

export class Layout {
  readonly blockBytes: number;
  readonly blocksPerPool: number;
  readonly poolsPerArena: number;
  readonly pools: number;
  readonly arenas: number;

  /** @throws RangeError for objects that obmalloc leaves to malloc. */
  constructor(
    readonly obmalloc: Obmalloc,
    readonly kind: ObjectKind,
    readonly objects: number,
    readonly pageBytes: number,
  ) {
    if (kind.bytes > LARGEST_BLOCK_BYTES) {
      throw new RangeError(`an object of ${String(kind.bytes)} bytes is not laid out in pools`);
    }
    this.blockBytes = Math.ceil(kind.bytes / ALIGNMENT) * ALIGNMENT;
    this.blocksPerPool = Math.floor((obmalloc.poolBytes - POOL_HEADER_BYTES) / this.blockBytes);
    this.poolsPerArena = obmalloc.arenaBytes / obmalloc.poolBytes;
    this.pools = Math.ceil(objects / this.blocksPerPool);
    this.arenas = Math.ceil(this.pools / this.poolsPerArena);
  }

  /** Where the block of an object begins, in bytes from the first arena. */
  blockAt(object: number): number {
    const pool = Math.floor(object / this.blocksPerPool);
    return pool * this.obmalloc.poolBytes + POOL_HEADER_BYTES + (object % this.blocksPerPool) * this.blockBytes;
  }

  arenaOf(object: number): number {
    return Math.floor(this.blockAt(object) / this.obmalloc.arenaBytes);
  }

  /** Pages on which the parent writes when it makes the objects: their blocks, and the header of each pool. */
  get written(): PageRun[] {
    const pages = new Set<number>();
    for (let pool = 0; pool < this.pools; pool++) pages.add((pool * this.obmalloc.poolBytes) / this.pageBytes);
    for (let object = 0; object < this.objects; object++) {
      const at = this.blockAt(object);
      this.#add(pages, at);
      this.#add(pages, at + this.kind.bytes - 1);
    }
    return runsOf(pages);
  }

  /** Pages that hold the count of an object, which looking at it writes (Py_INCREF, Py_DECREF). */
  get counts(): PageRun[] {
    return this.#pagesAt(this.kind.countAt);
  }

  /** Pages that hold a GC head, which a collection writes [Modules/gcmodule.c: update_refs]; none of what is no container. */
  get gcHeads(): PageRun[] {
    return this.kind.gcHeadAt === undefined ? [] : this.#pagesAt(this.kind.gcHeadAt);
  }

  /** Arenas that must stay, because one of these objects lives in them. */
  pinnedBy(survivors: Iterable<number>): Set<number> {
    const pinned = new Set<number>();
    for (const object of survivors) pinned.add(this.arenaOf(object));
    return pinned;
  }

  #pagesAt(offset: number): PageRun[] {
    const pages = new Set<number>();
    for (let object = 0; object < this.objects; object++) this.#add(pages, this.blockAt(object) + offset);
    return runsOf(pages);
  }

  #add(pages: Set<number>, byte: number): void {
    pages.add(Math.floor(byte / this.pageBytes));
  }
}

/** Pages as runs, in ascending order. */
export function runsOf(pages: Iterable<number>): PageRun[] {
  const runs: { first: number; pages: number }[] = [];
  for (const page of [...pages].sort((a, b) => a - b)) {
    const last = runs.at(-1);
    if (last && page === last.first + last.pages) last.pages++;
    else runs.push({ first: page, pages: 1 });
  }
  return runs;
}

export function pagesIn(runs: readonly PageRun[]): number {
  return runs.reduce((total, { pages }) => total + pages, 0);
}

/** Survivors of many objects: every so-many-th, or the first. */
export function survivorsOf(objects: number, left: number, which: 'scattered' | 'together'): number[] {
  const apart = which === 'together' ? 1 : Math.max(1, Math.floor(objects / left));
  return Array.from({ length: Math.min(left, objects) }, (_, index) => index * apart);
}
