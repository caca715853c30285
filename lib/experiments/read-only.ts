/** Does data that children only read cost nothing in them, and what if reading writes, as a reference count does? */
import type { Access, Machine, PageChoice, Process, Region } from '../machine/machine.js';
import { check } from '../machine/compare.js';
import type { HostFacts } from '../schema/facts.js';
import { sum } from '../schema/figure.js';
import type { Figure } from '../schema/figure.js';
import type { Check, Findings, NamedFigure } from '../schema/result.js';
import type { Observation } from '../schema/step.js';
import { formatBytes } from '../schema/units.js';
import { defineExperiment, requireWholePages } from './define.js';
import type { Conclusion, ParamsOf, RunContext } from './define.js';
import { approximately, difference, findFigure, formatFigure, formatKb, regionOf, sumOfTree } from './tree-figures.js';

/** A reference count, as wide as CPython's (Py_ssize_t). */
const COUNT_BYTES = 8;

const params = {
  size: { type: 'size', default: 64 * 2 ** 20, min: 4096, max: 2 ** 44, describe: 'written data of the parent' },
  children: { type: 'integer', default: 4, min: 1, max: 64, describe: 'how many are forked, and read everything' },
  rounds: { type: 'integer', default: 3, min: 1, max: 1000, describe: 'how often; each round in another order' },
  seed: { type: 'integer', default: 1, min: 0, max: 2 ** 32 - 1, describe: 'of the random order' },
  stride: { type: 'integer', default: 2, min: 1, max: 2 ** 20, describe: 'of the order by strides, in pages' },
  object: {
    type: 'size',
    default: 64,
    min: 2 * COUNT_BYTES,
    max: 2 ** 30,
    describe: 'bytes of each counted object: a divisor or a multiple of the page size',
  },
} as const;
type Params = ParamsOf<typeof params>;
type Context = RunContext<typeof params>;

/** What is read, and where the counts of it are. */
const KINDS = ['data', 'shared data', 'mapped file', 'counts inside', 'counts apart'] as const;
type Kind = (typeof KINDS)[number];

const TITLES: Record<Kind, string> = {
  data: 'data, private memory',
  'shared data': 'data, shared memory',
  'mapped file': 'data, a mapped file',
  'counts inside': 'objects, counts inside',
  'counts apart': 'objects, counts apart',
};

/** Pages of the table that holds the counts, where they are kept apart. */
function tablePages({ size, object }: Params, pageSizeBytes: number): number {
  return Math.ceil(((size / object) * COUNT_BYTES) / pageSizeBytes);
}

/** Pages that hold a count, where it stands at the head of each object. */
function headPages({ size, object }: Params, pageSizeBytes: number): number {
  return size / Math.max(object, pageSizeBytes);
}

const ORDERS = ['sequential', 'random', 'stride'] as const;

/** In which order a child reads: each child another in each round. */
function orderOf({ seed, stride }: Params, child: number, round: number): PageChoice {
  const pattern = ORDERS[(child + round) % ORDERS.length] ?? 'sequential';
  return { pattern, seed: (seed + child + round) % 2 ** 32, stride };
}

/** The pages with the heads of objects: all of them, or where objects are larger than pages, the first of each. */
function headsOf(values: Params, order: PageChoice, pageSizeBytes: number): PageChoice {
  const stride = values.object / pageSizeBytes;
  return stride <= 1 ? order : { pattern: 'stride', stride, to: headPages(values, pageSizeBytes) };
}

/** Memory that the parent has written, and how a child looks at all of it, access by access. */
interface Memory {
  regions: Region[];
  look: (child: Process, order: PageChoice) => AsyncIterable<Access>;
}

/** The data as the parent has it before it forks. */
async function mapData(kind: Kind, { machine, params: values }: Context): Promise<Region> {
  const { root } = machine;
  if (kind !== 'mapped file') {
    const data = await root.map({ size: values.size, sharing: kind === 'shared data' ? 'shared' : 'private' });
    await root.write(data);
    return data;
  }
  // A memfd is a file that is nowhere but in the page cache: nobody writes it back, or drops it, meanwhile.
  const file = await machine.createMemfd(values.size / machine.facts.pageSizeBytes);
  await file.write();
  const data = await root.map({ size: values.size, backing: file, protection: 'r' });
  await root.read(data);
  return data;
}

/**
 * A count is incremented and decremented when the object is looked at. A page is copied by the first write to it, so
 * that one write in each page that holds a count does what many would.
 */
