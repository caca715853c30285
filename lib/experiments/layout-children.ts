/** Children that do to laid-out objects what CPython's would, on a Machine: which pages are copied? */
import { sum } from '../schema/figure.js';
import type { Figure } from '../schema/figure.js';
import type { PageRun } from '../schema/selection.js';
import type { RunContext } from './define.js';
import { LIST, Layout, OBMALLOC } from './python-layout.js';
import { difference, regionOf, sumOfTree } from './tree-figures.js';

export const objectParams = {
  objects: { type: 'integer', default: 100_000, min: 1000, max: 5_000_000, describe: 'how many lists of one element' },
  layout: {
    type: 'choice',
    default: '3.10',
    choices: ['3.10', '3.9'],
    describe: 'pools and arenas of CPython 3.10 and later, or of 3.9 and before',
  },
} as const;
export type ObjectParams = typeof objectParams;

/** What the lists and an array of as many numbers take, laid out and in CPython, with all pages copied once. */
export function objectBytes(objects: number): number {
  return objects * (2 * 64 + 4 * 16) + 64 * 2 ** 20;
}

export function layoutOf(params: { objects: number; layout: '3.10' | '3.9' }, pageBytes: number): Layout {
  return new Layout(OBMALLOC[params.layout], LIST, params.objects, pageBytes);
}

export interface LayoutWay {
  name: string;
  /** Pages of the objects that the child writes. */
  writes: readonly PageRun[];
  /** It reads the whole array. */
  readsArray?: boolean;
}

export interface Copied {
  name: string;
  objects: Figure;
  array: Figure;
  growthKb: Figure;
}

/** For each way a child of its own, of a parent that has made the objects and an array of as many doubles. */
export async function copyByLayout(
  { machine, params, progress }: RunContext<ObjectParams>,
  ways: readonly LayoutWay[],
): Promise<Copied[]> {
  const { root, facts } = machine;
  const layout = layoutOf(params, facts.pageSizeBytes);
  progress(`laying out ${String(params.objects)} objects in ${String(layout.arenas)} arenas`);
  const arenas = await root.map({ size: layout.arenas * layout.obmalloc.arenaBytes });
  for (const run of layout.written) await root.write(arenas, run);
  const array = await root.map({ pages: Math.ceil((params.objects * 8) / facts.pageSizeBytes) });
  await root.write(array);
  const copied: Copied[] = [];
  for (const { name, writes, readsArray = false } of ways) {
    progress(`a child: ${name}`);
    const child = await root.fork();
    const before = await machine.observe(`${name}: forked`);
    for (const run of writes) await child.write(arenas, run);
    if (readsArray) await child.read(array);
    const after = await machine.observe(`${name}: done`);
    const seen = after.processes.find(({ process }) => process === child.name);
    const pss = (observation: typeof before): Figure =>
      sum([arenas, array].map((region) => sumOfTree(observation, 'Pss', region.name)));
    copied.push({
      name,
      objects: regionOf(seen, arenas.name)?.counts['exclusive'] ?? 0,
      array: regionOf(seen, array.name)?.counts['exclusive'] ?? 0,
      growthKb: difference(pss(after), pss(before)),
    });
    await child.exit();
  }
  await root.unmap(arenas);
  await root.unmap(array);
  return copied;
}
