/** Figures of an experiment by keys: what each is called, in which unit, and what it should be by hand. */
import { check } from '../machine/compare.js';
import type { Figure } from '../schema/figure.js';
import type { Check, Findings, NamedFigure } from '../schema/result.js';
import { findFigure } from './tree-figures.js';

export class Measures<Key extends string> {
  readonly #what: Readonly<Record<Key, readonly [name: string, unit: string]>>;

  /** @param what The name and the unit of each, in the order in which they are shown. */
  constructor(what: Readonly<Record<Key, readonly [name: string, unit: string]>>) {
    this.#what = what;
  }

  get keys(): Key[] {
    return Object.keys(this.#what) as Key[];
  }

  /** @param of What the figure is of: it stands before the name. */
  nameOf(of: string, key: Key): string {
    return `${of}: ${this.#what[key][0]}`;
  }

  named(of: string, measured: Record<Key, Figure>, headlines: readonly Key[]): NamedFigure[] {
    return this.keys.map((key) => ({
      name: this.nameOf(of, key),
      unit: this.#what[key][1],
      value: measured[key],
      headline: headlines.includes(key),
    }));
  }

  checkByHand(of: string, expected: Record<Key, number>, findings: Findings): Check[] {
    return this.keys.map((key) => {
      const name = this.nameOf(of, key);
      return check(`${name}, by hand`, this.#what[key][1], 'anchor', expected[key], findFigure(findings, name));
    });
  }
}
