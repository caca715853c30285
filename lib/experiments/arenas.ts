/** When does memory of freed Python objects go back to the system? */
import { check } from '../machine/compare.js';
import type { Findings, NamedFigure } from '../schema/result.js';
import { formatBytes, formatCount } from '../schema/units.js';
import type { Region } from '../machine/machine.js';
import { CpythonObjects, pythonOrWhyNot } from './cpython.js';
import { defineExperiment } from './define.js';
import type { MeasureContext, Measurement, RunContext } from './define.js';
import { layoutOf, objectBytes, objectParams } from './layout-children.js';
import { pagesIn, survivorsOf } from './python-layout.js';
import type { Layout } from './python-layout.js';
import { formatKb, sumOfTree } from './tree-figures.js';

const params = {
  ...objectParams,
  survivors: { type: 'integer', default: 100, min: 1, max: 1_000_000, describe: 'how many objects are kept' },
} as const;
type Context = RunContext<typeof params>;

const WHICH = ['scattered', 'together'] as const;

/** The arenas of the layout, as regions of their own, with the pages written that hold objects. */
async function fillArenas({ machine }: Context, layout: Layout): Promise<Region[]> {
  const pagesPerArena = layout.obmalloc.arenaBytes / machine.facts.pageSizeBytes;
  const regions: Region[] = [];
  for (let arena = 0; arena < layout.arenas; arena++) {
    const region = await machine.root.map({ pages: pagesPerArena });
    for (const { first, pages } of layout.written) {
      const from = Math.max(first, arena * pagesPerArena);
      const end = Math.min(first + pages, (arena + 1) * pagesPerArena);
      if (from < end) await machine.root.write(region, { first: from - arena * pagesPerArena, pages: end - from });
    }
    regions.push(region);
  }
  return regions;
}

async function program(context: Context): Promise<Findings> {
  const { machine, params: values, progress } = context;
  const layout = layoutOf(values, machine.facts.pageSizeBytes);
  const figures: NamedFigure[] = [];
  const rows: (string | number)[][] = [];
  for (const which of WHICH) {
    progress(`${String(layout.arenas)} arenas, ${String(values.survivors)} survivors, ${which}`);
    const regions = await fillArenas(context, layout);
    const full = await machine.observe(`${which}: full`);
    const pinned = layout.pinnedBy(survivorsOf(values.objects, values.survivors, which));
    // arena_map_remove, and munmap of it, when all of its pools are free [Objects/obmalloc.c: insert_to_freepool].
    for (const [arena, region] of regions.entries()) if (!pinned.has(arena)) await machine.root.unmap(region);
    const left = await machine.observe(`${which}: freed`);
    const rss = (observation: typeof full) =>
      regions.map(({ name }) => sumOfTree(observation, 'Rss', name)).reduce<number>((a, b) => a + Number(b), 0);
    const [before, after] = [rss(full), rss(left)];
    for (const [arena, region] of regions.entries()) if (pinned.has(arena)) await machine.root.unmap(region);
    figures.push(
      { name: `layout, ${which}: arenas that stay`, unit: 'arenas', value: pinned.size, headline: false },
      { name: `layout, ${which}: resident, full`, unit: 'kB', value: before, headline: false },
      { name: `layout, ${which}: resident, freed`, unit: 'kB', value: after, headline: true },
    );
    rows.push([which, `${String(pinned.size)} of ${String(layout.arenas)}`, formatKb(before), formatKb(after)]);
  }
  return {
    figures,
    tables: [
      {
        title: `Layout: of ${formatCount(values.objects)} lists ${formatCount(values.survivors)} stay`,
        columns: ['survivors', 'arenas that stay', 'resident before', 'and after'],
        rows,
      },
    ],
    plots: [],
    notes: [],
  };
}

const ENDS = 'an arena at either end may hold few of the lists, and none of the survivors';
const RETURNED = 'at least the survivors stay, and at least one page is returned';

