/** How long does a fork take, and does that depend on the size of the memory, or on what kind of memory it is? */
import { linearRegression, median, medianAbsoluteDeviation } from 'simple-statistics';
import { createMemfd } from '../api/file-object.js';
import type { FileObject } from '../api/file-object.js';
import { fork } from '../api/forked-process.js';
import type { ForkedProcess, ForkedRegion } from '../api/forked-process.js';
import { check } from '../machine/compare.js';
import type { MemoryObject, Process, Region } from '../machine/machine.js';
import { readStatus } from '../proc/status.js';
import type { HostFacts } from '../schema/facts.js';
import type { Figure } from '../schema/figure.js';
import type { Check, Findings, NamedFigure, Plot, Table } from '../schema/result.js';
import type { ProcessObservation } from '../schema/step.js';
import { formatBytes } from '../schema/units.js';
import { defineExperiment, requireWholePages } from './define.js';
import type { Conclusion, MeasureContext, Measurement, ParamsOf, RunContext } from './define.js';
import { tablesKb } from './page-tables.js';
import { difference, findFigure, formatFigure, formatKb, presentPages, regionOf, sumOfTree } from './tree-figures.js';

const params = {
  size: {
    type: 'size',
    default: 128 * 2 ** 20,
    min: 4 * 65_536,
    max: 2 ** 40,
    describe: 'memory of each kind, at most',
  },
  rounds: { type: 'integer', default: 15, min: 1, max: 1000, describe: 'forks of each kind at each size' },
} as const;
type Params = ParamsOf<typeof params>;

/** How much of the memory is there, beside none of it, which leaves the fork of the process itself. */
const SHARES = [1 / 4, 1 / 2, 1];

const KINDS = ['private', 'huge', 'shared', 'file', 'dontfork', 'untouched'] as const;
type Kind = (typeof KINDS)[number];

/** Those that are to be had: not every host gives huge pages. */
function kindsOf({ noHugePages }: HostFacts): Kind[] {
  return KINDS.filter((kind) => kind !== 'huge' || noHugePages === undefined);
}

const TITLES: Record<Kind, string> = {
  private: 'private',
  huge: 'huge pages',
  shared: 'shared (memfd)',
  file: 'file, only read',
  dontfork: 'DONTFORK',
  untouched: 'never touched',
};

/** How the parent touches memory of a kind, the whole of it. */
const TOUCHES: Record<Kind, 'write' | 'read' | undefined> = {
  private: 'write',
  huge: 'write',
  shared: 'write',
  // Which is there by then: it is the memfd that was written as shared memory, mapped privately.
  file: 'read',
  dontfork: 'write',
  untouched: undefined,
};

function nameOf(kind: Kind, what: string): string {
  return `${TITLES[kind]}: ${what}`;
}

/** What a fork has done with memory of one kind. */
interface Handed {
  kind: Kind;
  /** Pages that the parent has when it forks. */
  had: Figure;
  /** Page table entries of the child, before it has touched anything. */
  entries: Figure;
  /** Growth of the sum of Pss by the fork, in kB. */
  copied: Figure;
}

function mapKind(root: Process, pages: number, object: MemoryObject, kind: Kind): Promise<Region> {
  switch (kind) {
    case 'shared':
      return root.map({ pages, sharing: 'shared', backing: object });
    case 'file':
      return root.map({ pages, backing: object });
    default:
      return root.map({ pages, onFork: kind === 'dontfork' ? 'dontfork' : 'copy', hugePages: kind === 'huge' });
  }
}

/** Page table entries that a process has for a region, in tables of any level: one for a huge page. */
function entriesOf(
  process: ProcessObservation | undefined,
  region: string,
  { pageSizeBytes, pagesPerTable }: HostFacts,
) {
  const present = presentPages(process, region);
  const hugeKb = regionOf(process, region)?.smapsKb['AnonHugePages'] ?? 0;
  if (typeof present !== 'number' || typeof hugeKb !== 'number') return { unknown: 'smaps or pagemap do not tell' };
  const hugePages = (hugeKb * 1024) / pageSizeBytes;
  return present - hugePages + hugePages / pagesPerTable;
}

async function handOver(context: RunContext<typeof params>, object: MemoryObject, kind: Kind): Promise<Handed> {
  const { machine, params: values } = context;
  const { root, facts } = machine;
  context.progress(`${TITLES[kind]}: what the child gets`);
  const region = await mapKind(root, values.size / facts.pageSizeBytes, object, kind);
  const touch = TOUCHES[kind];
  if (touch) await root[touch](region);
  const before = await machine.observe(nameOf(kind, 'before the fork'));
  const child = await root.fork();
  const after = await machine.observe(nameOf(kind, 'forked'));
  await child.exit();
  await root.unmap(region);
  return {
    kind,
    had: presentPages(before.processes[0], region.name),
    entries: entriesOf(after.processes[1], region.name, facts),
    copied: difference(sumOfTree(after, 'Pss', region.name), sumOfTree(before, 'Pss', region.name)),
  };
}