async function prepare(kind: Kind, context: Context): Promise<Memory> {
  const { machine, params: values } = context;
  const unit = machine.facts.pageSizeBytes;
  const data = await mapData(kind, context);
  const table = kind === 'counts apart' ? await machine.root.map({ pages: tablePages(values, unit) }) : undefined;
  if (table) await machine.root.write(table);

  async function* look(child: Process, order: PageChoice): AsyncGenerator<Access> {
    if (kind === 'counts inside') yield child.write(data, headsOf(values, order, unit));
    if (table) yield child.write(table, order);
    yield child.read(data, order);
  }
  return { regions: table ? [data, table] : [data], look };
}

/** What one kind of memory has cost. */
interface Cost {
  kind: Kind;
  firstFaults: Figure;
  laterFaults: Figure;
  copiedPages: Figure;
  /** Growth of the sum of Pss since the fork, in kB. */
  growth: Figure;
  /** The sum of Pss at the fork and after each round, in MiB. */
  pssMib: number[];
}

/** One round: every child looks at everything. Returns the faults. */
async function lookAtAll(context: Context, memory: Memory, kind: Kind, children: readonly Process[], round: number) {
  const faults: Figure[] = [];
  for (const [index, child] of children.entries()) {
    const order = orderOf(context.params, index, round);
    for await (const { minorFaults, elapsedNs } of memory.look(child, order)) {
      faults.push(minorFaults);
      context.sample({
        data: TITLES[kind],
        round: round + 1,
        process: child.name,
        order: order.pattern ?? 'sequential',
        ...(typeof minorFaults === 'number' ? { 'minor faults of the step': minorFaults } : {}),
        ...(elapsedNs === undefined ? {} : { 'time of the step (ns)': elapsedNs }),
      });
    }
  }
  return sum(faults);
}

function pssOf(observation: Observation, { regions }: Memory): Figure {
  return sum(regions.map(({ name }) => sumOfTree(observation, 'Pss', name)));
}

/** The parent has every page still: one that a child has for itself is a copy. */
function copiesIn({ processes: [, ...children] }: Observation, { regions }: Memory): Figure {
  return sum(children.flatMap((child) => regions.map(({ name }) => regionOf(child, name)?.counts['exclusive'] ?? 0)));
}

async function tryKind(context: Context, kind: Kind): Promise<Cost> {
  const { machine, params: values, progress } = context;
  progress(`${TITLES[kind]}: writing ${formatBytes(values.size)} in the parent`);
  const memory = await prepare(kind, context);
  const children: Process[] = [];
  for (let child = 0; child < values.children; child++) children.push(await machine.root.fork());

  let seen = await machine.observe(`${kind}, forked`);
  const atFork = pssOf(seen, memory);
  const pssMib = [approximately(atFork) / 1024];
  const faults: Figure[] = [];
  for (let round = 0; round < values.rounds; round++) {
    progress(`${TITLES[kind]}: round ${String(round + 1)} of ${String(values.rounds)}`);
    faults.push(await lookAtAll(context, memory, kind, children, round));
    seen = await machine.observe(`${kind}, round ${String(round + 1)}`);
    pssMib.push(approximately(pssOf(seen, memory)) / 1024);
  }
  await endKind(machine, memory, children);
  const [first = 0, ...later] = faults;
  const growth = difference(pssOf(seen, memory), atFork);
  return { kind, firstFaults: first, laterFaults: sum(later), copiedPages: copiesIn(seen, memory), growth, pssMib };
}

/** Leaves nothing behind for the next. */
async function endKind({ root }: Machine, { regions }: Memory, children: readonly Process[]): Promise<void> {
  for (const child of children) await child.exit();
  for (const region of regions) await root.unmap(region);
}

function findingsOf(costs: readonly Cost[], { rounds }: Params, { faultAroundPages }: HostFacts): Findings {
  const figures = costs.flatMap(({ kind, firstFaults, laterFaults, copiedPages, growth }): NamedFigure[] => [
    { name: `${kind}: pages copied`, unit: 'pages', value: copiedPages, headline: true },
    { name: `${kind}: growth of the sum of Pss`, unit: 'kB', value: growth, headline: false },
    { name: `${kind}: faults of the first round`, unit: 'faults', value: firstFaults, headline: false },
    { name: `${kind}: faults of later rounds`, unit: 'faults', value: laterFaults, headline: false },
  ]);
  const rows = costs.map(({ kind, firstFaults, laterFaults, copiedPages, growth }) => [
    TITLES[kind],
    formatFigure(firstFaults),
    rounds === 1 ? '-' : formatFigure(laterFaults),
    formatFigure(copiedPages),
    formatKb(growth),
  ]);
  return {
    figures,
    tables: [{ title: 'What it costs to look at everything', columns: COLUMNS, rows }],
    plots: [
      {
        title: 'Sum of Pss from the fork on, round by round, MiB',
        xLabel: 'round',
        yLabel: 'MiB',
        x: Array.from({ length: rounds + 1 }, (_, round) => round),
        series: costs.map(({ kind, pssMib }) => ({ name: kind, y: pssMib })),
      },
    ],
    notes: [
      'Copied: pages that a child has for itself alone. Growth: of the sum of Pss since the fork, which the kernel rounds ' +
        'to whole kB for each process. Faults on shared memory and files, whose page tables fork has not copied, map ' +
        `what is there already, ${String(faultAroundPages)} pages at a time.`,
    ],
  };
}

