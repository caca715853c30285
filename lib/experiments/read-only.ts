/** Does data that is only read cost anything in forked children? And what if looking at it writes a reference count? */
import { sum } from '../schema/figure.js';
import type { Figure } from '../schema/figure.js';
import type { Findings, NamedFigure } from '../schema/result.js';
import { formatBytes } from '../schema/units.js';
import type { Access, Machine, PageChoice, Process, Region } from '../machine/machine.js';
import { defineExperiment } from './define.js';
import type { ParamsOf, RunContext } from './define.js';
import { difference, formatFigure, formatKb, regionOf, sumOfTree } from './tree-figures.js';

const params = {
  size: { type: 'size', default: 64 * 2 ** 20, min: 4096, max: 2 ** 44, describe: 'data of the parent' },
  children: { type: 'integer', default: 4, min: 1, max: 64, describe: 'how many are forked' },
  rounds: { type: 'integer', default: 3, min: 1, max: 1000, describe: 'how often each child reads everything' },
  object: { type: 'size', default: 256, min: 16, max: 2 ** 30, describe: 'bytes of one object, a power of two' },
  seed: { type: 'integer', default: 1, min: 0, max: 2 ** 32 - 1, describe: 'of the random orders' },
  stride: { type: 'integer', default: 3, min: 1, max: 2 ** 20, describe: 'of the strided orders, in pages' },
} as const;
type Params = ParamsOf<typeof params>;

/** A count takes as much as in CPython: Py_ssize_t ob_refcnt. */
const COUNT_BYTES = 8;

/** One way to look at the data, in children of its own. */
interface Way {
  name: string;
  /** How the parent holds it; the first region is the data. */
  lay: (root: Process) => Promise<Region[]>;
  /** What one child does in one round. */
  look: (child: Process, regions: readonly Region[], number: number, round: number) => Promise<Access>[];
}

/** Every child in another order, and in another one each round. */
function orderOf({ seed, stride }: Params, number: number, round: number): PageChoice {
  switch ((number + round) % 3) {
    case 0:
      return { pattern: 'sequential' };
    case 1:
      return { pattern: 'random', seed: (seed + number + round) % 2 ** 32 };
    default:
      return { pattern: 'stride', stride };
  }
}

function waysOf(values: Params, pageSizeBytes: number): Way[] {
  const { size, object } = values;
  const pages = size / pageSizeBytes;
  /** Objects of more than a page have their headers so many pages apart. */
  const apart = Math.max(1, object / pageSizeBytes);
  const headers: PageChoice = { pattern: 'stride', stride: apart, to: Math.ceil(pages / apart) };
  const written = async (root: Process, sharing: 'private' | 'shared'): Promise<Region[]> => {
    const region = await root.map({ size, sharing });
    await root.write(region);
    return [region];
  };
  const read: Way['look'] = (child, [data], number, round) =>
    data ? [child.read(data, orderOf(values, number, round))] : [];
  return [
    { name: 'read, private', lay: (root) => written(root, 'private'), look: read },
    { name: 'read, MAP_SHARED', lay: (root) => written(root, 'shared'), look: read },
    {
      name: 'count in each object',
      lay: (root) => written(root, 'private'),
      look: (child, regions, number, round) => {
        const [data] = regions;
        return data ? [...read(child, regions, number, round), child.write(data, headers)] : [];
      },
    },
    {
      name: 'counts kept apart',
      lay: async (root) => {
        const counts = await root.map({ pages: countPages(values, pageSizeBytes) });
        await root.write(counts);
        return [...(await written(root, 'private')), counts];
      },
      look: (child, regions, number, round) => {
        const [, counts] = regions;
        return counts ? [...read(child, regions, number, round), child.write(counts)] : [];
      },
    },
  ];
}

/** Pages of a table that holds the count of every object. */
function countPages({ size, object }: Params, pageSizeBytes: number): number {
  return Math.ceil(((size / object) * COUNT_BYTES) / pageSizeBytes);
}

interface Outcome {
  way: string;
  minorFaults: Figure;
  /** Pages that one child has for itself in the end. */
  copiedPages: Figure;
  growthKb: Figure;
}

async function pssOf(machine: Machine, label: string, regions: readonly Region[]) {
  const observation = await machine.observe(label);
  return { observation, pss: sum(regions.map(({ name }) => sumOfTree(observation, 'Pss', name))) };
}