async function program(context: RunContext<typeof params>): Promise<Findings> {
  const { machine, params: values } = context;
  const object = await machine.createMemfd(values.size / machine.facts.pageSizeBytes);
  const all: Handed[] = [];
  for (const kind of kindsOf(machine.facts)) all.push(await handOver(context, object, kind));
  return {
    figures: all.flatMap(({ kind, entries, copied }): NamedFigure[] => [
      { name: nameOf(kind, 'page table entries copied'), unit: 'entries', value: entries, headline: true },
      { name: nameOf(kind, 'memory copied'), unit: 'kB', value: copied, headline: false },
    ]),
    tables: [
      {
        title: `What a fork does with ${formatBytes(values.size)}`,
        columns: ['memory', 'pages of the parent', 'entries copied', 'memory copied'],
        rows: all.map(({ kind, had, entries, copied }) => [
          TITLES[kind],
          formatFigure(had),
          formatFigure(entries),
          formatKb(copied),
        ]),
      },
    ],
    plots: [],
    notes: [
      'The parent has written all that is not a file or never touched. All but shared memory is private, huge pages too. Entries: of page ' +
        'tables, for pages that the child has before it has touched any; a huge page has one.',
    ],
  };
}

/** A process that forks, with memory of one kind. */
interface Parent {
  kind: Kind;
  process: ForkedProcess;
  /** Nanoseconds of each fork, by the size of the memory. */
  times: Map<number, number[]>;
}

/** Maps memory of the kind, and touches it. */
async function fill({ kind, process }: Parent, pages: number, object: FileObject): Promise<ForkedRegion> {
  const sharing = kind === 'shared' ? 'shared' : 'private';
  const hugePages = kind === 'huge';
  const region = await process.map({
    pages,
    sharing,
    hugePages,
    ...(['shared', 'file'].includes(kind) ? { object } : {}),
  });
  if (kind === 'dontfork') await process.advise(region, 'dontfork');
  const touch = TOUCHES[kind];
  if (touch) await process[touch](region);
  return region;
}

/** Page tables of a child of this parent, in kB. */
async function childTablesKb(parent: ForkedProcess): Promise<number> {
  const child = await parent.fork();
  const { fieldsKb } = readStatus(child.pid);
  await child.exit();
  return fieldsKb['VmPTE'] ?? NaN;
}

/** Page tables that the child has for the region: by how many fewer there are if it does not get the region. */
async function tablesOfRegion(process: ForkedProcess, region: ForkedRegion): Promise<number> {
  const withIt = await childTablesKb(process);
  await process.advise(region, 'dontfork');
  return withIt - (await childTablesKb(process));
}

/** What is exact beside the times: the page tables that were copied. */
async function checkTables({ kind, process }: Parent, region: ForkedRegion, pageSizeBytes: number): Promise<Check> {
  const { address, pages } = process.placement(region);
  const why = 'tables at the ends and above may be those of neighbours too';
  // A huge page has a table too, set aside for when it is split [pgtable_trans_huge_deposit].
  const hasTables = kind === 'private' || kind === 'huge';
  const expected = hasTables ? { ...tablesKb(address, pages, pageSizeBytes), why } : 0;
  const measured = await tablesOfRegion(process, region);
  const name = nameOf(kind, 'page tables of the child (VmPTE)');
  return check(name, 'kB', hasTables ? 'bound' : 'anchor', expected, measured);
}

/** Forks of all kinds with so many pages, in turns, so that what disturbs one disturbs the others. */
async function timeForks(
  { params: values, sample }: MeasureContext<typeof params>,
  parents: readonly Parent[],
  pages: number,
) {
  for (const { times } of parents) times.set(pages, []);
  for (let round = 1; round <= values.rounds; round++) {
    for (const { kind, process, times } of parents) {
      const child = await process.fork();
      times.get(pages)?.push(child.forkNs);
      sample({ memory: TITLES[kind], pages, round, 'fork (ns)': child.forkNs });
      await child.exit();
    }
  }
}

/** The same, with the memory there; and the page tables that were copied, where all of it is. */
async function timeFilled(context: MeasureContext<typeof params>, parents: readonly Parent[], pages: number) {
  const { pageSizeBytes } = context.machine.facts;
  const size = pages * pageSizeBytes;
  context.progress(`forking with ${formatBytes(size)} of each kind`);
  const object = createMemfd(pages);
  const close = context.closeLater(() => {
    object.close();
  });
  const filled: [Parent, ForkedRegion][] = [];
  for (const parent of parents) filled.push([parent, await fill(parent, pages, object)]);
  await timeForks(context, parents, pages);
  const checks: Check[] = [];
  for (const [parent, region] of filled) {
    if (size === context.params.size) checks.push(await checkTables(parent, region, pageSizeBytes));
    await parent.process.unmap(region);
  }
  await close();
  return checks;
}

/** Median and median absolute deviation, in milliseconds. */
function showTimes(times: readonly number[]): string {
  return [median, medianAbsoluteDeviation].map((figure) => (figure([...times]) / 1e6).toFixed(2)).join(' ± ');
}