const COLUMNS = ['what all children look at', 'faults', 'later', 'pages copied', 'growth'];

async function program(context: Context): Promise<Findings> {
  const costs: Cost[] = [];
  for (const kind of KINDS) costs.push(await tryKind(context, kind));
  return findingsOf(costs, context.params, context.machine.facts);
}

/** What one can work out on paper. A program that writes where it should read is found here: the model goes with it. */
function checkByHand(findings: Findings, values: Params, facts: HostFacts): Check[] {
  const { children, size } = values;
  const unit = facts.pageSizeBytes;
  const [heads, table] = [children * headPages(values, unit), children * tablePages(values, unit)];
  // Each fault maps an aligned window of pages that are all there, in whichever order they are read [do_fault_around].
  const windows = children * Math.ceil(size / unit / facts.faultAroundPages);
  const expected: [Kind, copied: number, faults: number][] = [
    ['data', 0, 0],
    ['shared data', 0, windows],
    ['mapped file', 0, windows],
    ['counts inside', heads, heads],
    ['counts apart', table, table],
  ];
  return expected.flatMap(([kind, copied, faults]) =>
    (
      [
        ['pages copied', 'pages', copied],
        ['faults of the first round', 'faults', faults],
        ['faults of later rounds', 'faults', 0],
      ] as const
    ).map(([what, figureUnit, value]) => {
      const name = `${kind}: ${what}`;
      return check(`${name}, by hand`, figureUnit, 'anchor', value, findFigure(findings, name));
    }),
  );
}

function concludeFrom(findings: Findings, { children }: Params): Conclusion {
  const copies = (kind: Kind): string => {
    const growth = findFigure(findings, `${kind}: growth of the sum of Pss`);
    return formatBytes(Math.round(approximately(growth) / 1024) * 2 ** 20);
  };
  const who = children === 1 ? '1 child' : `${String(children)} children`;
  return {
    outcome: 'holds only if',
    inShort:
      `Reading copies nothing, however often and in whatever order; but objects that count who looks at them are ` +
      `written by being read, and ${copies('counts inside')} were copied for ${who}. Keep data in arrays, bytes or ` +
      `mmap, or the counts apart (${copies('counts apart')}); gc.freeze() does not help against reading.`,
  };
}

export const readOnly = defineExperiment({
  name: 'read-only',
  title: 'Does data that children only read cost nothing in them?',
  claim: {
    text: 'with copy-on-write fork, data that is never altered costs nothing in the children',
    source: 'https://stackoverflow.com/questions/10721915',
  },
  params,

  needs(values, facts) {
    const { size, object, children } = values;
    const unit = facts.pageSizeBytes;
    requireWholePages('size', size, unit);
    if (unit % object !== 0 && object % unit !== 0) {
      throw new RangeError(
        `object must divide the page size, ${String(unit)}, or be a multiple of it, so that every page or every ` +
          `n-th begins with an object; not ${String(object)}`,
      );
    }
    if (size % object !== 0) {
      throw new RangeError(`size must be a multiple of object, ${String(object)}, so that objects fill it`);
    }
    const copies = Math.max(headPages(values, unit), tablePages(values, unit));
    // The file is there to the end.
    return { memoryBytes: 2 * size + (children + 1) * copies * unit };
  },

  run: program,

  measure({ findings, params: values, machine }) {
    const checks = checkByHand(findings, values, machine.facts);
    return Promise.resolve({ figures: [], tables: [], plots: [], notes: [], checks });
  },

  conclude(findings, agreed, values) {
    if (!agreed) return { outcome: 'undecided', inShort: 'Prediction and measurement differ; see the checks.' };
    return concludeFrom(findings, values);
  },
});
