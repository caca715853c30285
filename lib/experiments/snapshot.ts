/** What does a snapshot by fork cost at its peak, if the parent goes on writing: to keys that are alike, or to hot ones? */
import { check } from '../machine/compare.js';
import type { Process, Region } from '../machine/machine.js';
import { sum } from '../schema/figure.js';
import type { Figure } from '../schema/figure.js';
import type { HostFacts } from '../schema/facts.js';
import type { Check, Findings, NamedFigure } from '../schema/result.js';
import { formatBytes, formatCount } from '../schema/units.js';
import { defineExperiment, requireWholePages } from './define.js';
import type { Conclusion, ParamsOf, RunContext } from './define.js';
import { KeyStore, runsOfPages } from './key-writes.js';
import { approximately, difference, findFigure, formatFigure, formatKb, sumOfTree } from './tree-figures.js';

/** The most that a store may hold, since each of its keys has a place in our own memory as well. */
const MOST_KEYS = 2 ** 28;

const params = {
  size: { type: 'size', default: 16 * 2 ** 20, min: 4096, max: 2 ** 36, describe: 'written data of the parent' },
  writes: {
    type: 'integer',
    default: 400,
    min: 1,
    max: 10_000,
    describe: 'key writes while the child lives, at most, in per cent of the pages',
  },
  rounds: { type: 'integer', default: 4, min: 1, max: 8, describe: 'rates; each has half the writes of the next' },
  keys: { type: 'integer', default: 16, min: 1, max: 4096, describe: 'how many keys lie in each page' },
  skew: {
    type: 'integer',
    default: 99,
    min: 1,
    max: 500,
    describe: "exponent of Zipf's law for the skewed keys, in hundredths",
  },
  seed: { type: 'integer', default: 1, min: 0, max: 2 ** 32 - 1, describe: 'of the choice of keys' },
} as const;
type Params = ParamsOf<typeof params>;
type Context = RunContext<typeof params>;

const LAWS = ['uniform', 'skewed'] as const;
type Law = (typeof LAWS)[number];

/** So many key writes, by one law, during one snapshot. */
interface Round {
  law: Law;
  /** In per cent of the pages. */
  rate: number;
  writes: number;
}

/** What one snapshot has cost. */
interface Cost extends Round {
  /** Pages that the writes meet on average, by the formula. */
  expectedPages: number;
  /** Of the parent while the child lives. */
  faults: Figure;
  /** Of the child, which reads everything. */
  readFaults: Figure;
  /** Growth of the sum of Pss from the fork to the peak, in kB. */
  copied: Figure;
  /** The sum of Pss at the peak, in kB. */
  peak: Figure;
  /** Of the parent when it writes everything after the child has ended. */
  laterFaults: Figure;
  /** Growth of the sum of Pss since before the fork, in kB, when it has done so. */
  left: Figure;
}

function pagesOf({ size }: Params, { pageSizeBytes }: HostFacts): number {
  return size / pageSizeBytes;
}

function storeOf(law: Law, values: Params, facts: HostFacts): KeyStore {
  const exponent = law === 'uniform' ? 0 : values.skew / 100;
  return new KeyStore({ pages: pagesOf(values, facts), keysPerPage: values.keys, exponent, seed: values.seed });
}

/** The rates of a law, from the lowest to the highest. */
function roundsOf(law: Law, values: Params, facts: HostFacts): Round[] {
  return Array.from({ length: values.rounds }, (_, index) => {
    const rate = values.writes / 2 ** (values.rounds - 1 - index);
    const writes = Math.round((pagesOf(values, facts) * rate) / 100);
    // No two of eight rates are alike in two digits, since each is half of the next and the last is 1 at least.
    return { law, rate: Number(rate.toFixed(2)), writes };
  });
}

function nameOf({ law, rate }: Pick<Round, 'law' | 'rate'>, what: string): string {
  return `${law} keys, ${String(rate)}%: ${what}`;
}