async function measure(context: MeasureContext<typeof params>): Promise<Measurement> {
  const { params: values, progress, sample, closeLater, machine } = context;
  const python = pythonOrWhyNot();
  if (typeof python === 'string') {
    return { figures: [], tables: [], plots: [], checks: [], notes: [`Without the real CPython: ${python}`] };
  }
  const seen = [];
  for (const which of WHICH) {
    progress(`CPython ${python.release} makes ${String(values.objects)} lists, and frees all but some, ${which}`);
    const real = await CpythonObjects.start(python, values.objects, false, closeLater);
    const full = real.presentPages();
    const survivors = pagesIn((await real.keep(which, values.survivors)).counts);
    const left = real.presentPages();
    sample({ 'CPython survivors': which, 'pages before': full, 'pages after': left, 'pages of survivors': survivors });
    seen.push({ which, all: pagesIn(real.pages.counts), full, survivors, left });
  }
  const [scattered, together] = seen;
  if (!scattered || !together) throw new RangeError('both were to be tried');
  const layout = layoutOf(
    { objects: values.objects, layout: python.version[1] >= 10 ? '3.10' : '3.9' },
    machine.facts.pageSizeBytes,
  );
  const arenaPages = layout.obmalloc.arenaBytes / machine.facts.pageSizeBytes;
  // Only where survivors are so near to each other that no arena is left between two.
  const dense = (values.objects / values.survivors) * layout.blockBytes * 4 <= layout.obmalloc.arenaBytes;
  const all = dense
    ? { min: scattered.all - 2 * arenaPages, max: scattered.all, why: ENDS }
    : { unknown: 'between two survivors there is room for a whole arena' };
  const returned = values.objects > 8 * (values.survivors + arenaPages * 64);
  const some = returned
    ? { min: together.survivors, max: together.all - 1, why: RETURNED }
    : { unknown: 'there are too few objects for an arena of them to become empty' };
  const checks = [
    check('CPython: pages there before anything is freed', 'pages', 'anchor', scattered.all, scattered.full),
    check('CPython: pages that stay for scattered survivors', 'pages', 'bound', all, scattered.left),
    check('CPython: pages that stay for survivors that lie together', 'pages', 'bound', some, together.left),
  ];
  const kb = (pages: number): string => formatBytes(pages * machine.facts.pageSizeBytes);
  return {
    figures: seen.map(({ which, left }) => ({
      name: `CPython ${python.release}, ${which}: pages that stay`,
      unit: 'pages',
      value: left,
      headline: true,
    })),
    tables: [
      {
        title: `CPython ${python.release}: pages that held a list`,
        columns: ['survivors', 'resident before', 'and after', 'survivors need'],
        rows: seen.map(({ which, full, left, survivors }) => [which, kb(full), kb(left), kb(survivors)]),
      },
    ],
    plots: [],
    notes: [
      'CPython has other objects in its arenas, which pin some that the layout sees empty, and lists have their items in ' +
        'pools of another size, in the same arenas.',
    ],
    checks,
  };
}

export const arenas = defineExperiment({
  name: 'arenas',
  title: 'When does the memory of freed Python objects go back to the system?',
  claim: {
    text: 'small objects live in blocks, pools and arenas, and an arena is freed only when it is wholly empty',
    source: 'https://rushter.com/blog/python-memory-managment/',
  },
  params,
  programs: ['python3'],

  needs({ objects, survivors }) {
    if (survivors > objects) throw new RangeError(`survivors (${String(survivors)}) must not be more than objects`);
    return { memoryBytes: 2 * objectBytes(objects) };
  },

  run: program,
  measure,

  conclude(result, agreed, { survivors, objects }) {
    if (!agreed) return { outcome: 'undecided', inShort: 'Prediction and measurement differ; see the checks.' };
    const size = (which: string): string => {
      const value = result.figures.find(({ name }) => name === `layout, ${which}: resident, freed`)?.value;
      return typeof value === 'number' ? formatBytes(value * 1024) : '-';
    };
    const full = result.figures.find(({ name }) => name === 'layout, scattered: resident, full')?.value;
    const of = typeof full === 'number' ? formatBytes(full * 1024) : '-';
    return {
      outcome: 'holds',
      inShort:
        `One survivor keeps its whole arena: of ${of} for ${formatCount(objects)} objects, ` +
        `${formatCount(survivors)} survivors keep ${size('scattered')} when they are scattered and ` +
        `${size('together')} when they lie together. Make what lives long before or after, not among, what does not; ` +
        'or do the work in a child that ends.',
    };
  },
});
