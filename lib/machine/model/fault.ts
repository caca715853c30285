/**
 * Reads of memory that has a page cache: which pages a read fault maps depends on the order of the reads, because a
 * fault maps its neighbours too. They are therefore simulated one by one, on copies of the page tables they touch.
 */
import { CACHE, Draft } from './configuration.js';
import type { Effect } from './lineage.js';
import type { Mapping, World } from './process.js';
import { mapCachePage, readMissing } from './transitions.js';
import { endOf, type Vma } from './vma.js';

/** What a read does to a page of one configuration. */
interface Reaction {
  /** It has a page table entry. */
  mapped: boolean;
  /** After a read of the page itself. */
  target: number;
  /** After a fault on a neighbour: mapped too if it is in the page cache. */
  neighbour: number;
  allocates: boolean;
}

/** Reads pages in their order, through one VMA after another, and applies what that does. */
export class ReadSimulation {
  readonly effect: Effect = { faults: 0, allocated: 0 };
  private readonly reactions: Reaction[] = [];
  /** Configurations of the pages of one page table each, by the number of the table within the region. */
  private readonly tables = new Map<number, Int32Array>();
  private tableNumber = -1;
  private table: Int32Array = new Int32Array(0);

  constructor(
    private readonly world: World,
    private readonly mapping: Mapping,
  ) {}

  /** The page must lie in the VMA, and have memory behind it. */
  read(page: number, vma: Vma): void {
    const index = this.enterTableOf(page);
    const reaction = this.reactionOf(this.table[index] ?? 0, vma);
    if (reaction.mapped) return;
    this.effect.faults++;
    // do_read_fault(): first what the page cache has around the page, then the page itself if it was not there.
    this.faultAround(page, index, vma);
    this.table[index] = reaction.target;
    if (reaction.allocates) this.effect.allocated++;
  }

  /** Reads a page of the VMA that has no memory behind it: its neighbours are mapped before that is found. */
  readBeyondEnd(page: number, vma: Vma): void {
    this.faultAround(page, this.enterTableOf(page), vma);
  }

  /** Puts the result into the run list. A new simulation is needed after it. */
  finish(): void {
    const { mapping, world } = this;
    const stretches = [...this.tables].sort(([a], [b]) => a - b);
    mapping.lineage.runs.store(
      stretches.map(([number, configurations]) => ({
        from: mapping.offset + number * world.facts.pagesPerTable,
        configurations,
      })),
    );
  }

  /** Makes the page's table the current one, and returns the page's index in it. */
  private enterTableOf(page: number): number {
    const { pagesPerTable } = this.world.facts;
    const number = Math.floor(page / pagesPerTable);
    if (number !== this.tableNumber) this.enter(number);
    return page - number * pagesPerTable;
  }

  private enter(number: number): void {
    const { pagesPerTable } = this.world.facts;
    let table = this.tables.get(number);
    if (!table) {
      table = new Int32Array(pagesPerTable);
      this.mapping.lineage.runs.load(this.mapping.offset + number * pagesPerTable, table);
      this.tables.set(number, table);
    }
    this.tableNumber = number;
    this.table = table;
  }

  /** The window of do_fault_around(): `faultAroundPages` counted from a start that VMA and page table clip. */
  private faultAround(page: number, index: number, vma: Vma): void {
    const { faultAroundPages, pagesPerTable } = this.world.facts;
    const { mutation } = this.world;
    // should_fault_around(): a window of one page is none.
    if (faultAroundPages <= 1 || mutation === 'no-fault-around') return;
    const aligned = index - (index % faultAroundPages);
    const from = Math.max(aligned, index - (page - vma.first));
    const counted = mutation === 'fault-around-not-shifted' ? aligned : from;
    const to = Math.min(counted + faultAroundPages, pagesPerTable, index + (endOf(vma) - page));
    // filemap_map_pages() stops at the end of the object; what lies beyond it is not in the page cache either.
    for (let i = from; i < to; i++) this.table[i] = this.reactionOf(this.table[i] ?? 0, vma).neighbour;
  }

  private reactionOf(configuration: number, vma: Vma): Reaction {
    // Whether new entries are writable depends on the VMA, so reactions are kept for two kinds of VMA.
    const writable = vma.protection === 'rw';
    const key = configuration * 2 + (writable ? 1 : 0);
    return (this.reactions[key] ??= this.react(configuration, writable));
  }

  private react(number: number, writable: boolean): Reaction {
    const { mapping } = this;
    const { table } = mapping.lineage;
    const before = table.get(number);
    const target = new Draft(before);
    const neighbour = new Draft(before);
    const mapped = target.pte(mapping.id) !== undefined;
    if (!mapped) {
      readMissing(target, mapping, writable, false);
      if (before.cache.present) mapCachePage(neighbour, mapping, writable);
    }
    return {
      mapped,
      target: table.intern(target),
      neighbour: table.intern(neighbour),
      allocates: !mapped && !before.cache.present && target.pte(mapping.id)?.frame === CACHE,
    };
  }
}