/** The sum of Pss of the data over the processes that live. */
async function taken({ machine, sample }: Context, round: Round, data: Region, when: string): Promise<Figure> {
  const pss = sumOfTree(await machine.observe(nameOf(round, when)), 'Pss', data.name);
  if (typeof pss === 'number') sample({ keys: round.law, 'writes (%)': round.rate, when, 'sum of Pss (kB)': pss });
  return pss;
}

/**
 * Writes to keys. That a page is written again changes nothing any more, and in which order pages are written neither:
 * so each is written once, in runs, of which each is one step.
 */
async function writeKeys(parent: Process, data: Region, chosen: Uint32Array, pages: number): Promise<Figure> {
  const faults: Figure[] = [];
  for (const run of runsOfPages(chosen, pages)) faults.push((await parent.write(data, run)).minorFaults);
  return sum(faults);
}

/** Fork; the child reads the first half, the parent writes, the child reads the rest and ends, the parent writes all. */
async function snapshotOnce(context: Context, data: Region, store: KeyStore, round: Round): Promise<Cost> {
  const { machine, params: values } = context;
  const { root } = machine;
  const pages = pagesOf(values, machine.facts);
  const half = Math.floor(pages / 2);
  context.progress(nameOf(round, `${formatCount(round.writes)} writes`));
  const before = await taken(context, round, data, 'before the fork');
  const child = await root.fork();
  const forked = await taken(context, round, data, 'forked');
  const read = [await child.read(data, { to: half })];
  const faults = await writeKeys(root, data, store.pagesOfWrites(round.writes), pages);
  read.push(await child.read(data, { from: half }));
  const peak = await taken(context, round, data, 'written');
  await child.exit();
  const { minorFaults: laterFaults } = await root.write(data);
  const after = await taken(context, round, data, 'after the child');
  return {
    ...round,
    expectedPages: store.expectedPages(round.writes),
    faults,
    readFaults: sum(read.map(({ minorFaults }) => minorFaults)),
    copied: difference(peak, forked),
    peak,
    laterFaults,
    left: difference(after, before),
  };
}

async function program(context: Context): Promise<Findings> {
  const { machine, params: values } = context;
  context.progress(`writing ${formatBytes(values.size)} in the parent`);
  const data = await machine.root.map({ size: values.size });
  await machine.root.write(data);
  const costs: Cost[] = [];
  for (const law of LAWS) {
    const store = storeOf(law, values, machine.facts);
    for (const round of roundsOf(law, values, machine.facts)) {
      costs.push(await snapshotOnce(context, data, store, round));
    }
  }
  return findingsOf(costs, values);
}

/** The memory at the peak, as a multiple of the data. */
function multipleOf({ peak }: Cost, { size }: Params): number {
  return (approximately(peak) * 1024) / size;
}

function figuresOf(cost: Cost, { writes }: Params): NamedFigure[] {
  const figure = (what: string, unit: string, value: Figure, headline = false): NamedFigure => {
    return { name: nameOf(cost, what), unit, value, headline };
  };
  return [
    figure('peak', 'kB', cost.peak, cost.rate === writes),
    figure('copied', 'kB', cost.copied),
    figure('faults of the parent', 'faults', cost.faults),
    figure('faults of the child', 'faults', cost.readFaults),
    figure('faults after the child has ended', 'faults', cost.laterFaults),
    figure('taken after the child has ended', 'kB', cost.left),
  ];
}

function findingsOf(costs: readonly Cost[], values: Params): Findings {
  const multiples = (law: Law): number[] =>
    costs.filter((one) => one.law === law).map((one) => multipleOf(one, values));
  return {
    figures: costs.flatMap((cost) => figuresOf(cost, values)),
    tables: [
      {
        title: `Snapshots of ${formatBytes(values.size)}`,
        columns: ['writes', 'keys', 'on average', 'faults', 'copied', 'peak', 'of the data'],
        rows: costs.map((cost) => [
          `${String(cost.rate)}%`,
          cost.law,
          formatCount(Math.round(cost.expectedPages)),
          formatFigure(cost.faults),
          formatKb(cost.copied),
          formatKb(cost.peak),
          `${multipleOf(cost, values).toFixed(2)} x`,
        ]),
      },
    ],
    plots: [
      {
        title: `Memory at the peak, in multiples of the data; the writes double up to ${String(values.writes)}%`,
        xLabel: 'key writes while the child lives, in per cent of the pages',
        yLabel: 'multiples of the data',
        x: costs.filter(({ law }) => law === 'uniform').map(({ rate }) => rate),
        series: LAWS.map((law) => ({ name: law, y: multiples(law) })),
      },
    ],
    notes: [
      'Writes: to keys, while the child lives, in per cent of the pages. On average: pages that so many writes meet, over all ' +
        'seeds. Faults: of the parent, one for each page that these writes did meet. Copied: growth of the sum of Pss ' +
        'since the fork. Peak: that sum.',
    ],
  };
}

