/**
 * A configuration describes one page of a memory object across all processes: the page-cache frame, and what every
 * mapping that has a page table entry for it maps there. Configurations are immutable and interned, so that a page is
 * one small number and a million equal pages are one run.
 */

/** The shared zero page (ZERO_PAGE(0)). */
export const ZERO = -2;
/** The page-cache page of the object. */
export const CACHE = -1;

/** What KSM has made of all equal pages, one for each content, whoever maps them: those of zeros, and those written. */
export const MERGED_ZEROS = -3;
export const MERGED_WRITTEN = -4;

export function isMerged(frame: number): boolean {
  return frame <= MERGED_ZEROS;
}

/** A page table entry. */
export interface Pte {
  readonly mapping: number;
  /** ZERO, CACHE, MERGED_..., or the number of an anonymous frame within the configuration. */
  readonly frame: number;
  readonly writable: boolean;
  readonly dirty: boolean;
  /** It became writable without a flush, so that the processor may still hold a read-only translation of it. */
  readonly stale?: true;
  /** It is no present entry but one of swap: the frame is where the page is, in swap, in memory or in both. */
  readonly swapped?: true;
  /** A hugetlb page that its owner has unmapped: its reservation comes back when it is freed. */
  readonly owed?: true;
  /** ksmd finds it in a mergeable VMA; only while it merges. */
  readonly mergeable?: true;
}

export interface Cache {
  readonly present: boolean;
  /** The dirty flag of the folio, not of any page table entry. */
  readonly dirty: boolean;
}

export interface Configuration {
  readonly cache: Cache;
  /** PageAnonExclusive of each anonymous frame. */
  readonly exclusive: readonly boolean[];
  /** Of each anonymous frame of anonymous memory: it has been written, and is not of zeros. */
  readonly written: readonly boolean[];
  /** In ascending order of mapping. */
  readonly ptes: readonly Pte[];
}

const NO_CACHE: Cache = { present: false, dirty: false };

/** Number of the configuration of a page that nobody has touched. */
export const UNTOUCHED = 0;

/** The page table entry that a mapping has for the page. */
export function pteOf(configuration: Configuration, mapping: number): Pte | undefined {
  return configuration.ptes.find((pte) => pte.mapping === mapping);
}

/** How many page table entries map the frame (page_mapcount in the kernel). */
export function mapCount(configuration: Configuration, frame: number): number {
  let count = 0;
  for (const pte of configuration.ptes) if (pte.frame === frame && !pte.swapped) count++;
  return count;
}

/** How many entries of swap there are of the frame (swp_swapcount in the kernel). */
export function swapCount(configuration: Configuration, frame: number): number {
  let count = 0;
  for (const pte of configuration.ptes) if (pte.frame === frame && pte.swapped) count++;
  return count;
}

/** A configuration that is being changed. */
export class Draft {
  cache: Cache;
  readonly exclusive: boolean[];
  readonly written: boolean[];
  ptes: Pte[];

  constructor(from: Configuration) {
    this.cache = from.cache;
    this.exclusive = [...from.exclusive];
    this.written = [...from.written];
    this.ptes = [...from.ptes];
  }

  pte(mapping: number): Pte | undefined {
    return this.ptes.find((pte) => pte.mapping === mapping);
  }

  mapCount(frame: number): number {
    return mapCount(this, frame);
  }

  swapCount(frame: number): number {
    return swapCount(this, frame);
  }

  /** Installs a page table entry in the place of the one that the mapping has, if any. */
  set(pte: Pte): void {
    const at = this.ptes.findIndex((other) => other.mapping >= pte.mapping);
    if (at < 0) this.ptes.push(pte);
    else this.ptes.splice(at, this.ptes[at]?.mapping === pte.mapping ? 1 : 0, pte);
  }

  remove(mapping: number): void {
    this.ptes = this.ptes.filter((pte) => pte.mapping !== mapping);
  }

  /** Whether the page that the entry maps has been written. */
  isWritten(pte: Pte | undefined): boolean {
    return pte !== undefined && (pte.frame === MERGED_WRITTEN || this.written[pte.frame] === true);
  }

  newAnonymousFrame(): number {
    return this.exclusive.push(true) - 1;
  }

  /** Brings the page into the page cache, if it is not there. A page that was only read is clean. */
  allocateCache(): void {
    if (!this.cache.present) this.cache = { present: true, dirty: false };
  }

  dirtyCache(): void {
    this.cache = { present: true, dirty: true };
  }
}

/** Numbers anonymous frames by first use and forgets those that nobody maps. */
function canonical(draft: Draft): Configuration {
  const numbers = new Map<number, number>();
  const exclusive: boolean[] = [];
  const written: boolean[] = [];
  const ptes = draft.ptes.map((pte) => {
    if (pte.frame < 0) return pte;
    let frame = numbers.get(pte.frame);
    if (frame === undefined) {
      frame = exclusive.push(draft.exclusive[pte.frame] ?? false) - 1;
      written.push(draft.written[pte.frame] ?? false);
      numbers.set(pte.frame, frame);
    }
    return frame === pte.frame ? pte : { ...pte, frame };
  });
  return { cache: draft.cache, exclusive, written, ptes };
}

/** One string per distinct configuration. */
function keyOf({ cache, exclusive, written, ptes }: Configuration): string {
  let key = (cache.present ? 'c' : '-') + (cache.dirty ? 'd' : '-');
  for (const each of exclusive) key += each ? 'x' : '.';
  for (const each of written) key += each ? 'w' : 'z';
  for (const pte of ptes) {
    key += `|${String(pte.mapping)}:${String(pte.frame)}${pte.writable ? 'w' : ''}${pte.dirty ? 'd' : ''}${pte.stale ? 's' : ''}${pte.owed ? 'o' : ''}${pte.mergeable ? 'm' : ''}${pte.swapped ? 'z' : ''}`;
  }
  return key;
}

/** All configurations of one lineage, each with its number. */
export class ConfigurationTable {
  private readonly configurations: Configuration[] = [];
  private readonly numbers = new Map<string, number>();

  constructor() {
    this.intern(new Draft({ cache: NO_CACHE, exclusive: [], written: [], ptes: [] }));
  }

  get size(): number {
    return this.configurations.length;
  }

  get(number: number): Configuration {
    const found = this.configurations[number];
    if (!found) throw new RangeError(`no configuration has the number ${number}`);
    return found;
  }

  intern(draft: Draft): number {
    const configuration = canonical(draft);
    const key = keyOf(configuration);
    let number = this.numbers.get(key);
    if (number === undefined) {
      number = this.configurations.push(configuration) - 1;
      this.numbers.set(key, number);
    }
    return number;
  }
}
