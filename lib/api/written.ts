/** Marks: which pages of a region a forked process has written since a moment. */
import { FeatureUnavailableError, ProcessEndedError, SystemError } from '../errors.js';
import { errnoName, native } from '../native.js';
import type { NativeProbeResults } from '../native.js';
import { or, requireObject, requireOneOf } from '../schema/arguments.js';
import type { PageRun } from '../schema/selection.js';
import type { ForkedProcess, RegionHandle } from './forked-process.js';
import { trackByPagemap, trackBySoftDirty, trackByUserfaultfd } from './write-tracker.js';
import type { WriteTracker } from './write-tracker.js';

/** From the best to the one that always works. */
const METHODS = ['userfaultfd', 'soft-dirty', 'pagemap'] as const;
export type WriteMethod = (typeof METHODS)[number];

export interface WriteMarkOptions {
  /** Default: the first that this kernel has. */
  by?: WriteMethod;
}

/** How many pages were written: from `written` to `written + doubtful`, and where. */
export interface WrittenPages {
  /** Pages written for certain. */
  written: number;
  /** Pages that may have been written, and which the method cannot tell from others. 0 for userfaultfd. */
  doubtful: number;
  /** By page numbers of the region, ascending. */
  writtenRuns: PageRun[];
  doubtfulRuns: PageRun[];
}

/** @internal The marked pages of a region, and how to find them. */
export interface MarkedRange extends PageRun {
  region: RegionHandle;
  /** @throws where the process has not got them any more. */
  locate: () => { address: bigint; givenBack: number };
}

let probes: NativeProbeResults | undefined;

/** Undefined where this kernel has the method, else why not and what would help. */
function lacking(method: WriteMethod): { reason: string; remedy: string } | undefined {
  probes ??= native().probe();
  const { pagemapScan, softDirty, userfaultfdWpAsync } = probes;
  if (method === 'userfaultfd') {
    const errno = userfaultfdWpAsync || pagemapScan;
    return errno ? { reason: `this kernel refuses it with ${errnoName(errno)}`, remedy: 'Linux 6.7.' } : undefined;
  }
  if (method === 'pagemap' || softDirty === 0) return undefined;
  return { reason: 'this kernel keeps no such bits', remedy: 'A kernel with CONFIG_MEM_SOFT_DIRTY.' };
}

function chooseMethod(by: unknown): WriteMethod {
  if (by === undefined) return METHODS.find((method) => !lacking(method)) ?? 'pagemap';
  const method = requireOneOf('by', by, METHODS);
  const lack = lacking(method);
  if (lack) throw new FeatureUnavailableError(`Tracking writes by ${method}`, lack.reason, lack.remedy);
  return method;
}

const openMarks = new WeakMap<ForkedProcess, Set<WriteMark>>();

export class WriteMark {
  readonly method: WriteMethod;
  readonly #process: ForkedProcess;
  readonly #range: MarkedRange;
  readonly #address: bigint;
  readonly #givenBack: number;
  #tracker: WriteTracker | undefined;
  #closed = false;

  private constructor(process: ForkedProcess, range: MarkedRange, method: WriteMethod) {
    this.#process = process;
    this.#range = range;
    const { address, givenBack } = range.locate();
    this.#address = address;
    this.#givenBack = givenBack;
    this.method = method;
  }

  /** @internal Use ForkedProcess.markWritten(). */
  static async make(process: ForkedProcess, range: MarkedRange, options: WriteMarkOptions): Promise<WriteMark> {
    requireObject('options', options);
    const mark = new WriteMark(process, range, chooseMethod(or(options.by, undefined)));
    const marks = openMarks.get(process) ?? new Set();
    for (const other of marks) mark.#requireApart(other);
    // Before anything is awaited, so that two that are made at once see each other.
    openMarks.set(process, marks.add(mark));
    try {
      mark.#tracker = await mark.#track();
    } catch (error) {
      marks.delete(mark);
      throw error;
    }
    void process.ended.then(() => mark.#release(false));
    return mark;
  }

  /**
   * The pages written since the mark, or since the last reset(). What the process was asked to do before should have been
   * awaited. A page that was given back since (MADV_DONTNEED of private memory, munmap) counts only if it was written
   * again. MADV_POPULATE_WRITE writes, as the kernel sees it. Writes of others count as theirs, also those to the same
   * shared memory.
   * @throws TypeError (rejects) if the mark is closed, or the region was unmapped or has moved (grow).
   * @throws ProcessEndedError (rejects)
   */
  async read(): Promise<WrittenPages> {
    const { written, doubtful } = await this.#use((tracker, givenBack) => tracker.find(givenBack));
    const { first } = this.#range;
    const place = (runs: PageRun[]): number => {
      let pages = 0;
      for (const run of runs) {
        run.first += first;
        pages += run.pages;
      }
      return pages;
    };
    const [writtenPages, doubtfulPages] = [place(written), place(doubtful)];
    return { written: writtenPages, doubtful: doubtfulPages, writtenRuns: written, doubtfulRuns: doubtful };
  }

  /** Forgets what was written until now. Errors as of read(). */
  async reset(): Promise<void> {
    await this.#use((tracker) => {
      tracker.reset();
    });
  }

  /** Takes the mark away. May be called again; the end of the process does it too. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#release(this.#isInPlace());
  }

  #track(): Promise<WriteTracker> | WriteTracker {
    const range = { address: this.#address, pages: this.#range.pages };
    if (this.method === 'userfaultfd') return trackByUserfaultfd(this.#process, range);
    return this.method === 'soft-dirty' ? trackBySoftDirty(this.#process, range) : trackByPagemap(this.#process, range);
  }

  /** A page has one write-protection of userfaultfd, and a process one set of soft-dirty bits, cleared all at once. */
  #requireApart(other: WriteMark): void {
    const { method } = this;
    if (other.method !== method || method === 'pagemap') return;
    const [{ region, first, pages }, its] = [this.#range, other.#range];
    const apart = its.region !== region || first >= its.first + its.pages || its.first >= first + pages;
    if (method === 'userfaultfd' && apart) return;
    const what = method === 'userfaultfd' ? 'these pages have' : `process ${String(this.#process.pid)} has`;
    throw new TypeError(`${what} a mark by ${method} already: close that first`);
  }

  #isInPlace(): boolean {
    try {
      return this.#range.locate().address === this.#address;
    } catch {
      return false;
    }
  }

  async #use<T>(action: (tracker: WriteTracker, givenBack: boolean) => T): Promise<T> {
    if (this.#closed) throw new TypeError('the mark has been closed');
    const { address, givenBack } = this.#range.locate();
    if (address !== this.#address) throw new TypeError('the region has moved since it was marked');
    try {
      if (this.#tracker) return action(this.#tracker, givenBack !== this.#givenBack);
    } catch (error) {
      if (!(error instanceof SystemError) || error.code !== 'ESRCH') throw error;
    }
    // It has just ended, and has not been waited for.
    throw new ProcessEndedError(`process ${String(this.#process.pid)}`, await this.#process.ended);
  }

  async #release(inPlace: boolean): Promise<void> {
    const tracker = this.#tracker;
    this.#tracker = undefined;
    openMarks.get(this.#process)?.delete(this);
    await tracker?.close(inPlace);
  }
}
