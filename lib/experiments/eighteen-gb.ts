/** Do 2 GB and 8 subprocesses need 18 GB? What is promised, what counts twice, and what is really taken. */
import type { Access, Process } from '../machine/machine.js';
import { check } from '../machine/compare.js';
import type { HostFacts } from '../schema/facts.js';
import { isUnknown } from '../schema/figure.js';
import type { Figure } from '../schema/figure.js';
import type { Check, Findings, NamedFigure, Plot } from '../schema/result.js';
import { formatBytes } from '../schema/units.js';
import { defineExperiment, requireWholePages } from './define.js';
import type { Conclusion, ParamsOf, RunContext } from './define.js';
import { faultsOf, rawRows } from './raw-rows.js';
import { copiesInTheEnd, orderParams, share, shareLabel, writerParams, writersAmong } from './shares.js';
import {
  approximately,
  chargedPages,
  difference,
  findFigure,
  formatFigure,
  formatKb,
  sumOfTree,
} from './tree-figures.js';

const GIB = 2 ** 30;
/** The parent of the question. */
const LITERAL_BYTES = 2 * GIB;

const params = {
  size: {
    type: 'size',
    default: LITERAL_BYTES / 16,
    min: 4096,
    max: 2 ** 44,
    describe: 'written data of the parent; the question is about 2GiB, which needs 18 GiB here',
  },
  children: { type: 'integer', default: 8, min: 1, max: 64, describe: 'how many are forked' },
  steps: { type: 'integer', default: 4, min: 1, max: 1000, describe: 'in how many shares the data is written' },
  ...orderParams,
  ...writerParams,
} as const;
type Params = ParamsOf<typeof params>;

/** The tree at one moment; amounts in kB. */
interface Moment {
  label: string;
  /** What its regions are charged in Committed_AS. */
  promised: number;
  rss: Figure;
  pss: Figure;
  /** Memory really taken since the parent had written its data: the growth of the sum of Pss. */
  taken: Figure;
  /** By how much MemAvailable has fallen since then. */
  fallen: Figure;
  faults: Figure;
}

class Ledger {
  readonly moments: Moment[] = [];
  #first: { pss: Figure; available: Figure } | undefined;

  constructor(readonly context: RunContext<typeof params>) {}

