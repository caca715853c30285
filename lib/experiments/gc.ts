/** Does a garbage collection in a child copy the objects that it visits, and do gc.freeze and gc.disable help? */
import { check } from '../machine/compare.js';
import type { Figure } from '../schema/figure.js';
import type { Findings, NamedFigure } from '../schema/result.js';
import { formatBytes, formatCount } from '../schema/units.js';
import { CpythonObjects, pythonOrWhyNot } from './cpython.js';
import { defineExperiment } from './define.js';
import type { MeasureContext, Measurement, RunContext } from './define.js';
import { copyByLayout, layoutOf, objectBytes, objectParams } from './layout-children.js';
import type { ObjectParams } from './layout-children.js';
import { pagesIn } from './python-layout.js';
import { formatFigure, formatKb } from './tree-figures.js';

const WAYS = {
  collect: 'gc.collect()',
  frozen: 'the same, frozen',
  disabled: 'gc disabled',
} as const;

async function program(context: RunContext<ObjectParams>): Promise<Findings> {
  const layout = layoutOf(context.params, context.machine.facts.pageSizeBytes);
  const copied = await copyByLayout(context, [
    { name: WAYS.collect, writes: layout.gcHeads },
    // What is frozen is in a generation that no collection visits.
    { name: WAYS.frozen, writes: [] },
    { name: WAYS.disabled, writes: [] },
  ]);
  return {
    figures: copied.flatMap(({ name, objects, growthKb }): NamedFigure[] => [
      { name: `layout, ${name}: pages copied`, unit: 'pages', value: objects, headline: name === WAYS.collect },
      { name: `layout, ${name}: growth of the sum of Pss`, unit: 'kB', value: growthKb, headline: false },
    ]),
    tables: [
      {
        title: `Layout: ${formatCount(context.params.objects)} lists`,
        columns: ['the child does', 'pages copied', 'growth'],
        rows: copied.map(({ name, objects, growthKb }) => [name, formatFigure(objects), formatKb(growthKb)]),
      },
    ],
    plots: [],
    notes: ['Pages copied by the child. Frozen: the parent has called gc.freeze() before the fork.'],
  };
}

const FEWER = 'frozen objects are not visited; the interpreter writes to others that share pages with them';
const MORE = 'CPython has other objects in the same pools, so that its objects lie on more pages';

/**
 * Whether a full collection writes to the GC head of every object it visits: update_refs() copies the counts there
 * [Modules/gcmodule.c, Python/gc.c], up to 3.13. The collectors of 3.14 and of free-threaded builds are others.
 */
function writesEveryHead([, minor]: [number, number]): boolean {
  return minor <= 13;
}

async function measure(context: MeasureContext<ObjectParams>): Promise<Measurement> {
  const { params, machine, progress, sample, closeLater } = context;
  const python = pythonOrWhyNot();
  if (typeof python === 'string') {
    return { figures: [], tables: [], plots: [], checks: [], notes: [`Without the real CPython: ${python}`] };
  }
  const done = [];
  for (const [name, freeze, action] of [
    [WAYS.collect, false, 'collect'],
    [WAYS.frozen, true, 'collect'],
    [WAYS.disabled, false, 'nothing'],
  ] as const) {
    progress(`CPython ${python.release} makes ${String(params.objects)} lists; its child does ${name}`);
    const real = await CpythonObjects.start(python, params.objects, freeze, closeLater);
    const seen = await real.childThat(action);
    sample({ 'CPython child does': name, ...seen });
    done.push({ name, headPages: pagesIn(real.pages.heads), ...seen });
  }
  const [collected, frozen] = done;
  const layoutPages = pagesIn(layoutOf(params, machine.facts.pageSizeBytes).gcHeads);
  const headPages = collected?.headPages ?? NaN;
  const all: Figure = writesEveryHead(python.version)
    ? headPages
    : { unknown: `the collector of Python ${python.release} is another` };
  const checks = [
    check(
      'CPython: pages with GC heads copied by a collection in the child',
      'pages',
      'anchor',
      all,
      collected?.heads ?? NaN,
    ),
    check(
      'CPython: the same after gc.freeze()',
      'pages',
      'bound',
      { min: 0, max: headPages - 1, why: FEWER },
      frozen?.heads ?? NaN,
    ),
    check(
      'CPython: pages that hold GC heads, beside the layout',
      'pages',
      'comparison',
      { min: layoutPages, max: params.objects, why: MORE },
      headPages,
    ),
  ];
  return {
    figures: [
      {
        name: `CPython ${python.release}: copied by a collection`,
        unit: 'pages',
        value: collected?.heads ?? 0,
        headline: true,
      },
      {
        name: `CPython ${python.release}: copied after gc.freeze()`,
        unit: 'pages',
        value: frozen?.heads ?? 0,
        headline: true,
      },
    ],
    tables: [
      {
        title: `CPython ${python.release}: as many lists`,
        columns: ['the child does', 'of pages with heads', 'copied', 'private grew by'],
        rows: done.map(({ name, headPages: of, heads, ussKb }) => [
          name,
          formatCount(of),
          formatCount(heads),
          formatKb(ussKb),
        ]),
      },
    ],
    plots: [],
    notes: [
      `The lists of CPython have their GC heads on ${formatCount(headPages)} pages; the layout needs ` +
        `${formatCount(layoutPages)}. ${MORE}.`,
      'gc.freeze() and gc.disable() do nothing about reference counts: see `cowlab run refcount`.',
    ],
    checks,
  };
}

export const gc = defineExperiment({
  name: 'gc',
  title: 'Does a garbage collection in a child copy what it visits?',
  claim: {
    text: 'the generational garbage collector writes to the objects that it visits',
    source: 'https://rushter.com/blog/python-garbage-collector/',
  },
  params: objectParams,
  programs: ['python3'],

  needs({ objects }) {
    return { memoryBytes: 2 * objectBytes(objects) };
  },

  run: program,
  measure,

  conclude(result, agreed) {
    if (!agreed) return { outcome: 'undecided', inShort: 'Prediction and measurement differ; see the checks.' };
    const pages = (name: RegExp): string => {
      const value = result.figures.find((figure) => name.test(figure.name))?.value;
      return typeof value === 'number' ? formatBytes(value * 4096) : '-';
    };
    const real = result.figures.some(({ name }) => name.startsWith('CPython'))
      ? ` A real CPython copied ${pages(/: copied by a collection$/)}, and ${pages(/: copied after gc/)} after gc.freeze().`
      : '';
    return {
      outcome: 'holds',
      inShort:
        'A collection in the child copies every page that holds the GC head of a container; gc.freeze() in the parent, ' +
        `right before the fork, keeps it from visiting them, and gc.disable() from running.${real}`,
    };
  },
});
