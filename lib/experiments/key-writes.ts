/** Writes to a store of keys, as a database gets them: seeded, so that kernel, model and paper see the same ones. */
import { pageOrder } from '../schema/selection.js';
import type { PageRun } from '../schema/selection.js';

/** A store, and by which law keys of it are chosen. */
export interface KeyLaw {
  /** Pages of the store. */
  pages: number;
  /** How many keys lie in each page. */
  keysPerPage: number;
  /**
   * Of Zipf's law: the key of rank r is chosen with a probability proportional to r ** -exponent. With 0 all keys are
   * alike (uniform).
   */
  exponent: number;
  seed: number;
}

/** Numbers from 0 up to 1 that the seed alone decides: mulberry32, of Tommy Ettinger, in the public domain. */
export function seededNumbers(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Where in a list of ascending numbers the first one is that is larger. */
function firstLarger(ascending: Float64Array, number: number): number {
  let [from, to] = [0, ascending.length - 1];
  while (from < to) {
    const middle = (from + to) >>> 1;
    if ((ascending[middle] ?? Infinity) > number) to = middle;
    else from = middle + 1;
  }
  return from;
}

/** A store of keys, which says in which page the key lies that is written next. */
export class KeyStore {
  readonly #pages: number;
  readonly #seed: number;
  /** Sums of the weights of all ranks up to each. */
  readonly #sums: Float64Array;
  /** The page in which the key of a rank lies: often written keys are no neighbours, but strewn over the store. */
  readonly #pageOfRank: (rank: number) => number;

  constructor({ pages, keysPerPage, exponent, seed }: KeyLaw) {
    const keys = pages * keysPerPage;
    this.#pages = pages;
    this.#seed = seed;
    this.#sums = new Float64Array(keys);
    let sum = 0;
    for (let rank = 0; rank < keys; rank++) this.#sums[rank] = sum += (rank + 1) ** -exponent;
    const placeOf = pageOrder({ first: 0, pages: keys, pattern: 'random', seed, stride: 1, from: 0, to: keys });
    this.#pageOfRank = (rank) => Math.floor(placeOf(rank) / keysPerPage);
  }

  /** The page of each of so many writes, in the order in which they come. The same for each call. */
  pagesOfWrites(writes: number): Uint32Array {
    const next = seededNumbers(this.#seed);
    const total = this.#sums.at(-1) ?? 0;
    return Uint32Array.from({ length: writes }, () => this.#pageOfRank(firstLarger(this.#sums, next() * total)));
  }

  /** How many different pages so many writes meet on average over all seeds: sum over pages of 1 - (1 - p) ** writes. */
  expectedPages(writes: number): number {
    const chances = new Float64Array(this.#pages);
    const total = this.#sums.at(-1) ?? 1;
    this.#sums.forEach((sum, rank) => {
      const weight = sum - (this.#sums[rank - 1] ?? 0);
      const page = this.#pageOfRank(rank);
      chances[page] = (chances[page] ?? 0) + weight / total;
    });
    return chances.reduce((pages, chance) => pages + 1 - (1 - chance) ** writes, 0);
  }
}

/** Some pages of `pages`, each as often as it likes, as ascending runs of consecutive pages. */
export function runsOfPages(chosen: Uint32Array, pages: number): PageRun[] {
  const wanted = new Uint8Array(pages);
  for (const page of chosen) wanted[page] = 1;
  const runs: PageRun[] = [];
  let run: PageRun | undefined;
  wanted.forEach((isWanted, page) => {
    if (isWanted === 0) run = undefined;
    else if (run) run.pages++;
    else runs.push((run = { first: page, pages: 1 }));
  });
  return runs;
}
