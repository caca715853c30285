/** mmap() in Node's own process, safe from JavaScript: no address is ever taken from the caller. */
import { constants } from 'node:buffer';
import { closeSync } from 'node:fs';
import { FeatureUnavailableError } from '../errors.js';
import { native } from '../native.js';
import type { NativeMapping } from '../native.js';
import { requireMemory } from '../proc/meminfo.js';
import { countPages } from '../proc/pagemap.js';
import { readSysctl } from '../proc/sysctl.js';
import { MAX_REGION_PAGES, requireInteger, requireOneOf, requireRange, requireSelection } from '../schema/arguments.js';
import type { PageChoice, PageRange } from '../schema/arguments.js';
import { PageSet } from '../schema/page-set.js';
import { ADVICE, ADVICE_NAMES, PATTERNS, requireWord } from './command.js';
import type { RawAdvice } from './command.js';
import type { AccessReport } from './forked-process.js';
import { requireMapSpec } from './map-spec.js';
import type { RawMapSpec } from './map-spec.js';

const open = new Set<WeakRef<Mapping>>();

/** @internal The mappings that a fork of Node now would see. */
export function openMappings(): Mapping[] {
  const found: Mapping[] = [];
  for (const reference of open) {
    const mapping = reference.deref();
    if (mapping?.isOpen) found.push(mapping);
    else open.delete(reference);
  }
  return found;
}

export class Mapping {
  #pages: number;
  readonly #native: NativeMapping;
  /** Pages that a child will not have. */
  readonly #dontfork = new PageSet();
  #buffer: ArrayBuffer | undefined;
  #open = true;

  /** @internal Use mmap(). */
  constructor(mapping: NativeMapping, pages: number) {
    this.#native = mapping;
    this.#pages = pages;
    open.add(new WeakRef(this));
  }

  get isOpen(): boolean {
    return this.#open;
  }

  get pages(): number {
    return this.#pages;
  }

  /** Bytes. */
  get length(): number {
    return this.#pages * native().pageSizeBytes;
  }

  get address(): bigint {
    this.#requireOpen();
    return this.#native.address();
  }

  /** @internal The pages that a fork's child will not have: MADV_DONTFORK. */
  get dontfork(): PageSet {
    return this.#dontfork.copy();
  }