  /** @param label What has been done. @param accesses By whom, and what it cost. */
  async take(label: string, accesses: ReadonlyMap<string, Access>): Promise<void> {
    const { machine, sample } = this.context;
    const observation = await machine.observe(label);
    const { availableBytes } = await machine.readMemory();
    const available = typeof availableBytes === 'number' ? availableBytes / 1024 : availableBytes;
    const pss = sumOfTree(observation, 'Pss');
    this.#first ??= { pss, available };
    this.moments.push({
      label,
      promised: (chargedPages(observation) * machine.facts.pageSizeBytes) / 1024,
      rss: sumOfTree(observation, 'Rss'),
      pss,
      taken: difference(pss, this.#first.pss),
      fallen: difference(this.#first.available, available),
      faults: faultsOf(accesses),
    });
    for (const row of rawRows(label, observation, accesses)) sample(row);
  }
}

async function program(context: RunContext<typeof params>): Promise<Findings> {
  const { machine, params: values, progress } = context;
  const { root } = machine;
  const ledger = new Ledger(context);

  progress(`writing ${formatBytes(values.size)} in the parent`);
  const region = await root.map({ size: values.size });
  await ledger.take('written', new Map([[root.name, await root.write(region)]]));

  progress(`forking ${String(values.children)} children`);
  const children: Process[] = [];
  for (let child = 0; child < values.children; child++) children.push(await root.fork());
  await ledger.take('forked', new Map());

  progress('reading everything in each');
  const reads = new Map<string, Access>();
  for (const child of children) reads.set(child.name, await child.read(region));
  await ledger.take('all read', reads);

  const pages = values.size / machine.facts.pageSizeBytes;
  const writers = writersAmong(values, root, children);
  for (let step = 1; step <= values.steps; step++) {
    progress(`writing share ${String(step)} of ${String(values.steps)}`);
    const writes = new Map<string, Access>();
    for (const [index, writer] of writers.entries()) {
      writes.set(writer.name, await writer.write(region, share(values, pages, index, writers.length, step)));
    }
    await ledger.take(shareLabel(step, values.steps), writes);
  }
  return findingsOf(ledger.moments);
}

/** The figures that the claim is about. */
const HEADLINES = new Set([
  'forked: promised',
  'forked: sum of Rss',
  'forked: taken',
  'all read: taken',
  '100%: promised',
  '100%: taken',
]);

function figuresOf({ label, promised, rss, pss, taken, fallen, faults }: Moment): NamedFigure[] {
  const figure = (what: string, unit: string, value: Figure): NamedFigure => {
    const name = `${label}: ${what}`;
    return { name, unit, value, headline: HEADLINES.has(name) };
  };
  return [
    figure('promised', 'kB', promised),
    figure('sum of Rss', 'kB', rss),
    figure('sum of Pss', 'kB', pss),
    figure('taken', 'kB', taken),
    figure('MemAvailable fell by', 'kB', fallen),
    figure('minor faults', 'faults', faults),
  ];
}

function plot(moments: readonly Moment[]): Plot {
  const mib = (kb: (moment: Moment) => Figure): number[] => moments.map((moment) => approximately(kb(moment)) / 1024);
  return {
    title: 'Memory of the process tree, MiB',
    xLabel: 'moment',
    yLabel: 'MiB',
    x: moments.map((_, index) => index),
    series: [
      { name: 'promised', y: mib(({ promised }) => promised) },
      { name: 'Rss', y: mib(({ rss }) => rss) },
      { name: 'Pss', y: mib(({ pss }) => pss) },
    ],
  };
}

function findingsOf(moments: readonly Moment[]): Findings {
  const rows = moments.map(({ label, promised, rss, pss, taken, fallen, faults }) => [
    label,
    formatKb(promised),
    formatKb(rss),
    formatKb(pss),
    formatKb(taken),
    isUnknown(fallen) ? '-' : formatKb(fallen),
    formatFigure(faults),
  ]);
  return {
    figures: moments.flatMap(figuresOf),
    tables: [
      {
        title: 'Share by share, sums over the tree',
        columns: ['moment', 'promised', 'Rss', 'Pss', 'taken', 'MemAvail.', 'faults'],
        rows,
      },
    ],
    plots: [plot(moments)],
    notes: [
      'Promised: commit charge, the private writable memory of all, touched or not. Rss counts a shared page once for ' +
        'each process. Pss divides it among them, so the growth of its sum is what was really taken; the kernel rounds ' +
        'it down for each process. MemAvail.: by how much MemAvailable fell, others on this machine included.',
    ],
  };
}

/** What a sum of Pss may say of an amount: it is rounded down, for each process and (to 2^-12 bytes) for each page. */
function roundedDown(kb: number, { size, children }: Params, pageSizeBytes: number): Figure {
  const lost = (children + 1) * (1 + Math.ceil(size / pageSizeBytes / 2 ** 22));
  return { min: kb - lost, max: kb, why: 'Pss is rounded down to whole kB for each process' };
}

/** What one can work out on paper, and no model is needed for. */
function checkByHand(findings: Findings, values: Params, facts: HostFacts): Check[] {
  const size = values.size / 1024;
  const all = size * (values.children + 1);
  const pss = (kb: number): Figure => roundedDown(kb, values, facts.pageSizeBytes);
  const expected: Record<string, Figure> = {
    'forked: promised': all,
    'forked: sum of Rss': all,
    'forked: sum of Pss': pss(size),
    'all read: sum of Pss': pss(size),
    '100%: promised': all,
    '100%: sum of Pss': pss(size * (1 + copiesInTheEnd(values))),
  };
  return Object.entries(expected).map(([name, value]) =>
    check(`${name}, by hand`, 'kB', 'anchor', value, findFigure(findings, name)),
  );
}

function whenAllIsWritten({ overlap, writer }: Params): string {
  if (overlap === 'disjoint') return 'every page has been written by one of them';
  if (writer === 'parent') return 'the parent has written every page';
  return writer === 'both' ? 'parent and children have all written every page' : 'every child has written every page';
}

function concludeFrom(findings: Findings, values: Params): Conclusion {
  const kb = (name: string): number => approximately(findFigure(findings, name));
  const amounts = [kb('forked: promised'), kb('all read: sum of Pss'), kb('100%: sum of Pss')] as const;
  const [promised, used, written] = amounts.map((amount) => {
    const bytes = amount * 1024 * (LITERAL_BYTES / values.size);
    return `${String(Number((bytes / GIB).toFixed(1)))} GB`;
  });
  const measured = amounts.map((amount) => formatBytes(amount * 1024)).join(', ');
  const scale = values.size === LITERAL_BYTES ? '' : ` (measured with ${formatBytes(values.size)}: ${measured})`;
  const children = values.children === 1 ? '1 child' : `${String(values.children)} children`;
  return {
    outcome: 'holds only if',
    inShort:
      `With 2 GB in the parent and ${children}, ${String(promised)} are promised at the fork, but ${String(used)} ` +
      `used, also while all is read; ${String(written)} only once ${whenAllIsWritten(values)}${scale}. ` +
      'So budget for what is written; the promise matters only under strict overcommit.',
  };
}

/** Why fork would be refused on this host, or undefined. */
function lackingPromise({ size, children }: Params, facts: HostFacts): string | undefined {
  const left = Math.max(0, facts.commitLimitPages - facts.committedPages) * facts.pageSizeBytes;
  if (facts.overcommitMode !== 2 || size * (children + 1) < left) return undefined;
  return (
    `vm.overcommit_memory is 2 (strict) here, and of the ${formatBytes(size * (children + 1))} that fork would promise ` +
    `only ${formatBytes(left)} are left: choose a smaller size, or see \`cowlab explain enomem\``
  );
}

export const eighteenGb = defineExperiment({
  name: 'eighteen-gb',
  title: 'Do 2 GB and 8 subprocesses need 18 GB?',
  claim: {
    text: 'if the parent uses 2 GB and starts 8 subprocesses, 18 GB are needed',
    source: 'https://stackoverflow.com/questions/42584525',
  },
  params,

  needs(values, facts) {
    const unit = facts.pageSizeBytes;
    requireWholePages('size', values.size, unit);
    const writers = values.overlap === 'same' ? 1 : values.children + 1;
    if (values.steps * writers > values.size / unit) {
      throw new RangeError(
        `size is too small: in ${String(values.steps)} steps each writer would write less than a page at a time`,
      );
    }
    const lacking = lackingPromise(values, facts);
    return {
      memoryBytes: values.size * (1 + copiesInTheEnd(values)),
      ...(lacking === undefined ? {} : { lacking }),
    };
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