async function tryWay({ machine, params: values, progress }: RunContext<typeof params>, way: Way): Promise<Outcome> {
  const { root } = machine;
  progress(`${way.name}: ${formatBytes(values.size)}, ${String(values.children)} children`);
  const regions = await way.lay(root);
  const children: Process[] = [];
  for (let child = 0; child < values.children; child++) children.push(await root.fork());
  const before = await pssOf(machine, `${way.name}: forked`, regions);
  const faults: Figure[] = [];
  for (let round = 0; round < values.rounds; round++) {
    for (const [number, child] of children.entries()) {
      for (const access of way.look(child, regions, number, round)) faults.push((await access).minorFaults);
    }
  }
  const after = await pssOf(machine, `${way.name}: looked at`, regions);
  const [first] = children;
  const seen = after.observation.processes.find(({ process }) => process === first?.name);
  const copied = regions.map(({ name }) => {
    const region = regionOf(seen, name);
    // A shared mapping has no copies, whoever maps it.
    return way.name === 'read, MAP_SHARED' ? 0 : (region?.counts['exclusive'] ?? 0);
  });
  for (const child of children) await child.exit();
  for (const region of regions) await root.unmap(region);
  return {
    way: way.name,
    minorFaults: sum(faults),
    copiedPages: sum(copied),
    growthKb: difference(after.pss, before.pss),
  };
}

async function program(context: RunContext<typeof params>): Promise<Findings> {
  const { machine, params: values, sample } = context;
  const outcomes: Outcome[] = [];
  for (const way of waysOf(values, machine.facts.pageSizeBytes)) outcomes.push(await tryWay(context, way));
  for (const { way, ...figures } of outcomes) {
    const known = Object.entries(figures).filter(([, figure]) => typeof figure === 'number') as [string, number][];
    sample({ way, ...Object.fromEntries(known) });
  }
  const figures = outcomes.flatMap(({ way, minorFaults, copiedPages, growthKb }): NamedFigure[] => [
    { name: `${way}: pages copied by a child`, unit: 'pages', value: copiedPages, headline: true },
    { name: `${way}: minor faults`, unit: 'faults', value: minorFaults, headline: false },
    { name: `${way}: growth of the sum of Pss`, unit: 'kB', value: growthKb, headline: false },
  ]);
  return {
    figures,
    tables: [
      {
        title: `Each child looks at ${formatBytes(values.size)}, ${String(values.rounds)} times`,
        columns: ['how', 'minor faults', 'copied by a child', 'growth of Pss'],
        rows: outcomes.map(({ way, minorFaults, copiedPages, growthKb }) => [
          way,
          formatFigure(minorFaults),
          formatFigure(copiedPages),
          formatKb(growthKb),
        ]),
      },
    ],
    plots: [],
    notes: [
      'Children read in sequential, random and strided order, each in another. The faults of MAP_SHARED fill the ' +
        "children's page tables, which fork does not copy for shared memory; they copy no page.",
      `Counts are ${String(COUNT_BYTES)} bytes, one for each object of ${formatBytes(values.object)}. Growth is that ` +
        'of the sum of Pss, which the kernel rounds down to a whole kB for each process.',
    ],
  };
}

function requireSizes({ size, object }: Params, pageSizeBytes: number): void {
  if (size % pageSizeBytes !== 0) {
    throw new RangeError(`size must be a multiple of the page size, ${String(pageSizeBytes)}, not ${String(size)}`);
  }
  if (!Number.isInteger(Math.log2(object))) {
    throw new RangeError(`object must be a power of two, not ${String(object)}`);
  }
  if (object > size) throw new RangeError(`object (${String(object)}) must not be larger than size (${String(size)})`);
}

export const readOnly = defineExperiment({
  name: 'read-only',
  title: 'Does data that is never altered cost anything in the children?',
  claim: {
    text: 'with copy-on-write fork, data that is never altered costs nothing in the children',
    source: 'https://stackoverflow.com/questions/10721915',
  },
  params,

  needs(values, facts) {
    requireSizes(values, facts.pageSizeBytes);
    // The way with a count in each object copies all, in every child.
    return { memoryBytes: values.size * (1 + values.children) + 2 * values.children * 2 ** 20 };
  },

  run: program,

  conclude(result, agreed, { size }) {
    if (!agreed) return { outcome: 'undecided', inShort: 'Prediction and measurement differ; see the checks.' };
    const growth = (way: string): string => {
      const value = result.figures.find(({ name }) => name === `${way}: growth of the sum of Pss`)?.value;
      return typeof value === 'number' ? formatBytes(value * 1024) : 'unknown';
    };
    return {
      outcome: 'holds',
      inShort:
        `Reading ${formatBytes(size)} copied nothing, in any order and however often. But data whose reading writes a ` +
        `reference count into each object is altered: ${growth('count in each object')} were copied, and ` +
        `${growth('counts kept apart')} where the counts are kept apart.`,
    };
  },
});
