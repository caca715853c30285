/** Checks of what a program does with swap: what the model knows of it. */
import { FeatureUnavailableError } from '../errors.js';
import type { HostFacts } from '../schema/facts.js';
import { requireSwapPages } from '../schema/arguments.js';
import type { StepOf } from '../schema/step.js';

/** What a program has done with swap so far. */
export class SwapProgress {
  /** How many pages may still go; undefined where none was added. */
  #roomPages: number | undefined;

  /** @throws TypeError once swap has been added. */
  requireNone(consequence: string): void {
    if (this.#roomPages !== undefined) throw new TypeError(`a machine with swap ${consequence}`);
  }

  /** @throws TypeError, RangeError; FeatureUnavailableError where the rules have not been tried. */
  requireMayAdd(pages: number, facts: HostFacts): void {
    requireSwapPages(pages);
    if (this.#roomPages !== undefined) throw new TypeError('swap has been added already');
    const why = whyNoExactSwap(facts);
    if (why) throw why;
  }

  /** From half of it on the kernel gives places in swap up early, and pages come back dirty [vm_swap_full]. */
  add(pages: number): void {
    this.#roomPages = Math.floor((pages - 1) / 2);
  }

  /** @throws RangeError for memory that is not modelled, and beyond half of the swap. */
  requireMayPageOut(region: { isPageable: boolean }, pages: number, facts: HostFacts): void {
    if (!region.isPageable) throw new RangeError('pageout is for private anonymous regions of base pages');
    if (this.#roomPages === undefined) {
      if (facts.swapTotalPages > 0) throw swapOfOthers();
      return;
    }
    if (pages > this.#roomPages) {
      throw new RangeError(`only ${String(this.#roomPages)} pages more may be paged out: half of the swap stays free`);
    }
    this.#roomPages -= pages;
  }
}

/** Private anonymous memory of base pages is what the model knows in swap. */
export function isPageable({
  sharing,
  backing,
  hugePages,
  hugetlb,
}: Omit<StepOf<'map'>, 'op' | 'process' | 'region'>): boolean {
  return sharing === 'private' && backing === 'anonymous' && !hugePages && !hugetlb;
}

function swapOfOthers(): FeatureUnavailableError {
  return new FeatureUnavailableError('pageout', 'there is swap already, which others use', 'As root: swapoff -a');
}

/** Why a Machine on this host can add no swap, if so. */
export function whyNoExactSwap(facts: HostFacts): FeatureUnavailableError | undefined {
  const [major, minor] = facts.kernelVersion;
  if (major > 6 || (major === 6 && minor >= 18)) return facts.swapTotalPages > 0 ? swapOfOthers() : undefined;
  return new FeatureUnavailableError(
    'Exact figures of pages in swap',
    `they have not been tried on Linux ${String(major)}.${String(minor)}`,
    'Use Linux 6.18 or later.',
  );
}
