/** A real CPython with objects on pages that it tells of, and a child of it that does something to them. */
import { fileURLToPath } from 'node:url';
import { findPython, startProgram } from '../api/foreign-program.js';
import type { ForeignProgram, Python } from '../api/foreign-program.js';
import { FeatureUnavailableError } from '../errors.js';
import { pageSizeBytes } from '../proc/host.js';
import { countPages } from '../proc/pagemap.js';
import { privateKb, readSmapsRollup } from '../proc/smaps.js';
import type { PageRun } from '../schema/selection.js';
import type { MeasureContext } from './define.js';

/** The scripts lie beside this file, in lib and in dist. */
export function pythonScript(name: string): string {
  return fileURLToPath(new URL(`./python/${name}`, import.meta.url));
}

/** The interpreter, or why there is none. */
export function pythonOrWhyNot(): Python | string {
  try {
    return findPython();
  } catch (error) {
    if (error instanceof FeatureUnavailableError) return error.message;
    throw error;
  }
}

export type PythonAction = 'nothing' | 'read' | 'collect' | 'array';

/** Pages by number, as addresses are: of the counts and the GC heads of the objects. */
export interface ObjectPages {
  counts: PageRun[];
  heads: PageRun[];
}

type Answer = Record<string, unknown>;

function runsFrom(value: unknown): PageRun[] {
  return (value as [number, number][]).map(([first, pages]) => ({ first, pages }));
}

function pagesFrom(answer: Answer): ObjectPages {
  return { counts: runsFrom(answer['counts']), heads: runsFrom(answer['heads']) };
}

/** CPython with a list of lists and an array (python/objects.py). */
export class CpythonObjects {
  readonly pid: number;
  readonly release: string;
  readonly pages: ObjectPages;
  /** Pages that hold nothing but numbers of the array. */
  readonly array: PageRun[];
  readonly #program: ForeignProgram;

  private constructor(program: ForeignProgram, hello: Answer) {
    this.#program = program;
    this.pid = hello['pid'] as number;
    this.release = hello['release'] as string;
    this.pages = pagesFrom(hello);
    const [first = 0, pages = 0] = hello['array'] as number[];
    this.array = pages > 0 ? [{ first, pages }] : [];
  }

  static async start(
    python: Python,
    objects: number,
    freeze: boolean,
    closeLater: MeasureContext['closeLater'],
  ): Promise<CpythonObjects> {
    const program = startProgram(python.executable, [pythonScript('objects.py'), String(objects), freeze ? '1' : '0']);
    closeLater(() => program.close());
    return new CpythonObjects(program, await program.json());
  }

  /** Forks a child that does one thing. @returns What of each kind of page the child then has for itself. */
  async childThat(action: PythonAction): Promise<{ counts: number; heads: number; array: number; ussKb: number }> {
    this.#program.send('fork');
    const { child } = (await this.#program.json()) as { child: number };
    // Once nothing, so that what any child writes to live at all is written.
    await this.#order('nothing');
    const before = ussKb(child);
    await this.#order(action);
    const seen = {
      counts: exclusivePages(child, this.pages.counts),
      heads: exclusivePages(child, this.pages.heads),
      array: exclusivePages(child, this.array),
      ussKb: ussKb(child) - before,
    };
    this.#program.send('reap');
    await this.#program.json();
    return seen;
  }

  /** How many of the pages that held an object are still there. */
  presentPages(): number {
    const page = BigInt(pageSizeBytes());
    return this.pages.counts.reduce((total, { first, pages }) => {
      const { exclusive, shared } = countPages(this.pid, { address: BigInt(first) * page, pages });
      return total + exclusive + shared;
    }, 0);
  }

  /** Drops all objects but so many, and collects. @returns Where the survivors lie. */
  async keep(which: 'scattered' | 'together', left: number): Promise<ObjectPages> {
    this.#program.send(`keep ${which} ${String(left)}`);
    return pagesFrom(await this.#program.json());
  }

  async #order(action: PythonAction): Promise<void> {
    this.#program.send(`do ${action}`);
    await this.#program.json();
  }
}

/** Pages of these that only this process maps. */
function exclusivePages(pid: number, runs: readonly PageRun[]): number {
  let exclusive = 0;
  for (const { first, pages } of runs) {
    exclusive += countPages(pid, { address: BigInt(first) * BigInt(pageSizeBytes()), pages }).exclusive;
  }
  return exclusive;
}

/** Private memory of a process, in kB. */
export function ussKb(pid: number): number {
  return privateKb(readSmapsRollup(pid));
}