function timesTable(parents: readonly Parent[], { rounds }: Params, pageSizeBytes: number): Table {
  const sizes = [...(parents[0]?.times.keys() ?? [])];
  return {
    title: `Time of the fork call, ms: median of ${String(rounds)} ± median absolute deviation`,
    columns: ['memory', ...sizes.map((pages) => formatBytes(pages * pageSizeBytes))],
    rows: parents.map(({ kind, times }) => [TITLES[kind], ...[...times.values()].map(showTimes)]),
  };
}

function timesPlot(parents: readonly Parent[], pageSizeBytes: number): Plot {
  const sizes = [...(parents[0]?.times.keys() ?? [])];
  return {
    title: 'Time of the fork call, ms (measured, not predicted)',
    xLabel: 'memory, MiB',
    yLabel: 'ms',
    x: sizes.map((pages) => (pages * pageSizeBytes) / 2 ** 20),
    series: parents.map(({ kind, times }) => ({
      name: TITLES[kind],
      y: [...times.values()].map((some) => median(some) / 1e6),
    })),
  };
}

/** The slope of the medians over the sizes, for a page. */
function nsPerPage(parent: Parent): number {
  const points = [...parent.times].map(([pages, times]) => [pages, median(times)]);
  return linearRegression(points).m;
}

/** What is by hand for the modelled part: who gets an entry for each page, and that nothing is copied. */
function checkByHand(findings: Findings, { size }: Params, facts: HostFacts): Check[] {
  const pages = size / facts.pageSizeBytes;
  const single = pages % facts.pagesPerTable;
  const expected: Partial<Record<Kind, number>> = {
    private: pages,
    huge: (pages - single) / facts.pagesPerTable + single,
  };
  return kindsOf(facts).flatMap((kind) => {
    const [entries, copied] = [nameOf(kind, 'page table entries copied'), nameOf(kind, 'memory copied')];
    return [
      check(`${entries}, by hand`, 'entries', 'anchor', expected[kind] ?? 0, findFigure(findings, entries)),
      check(`${copied}, by hand`, 'kB', 'anchor', 0, findFigure(findings, copied)),
    ];
  });
}

const PER_PAGE = 'fork, for each written private page';

async function measure(context: MeasureContext<typeof params>): Promise<Measurement> {
  const { params: values, machine, closeLater, findings } = context;
  const { pageSizeBytes } = machine.facts;
  const parents = kindsOf(machine.facts).map((kind): Parent => {
    const process = fork();
    closeLater(() => process.close());
    return { kind, process, times: new Map() };
  });
  const checks = checkByHand(findings, values, machine.facts);
  context.progress('forking without any memory');
  await timeForks(context, parents, 0);
  for (const share of SHARES) {
    const pages = Math.floor((values.size * share) / pageSizeBytes);
    checks.push(...(await timeFilled(context, parents, pages)));
  }
  const perPage = parents.filter(({ kind }) => kind === 'private').map(nsPerPage);
  return {
    figures: perPage.map((ns) => ({ name: PER_PAGE, unit: 'ns', value: Math.round(ns * 10) / 10, headline: true })),
    tables: [timesTable(parents, values, pageSizeBytes)],
    plots: [timesPlot(parents, pageSizeBytes)],
    notes: [
      'Times are measured without a prediction, and are not judged. With no memory what is left is the fork of the process ' +
        'itself, a copy of Node. For each page: the slope of the medians over the sizes.',
    ],
    checks,
  };
}

function conclude(findings: Findings, agreed: boolean, { size }: Params, facts: HostFacts): Conclusion {
  if (!agreed) return { outcome: 'undecided', inShort: 'Prediction and measurement differ; see the checks.' };
  const ns = findFigure(findings, PER_PAGE);
  const gibMs = typeof ns === 'number' ? ((ns * 2 ** 30) / facts.pageSizeBytes / 1e6).toFixed(1) : undefined;
  const slope = gibMs === undefined ? '' : `, here ${gibMs} ms for each GiB`;
  return {
    outcome: 'holds only if',
    inShort:
      `Only if the memory is private and written: then each page has an entry that is copied${slope}, and no page is; a ` +
      'huge page has one for all its 2 MiB. Of ' +
      `${formatBytes(size)} of shared memory, of a file that is only read, of what DONTFORK keeps from the child, or of ` +
      'memory that was never touched, not one entry is copied.',
  };
}

export const latency = defineExperiment({
  name: 'latency',
  title: 'How long does a fork take, and for which memory?',
  claim: {
    text: 'forking is expensive, since the page table is copied, with a pointer for each page of the process',
    source: 'https://redis.io/topics/latency',
  },
  params,

  needs(values, facts) {
    requireWholePages('size', values.size, facts.pageSizeBytes);
    // What is written has memory of its own, all at once, so that forks can take turns. Two show one memfd, and that of
    // the modelled part is still there.
    const own = kindsOf(facts).filter((kind) => TOUCHES[kind] === 'write').length;
    return { memoryBytes: values.size * (own + 1) };
  },

  run: program,
  measure,
  conclude,
});