  /**
   * The memory as an ArrayBuffer, the same one each time. It is detached by unmap(); what JavaScript moved out
   * of it by transfer() before reads as zeros then.
   * @throws RangeError if the mapping is longer than an ArrayBuffer can be (buffer.constants.MAX_LENGTH).
   */
  get buffer(): ArrayBuffer {
    this.#requireOpen();
    if (this.length > constants.MAX_LENGTH) {
      throw new RangeError(`the mapping has ${this.length} bytes, an ArrayBuffer at most ${constants.MAX_LENGTH}`);
    }
    return (this.#buffer ??= this.#native.buffer());
  }

  /** Writes `value` into the first 64-bit word of each chosen page, from native code, on this thread. */
  write(choice?: PageChoice, value = 1n): AccessReport {
    return this.#access(true, choice, requireWord('value', value));
  }

  /** Reads the first 64-bit word of each chosen page. */
  read(choice?: PageChoice): AccessReport {
    return this.#access(false, choice, 0n);
  }

  /**
   * madvise(2); 'pageout' as of {@link ForkedProcess.advise}.
   * @throws SystemError EINVAL where the kernel refuses the advice for this kind of memory, or does not know it.
   */
  advise(advice: RawAdvice, range?: PageRange): void {
    this.#requireOpen();
    const { first, pages } = requireRange(range, this.pages);
    const number = ADVICE[requireOneOf('advice', advice, ADVICE_NAMES)];
    if (advice === 'populate-write') requireMemory(pages * native().pageSizeBytes, () => this.#heldBytes());
    this.#native.advise(first, pages, number);
    if (advice === 'dontfork') this.#dontfork.add({ first, pages });
    if (advice === 'dofork') this.#dontfork.remove({ first, pages });
  }

  /**
   * mremap(2) to `pages` pages in all, at a new address. Processes that have been forked keep what they have.
   * @throws TypeError unless it is private anonymous memory whose buffer nobody has asked for.
   * @throws SystemError ENOMEM. Each step is judged alone: so a mapping can come to be larger than RAM and swap.
   */
  grow(pages: number): void {
    this.#requireOpen();
    requireInteger('pages', pages, this.#pages + 1, MAX_REGION_PAGES);
    this.#native.grow(pages);
    this.#pages = pages;
  }

  /** @internal The slot at `offset` bytes: lib/api/sharing.ts. */
  get slots(): Pick<NativeMapping, 'count' | 'lock' | 'unlock'> {
    this.#requireOpen();
    return this.#native;
  }

  /** munmap(2). Detaches the buffer. May be called again. */
  unmap(): void {
    if (!this.#open) return;
    this.#native.close();
    this.#open = false;
    this.#buffer = undefined;
  }

  #heldBytes(): number {
    return countPages(process.pid, this, { checkHuge: false }).exclusive * native().pageSizeBytes;
  }

  #requireOpen(): void {
    if (!this.#open) throw new TypeError('the mapping has been unmapped');
  }

  #access(write: boolean, choice: PageChoice | undefined, value: bigint): AccessReport {
    this.#requireOpen();
    const { first, pages, from, to, stride, pattern, seed } = requireSelection(choice, this.pages);
    if (write) requireMemory((to - from) * native().pageSizeBytes, () => this.#heldBytes());
    const into = new Float64Array(3);
    const sum = this.#native.access(write, first, pages, from, to, stride, PATTERNS[pattern], seed, value, into);
    const [minorFaults = 0, majorFaults = 0, elapsedNs = 0] = into;
    return { minorFaults, majorFaults, elapsedNs, sum };
  }
}

/**
 * mmap(2) in this process: readable and writable memory, anonymous or of a memfd, with PROT_NONE guards around
 * it and in pages of the base size unless huge ones are asked for. It is unmapped by unmap(), or when it is garbage collected.
 *
 * @throws TypeError for hugetlb, whose pages run out, and for a file: a page of a file can vanish under the reader, so JavaScript never sees it mapped.
 * @throws SystemError ENOMEM and the like, from mmap.
 * @throws FeatureUnavailableError on anything but Linux, for huge pages where there are none, and for a memfd under strict overcommit, where touching a
 * page of it is refused by SIGBUS when memory runs out [mm/shmem.c, shmem_inode_acct_blocks].
 */
export function mmap(spec: RawMapSpec): Mapping {
  const { pages, sharing, protection, populate, noreserve, hugePages, hugetlb, object, offset } = requireMapSpec(spec);
  if (protection !== 'rw') throw new RangeError("protection must be 'rw' in Node's own process");
  if (hugetlb) throw new TypeError("hugetlb is not for Node's own process: map it in a forked one");
  if (object?.backing === 'file') throw new TypeError("object must be a memfd in Node's own process");
  if (object && offset + pages > object.pages) {
    throw new RangeError(`pages ${String(offset)} to ${String(offset + pages)} do not lie inside the memfd`);
  }
  if (populate) requireMemory(pages * native().pageSizeBytes);
  if (object && readSysctl('vm.overcommit_memory') === 2) {
    throw new FeatureUnavailableError(
      "A memfd in Node's own memory",
      'under strict overcommit touching it can end Node by SIGBUS',
      'Map it in a forked process, or share anonymous memory.',
    );
  }
  const fd = object?.duplicate() ?? -1;
  try {
    const shared = sharing === 'shared';
    return new Mapping(new (native().Mapping)(pages, shared, noreserve, populate, hugePages, fd, offset), pages);
  } finally {
    if (fd >= 0) closeSync(fd);
  }
}
