/** Why does memory grow when children only look at Python objects? */
import { check } from '../machine/compare.js';
import type { Findings, NamedFigure } from '../schema/result.js';
import { formatBytes, formatCount } from '../schema/units.js';
import { CpythonObjects, pythonOrWhyNot } from './cpython.js';
import { defineExperiment } from './define.js';
import type { MeasureContext, Measurement, RunContext } from './define.js';
import { copyByLayout, layoutOf, objectBytes, objectParams } from './layout-children.js';
import type { ObjectParams } from './layout-children.js';
import { pagesIn } from './python-layout.js';
import { formatFigure, formatKb } from './tree-figures.js';

async function program(context: RunContext<ObjectParams>): Promise<Findings> {
  const layout = layoutOf(context.params, context.machine.facts.pageSizeBytes);
  const copied = await copyByLayout(context, [
    { name: 'nothing', writes: [] },
    { name: 'look at each', writes: layout.counts },
    { name: 'add up array', writes: [], readsArray: true },
  ]);
  return {
    figures: copied.flatMap(({ name, objects, array, growthKb }): NamedFigure[] => [
      { name: `layout, ${name}: pages copied`, unit: 'pages', value: objects, headline: true },
      { name: `layout, ${name}: of the array`, unit: 'pages', value: array, headline: false },
      { name: `layout, ${name}: growth of the sum of Pss`, unit: 'kB', value: growthKb, headline: false },
    ]),
    tables: [
      {
        title: `Layout: ${formatCount(context.params.objects)} lists and an array`,
        columns: ['the child does', 'pages of objects', 'of the array', 'growth'],
        rows: copied.map(({ name, objects, array, growthKb }) => [
          name,
          formatFigure(objects),
          formatFigure(array),
          formatKb(growthKb),
        ]),
      },
    ],
    plots: [],
    notes: ['Pages copied by the child; growth is that of the sum of Pss.'],
  };
}

const MORE =
  'CPython has other objects in the same pools, and begins in pools that were in use: so its objects lie on more pages';

async function measure(context: MeasureContext<ObjectParams>): Promise<Measurement> {
  const { params, machine, progress, sample, closeLater } = context;
  const empty = { figures: [], tables: [], plots: [], checks: [] };
  const python = pythonOrWhyNot();
  if (typeof python === 'string') return { ...empty, notes: [`Without the real CPython: ${python}`] };
  progress(`CPython ${python.release} makes ${String(params.objects)} lists`);
  const real = await CpythonObjects.start(python, params.objects, false, closeLater);
  const layoutPages = pagesIn(layoutOf(params, machine.facts.pageSizeBytes).counts);
  const countPages = pagesIn(real.pages.counts);
  const done = [];
  for (const [name, action] of [
    ['nothing', 'nothing'],
    ['look at each', 'read'],
    ['add up array', 'array'],
  ] as const) {
    progress(`a child of CPython: ${name}`);
    const seen = await real.childThat(action);
    sample({ 'CPython child does': name, ...seen });
    done.push({ name, ...seen });
  }
  const [, looked, summed] = done;
  const checks = [
    check(
      'CPython: pages with counts copied by a child that looks at each object',
      'pages',
      'anchor',
      countPages,
      looked?.counts ?? NaN,
    ),
    check('CPython: pages of the array copied by a child that adds it up', 'pages', 'anchor', 0, summed?.array ?? NaN),
    check(
      'CPython: pages that hold counts, beside the layout',
      'pages',
      'comparison',
      { min: layoutPages, max: params.objects, why: MORE },
      countPages,
    ),
  ];
  return {
    figures: [
      { name: `CPython ${real.release}: pages that hold a count`, unit: 'pages', value: countPages, headline: false },
      { name: `CPython ${real.release}: copied by looking`, unit: 'pages', value: looked?.counts ?? 0, headline: true },
    ],
    tables: [
      {
        title: `CPython ${real.release}: as many lists, and array('d')`,
        columns: ['the child does', 'pages with counts', 'of the array', 'private grew by'],
        rows: done.map(({ name, counts, array, ussKb }) => [
          name,
          formatCount(counts),
          formatCount(array),
          formatKb(ussKb),
        ]),
      },
    ],
    plots: [],
    notes: [
      `The lists of CPython have their counts on ${formatCount(countPages)} pages, told by id(); the layout needs ` +
        `${formatCount(layoutPages)}. ${MORE}. Copied were all of them.`,
      'Private memory grows by more: what the interpreter writes to run, and pages that the parent alone is left with.',
      ...(python.version[1] >= 12
        ? [
            'Since 3.12 None, small integers and the like are immortal, and looking at them writes nothing; these lists are not.',
          ]
        : ['Immortal objects, whose counts are not written, came with 3.12.']),
    ],
    checks,
  };
}

export const refcount = defineExperiment({
  name: 'refcount',
  title: 'Why does memory grow when children only look at Python objects?',
  claim: {
    text: 'every Python object has a reference count, so that reading an object writes to it',
    source: 'https://rushter.com/blog/python-garbage-collector/',
  },
  params: objectParams,
  programs: ['python3'],

  needs({ objects }) {
    return { memoryBytes: 2 * objectBytes(objects) };
  },

  run: program,
  measure,

  conclude(result, agreed, { objects }) {
    if (!agreed) return { outcome: 'undecided', inShort: 'Prediction and measurement differ; see the checks.' };
    const pages = (name: RegExp): string => {
      const value = result.figures.find((figure) => name.test(figure.name))?.value;
      return typeof value === 'number' ? formatBytes(value * 4096) : '-';
    };
    const real = result.figures.some(({ name }) => name.startsWith('CPython'))
      ? `, and a real CPython ${pages(/: copied by looking$/)}`
      : '';
    return {
      outcome: 'holds',
      inShort:
        `A child that looks at ${formatCount(objects)} objects copies every page that holds one of their counts: ` +
        `${pages(/^layout, look at each: pages/)} by the layout${real}. Numbers in one array cost ` +
        'nothing to read: keep what children read in arrays, bytes or mapped files.',
    };
  },
});