/** What the choice of keys alone says: the different pages among its writes are copied once each, and nothing else is. */
function checkByHand(findings: Findings, values: Params, facts: HostFacts): Check[] {
  const pages = pagesOf(values, facts);
  const pageKb = facts.pageSizeBytes / 1024;
  return LAWS.flatMap((law) => {
    const store = storeOf(law, values, facts);
    return roundsOf(law, values, facts).flatMap((round) => {
      const distinct = new Set(store.pagesOfWrites(round.writes)).size;
      // Of a page that two map each has half, which is a whole kB: these sums of Pss lose nothing to rounding.
      const expected: [what: string, unit: string, value: number][] = [
        ['peak', 'kB', (pages + distinct) * pageKb],
        ['copied', 'kB', distinct * pageKb],
        ['faults of the parent', 'faults', distinct],
        ['faults of the child', 'faults', 0],
        ['faults after the child has ended', 'faults', pages - distinct],
        ['taken after the child has ended', 'kB', 0],
      ];
      return expected.map(([what, unit, value]) => {
        const name = nameOf(round, what);
        return check(`${name}, by hand`, unit, 'anchor', value, findFigure(findings, name));
      });
    });
  });
}

function conclude(findings: Findings, agreed: boolean, values: Params, facts: HostFacts): Conclusion {
  if (!agreed) return { outcome: 'undecided', inShort: 'Prediction and measurement differ; see the checks.' };
  const timesAt = (law: Law, rate: number): string => {
    const kb = approximately(findFigure(findings, nameOf({ law, rate }, 'peak')));
    return ((kb * 1024) / values.size).toFixed(2);
  };
  const takenAt = ({ rate }: Round): string =>
    `with ${String(rate)} key writes for 100 pages ${timesAt('uniform', rate)} times the data if keys are uniform, ` +
    `${timesAt('skewed', rate)} times if skewed`;
  const rounds = roundsOf('uniform', values, facts);
  const seen = [...new Set([...rounds.slice(-1), ...rounds.slice(0, 1)])].map(takenAt).join('; ');
  return {
    outcome: 'holds only if',
    inShort:
      'Twice the memory is needed only if nearly every page is written while the child lives, since a page is copied ' +
      `once, however often it is written. The peaks: ${seen}. That the child reads everything costs nothing, ` +
      'nor does what is written when it has ended.',
  };
}

export const snapshot = defineExperiment({
  name: 'snapshot',
  title: 'What does a snapshot by fork cost, while the parent goes on writing?',
  claim: {
    text: 'saving in the background by a fork can use up to 2 times the memory normally used',
    source: 'https://redis.io/docs/latest/operate/oss_and_stack/management/admin/',
  },
  params,

  needs(values, facts) {
    requireWholePages('size', values.size, facts.pageSizeBytes);
    const keys = pagesOf(values, facts) * values.keys;
    if (keys > MOST_KEYS) {
      throw new RangeError(`keys: ${formatCount(keys)} are in the data, and at most ${formatCount(MOST_KEYS)} can be`);
    }
    // A weight of 8 bytes for each key; of each write its page.
    const choice = keys * 8 + ((pagesOf(values, facts) * values.writes) / 100) * 4;
    return { memoryBytes: values.size * 2 + choice };
  },

  run: program,

  measure({ findings, params: values, machine }) {
    const checks = checkByHand(findings, values, machine.facts);
    return Promise.resolve({ figures: [], tables: [], plots: [], notes: [], checks });
  },

  conclude,
});
