/** Data that is written share by share: by whom, which pages, in which order. */
import type { PageChoice, Process } from '../machine/machine.js';
import type { ParamsOf } from './define.js';

export const orderParams = {
  pattern: {
    type: 'choice',
    default: 'sequential',
    choices: ['sequential', 'random', 'stride'],
    describe: 'the order in which pages are written',
  },
  seed: { type: 'integer', default: 1, min: 0, max: 2 ** 32 - 1, describe: 'of the random pattern' },
  stride: { type: 'integer', default: 2, min: 1, max: 2 ** 20, describe: 'of the stride pattern, in pages' },
} as const;

export const writerParams = {
  overlap: {
    type: 'choice',
    default: 'same',
    choices: ['same', 'disjoint'],
    describe: 'whether all write the same pages, or each its own part',
  },
  writer: {
    type: 'choice',
    default: 'children',
    choices: ['children', 'parent', 'both'],
    describe: 'who writes',
  },
} as const;

type Writers = ParamsOf<typeof writerParams>;
type Shares = ParamsOf<typeof orderParams> & Writers & { steps: number };

export function writersAmong({ writer }: Writers, root: Process, children: readonly Process[]): Process[] {
  return [...(writer === 'children' ? [] : [root]), ...(writer === 'parent' ? [] : children)];
}

/** What writer `index` of `writers` writes in share `step` (from 1) of `steps`. */
export function share(values: Shares, pages: number, index: number, writers: number, step: number): PageChoice {
  const own = values.overlap === 'disjoint';
  const first = own ? Math.floor((index * pages) / writers) : 0;
  const end = own ? Math.floor(((index + 1) * pages) / writers) : pages;
  const length = end - first;
  return {
    first,
    pages: length,
    pattern: values.pattern,
    seed: values.seed,
    stride: values.stride,
    from: Math.floor(((step - 1) * length) / values.steps),
    to: Math.floor((step * length) / values.steps),
  };
}

/** '25%'; with as many digits as it takes that no two steps are called the same. */
export function shareLabel(step: number, steps: number): string {
  const digits = Math.max(0, Math.ceil(Math.log10(steps)) - 2);
  return `${String(Number(((100 * step) / steps).toFixed(digits)))}%`;
}

/** How often private data has been copied once all shares are written: the last owner of a page keeps the original. */
export function copiesInTheEnd({ writer, overlap, children }: Writers & { children: number }): number {
  const writers = writer === 'parent' ? 1 : children + (writer === 'both' ? 1 : 0);
  return overlap === 'disjoint' ? 1 : Math.min(writers, children);
}
