/** Forks that may be refused: attempts with a layout of memory, and the search for the size at which they begin to fail. */
import { SystemError } from '../errors.js';
import type { Machine, Process } from '../machine/machine.js';
import type { HostFacts } from '../schema/facts.js';
import type { Figure } from '../schema/figure.js';
import type { Failure } from '../schema/step.js';
import { formatCount } from '../schema/units.js';

/** How a fork came out; 'uncertain' only on the model, where the kernel's counter is not exact. */
export type Attempt = { result: 'forks' | 'uncertain' } | { result: 'refused'; failure: Failure };

/** How a layout of memory is made in the root before it forks, and taken away after it. */
export type Layout = (root: Process) => Promise<(() => Promise<void>)[]>;

/** Forks once, then takes the child away again. */
async function attemptFork(machine: Machine): Promise<Attempt> {
  const outcome = await machine.root.tryFork();
  if ('refused' in outcome) return { result: 'refused', failure: outcome.refused };
  const uncertain = machine.trace.at(-1)?.outcome.uncertain !== undefined;
  await outcome.kill();
  return { result: uncertain ? 'uncertain' : 'forks' };
}

export async function attempt(machine: Machine, layout: Layout): Promise<Attempt> {
  let undo: (() => Promise<void>)[] = [];
  try {
    undo = await layout(machine.root);
    return await attemptFork(machine);
  } catch (error) {
    // In strict mode the mapping itself may be what is refused.
    if (error instanceof SystemError && error.code === 'ENOMEM') {
      return { result: 'refused', failure: error.detail ?? { code: error.code, syscall: error.syscall } };
    }
    throw error;
  } finally {
    for (const step of undo) await step();
  }
}

/** One VMA of `pages` pages, made by mremap: each of the two steps is judged alone, so both are granted. */
export function oneVma(pages: number, dontforkPages = 0): Layout {
  return async (root) => {
    const region = await root.map({ pages: Math.ceil(pages / 2) });
    const undo = [() => root.unmap(region)];
    try {
      if (pages > 1) await root.grow(region, pages);
      if (dontforkPages > 0) {
        await root.advise(region, 'dontfork', { first: pages - dontforkPages, pages: dontforkPages });
      }
      return undo;
    } catch (error) {
      await root.unmap(region);
      throw error;
    }
  };
}

/**
 * Pages of one VMA with which no fork can succeed under strict overcommit: parent and child together would be charged a
 * quarter more than there is room for. The parent alone is far from the limit, so that it is always the fork that fails.
 */
export function hopelessStrictPages({ commitLimitPages, committedPages }: HostFacts): number {
  return Math.max(2, Math.ceil(((commitLimitPages - committedPages) * 5) / 8));
}

/** The most pages that fork, found by bisection between one that does and one that does not. */
async function bisect(machine: Machine, high: number, uncertainForks: boolean, tried: number[]): Promise<number> {
  let [forks, fails] = [1, high];
  while (fails - forks > 1) {
    const middle = Math.floor((forks + fails) / 2);
    tried.push(middle);
    const { result } = await attempt(machine, oneVma(middle));
    if (result === 'forks' || (result === 'uncertain' && uncertainForks)) forks = middle;
    else fails = middle;
  }
  return forks;
}

/**
 * The most pages of one VMA that fork.
 * @param high Pages with which a fork cannot succeed.
 * @param tried Receives the page counts of the attempts.
 */
export async function findThreshold(machine: Machine, high: number, tried: number[]): Promise<Figure> {
  tried.push(high);
  const { result } = await attempt(machine, oneVma(high));
  if (result !== 'refused') return { unknown: `a fork with ${formatCount(high)} pages succeeded` };
  const sure = await bisect(machine, high, false, tried);
  // Nothing is uncertain to the kernel, nor to the model in the default mode: then once is enough.
  const doubted = machine.trace.some(({ outcome }) => outcome.uncertain !== undefined);
  const possible = doubted ? await bisect(machine, high, true, []) : sure;
  const why = 'the kernel judges by a per-CPU counter that may lag by a batch on each CPU (MODEL.md rule 14)';
  return sure === possible ? sure : { min: sure, max: possible, why };
}
