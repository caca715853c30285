/** Do a parent of 2 GB and eight subprocesses need 18 GB? What is promised, what is counted, what is used. */
import type { Figure } from '../schema/figure.js';
import type { Findings, NamedFigure } from '../schema/result.js';
import { formatBytes } from '../schema/units.js';
import type { Process } from '../machine/machine.js';
import { defineExperiment } from './define.js';
import type { ParamsOf, RunContext } from './define.js';
import { approximately, chargedPages, difference, formatKb, sumOfTree } from './tree-figures.js';

const params = {
  size: { type: 'size', default: 128 * 2 ** 20, min: 4096, max: 2 ** 44, describe: 'data of the parent; 2GiB in 2017' },
  children: { type: 'integer', default: 8, min: 1, max: 64, describe: 'how many subprocesses' },
  steps: { type: 'integer', default: 4, min: 1, max: 1000, describe: 'in how many shares each child writes all' },
  pattern: {
    type: 'choice',
    default: 'sequential',
    choices: ['sequential', 'random'],
    describe: 'the order in which pages are written',
  },
  seed: { type: 'integer', default: 1, min: 0, max: 2 ** 32 - 1, describe: 'of the random pattern' },
} as const;
type Params = ParamsOf<typeof params>;

/** One row of the table: the tree after some share was written. Sizes in kB. */
interface Moment {
  label: string;
  chargedKb: number;
  rssKb: Figure;
  pssKb: Figure;
  /** How much less is available on the whole machine than before the data was written. */
  fellKb: Figure;
}

const AVAILABLE = 'others on the machine take and free memory too';

async function lookAt(context: RunContext<typeof params>, label: string, before: Figure): Promise<Moment> {
  const { machine, sample } = context;
  const observation = await machine.observe(label);
  const { availableBytes } = await machine.readMemory();
  const fell = difference(before, availableBytes);
  const moment = {
    label,
    chargedKb: (chargedPages(observation) * machine.facts.pageSizeBytes) / 1024,
    rssKb: sumOfTree(observation, 'Rss'),
    pssKb: sumOfTree(observation, 'Pss'),
    fellKb: typeof fell === 'number' ? fell / 1024 : fell,
  };
  const row: Record<string, string | number> = { step: label, 'commit charge (kB)': moment.chargedKb };
  for (const [name, figure] of Object.entries({
    'sum of Rss': moment.rssKb,
    'sum of Pss': moment.pssKb,
    'MemAvailable fell by': moment.fellKb,
  })) {
    if (typeof figure === 'number') row[`${name} (kB)`] = figure;
  }
  sample(row);
  return moment;
}

async function program(context: RunContext<typeof params>): Promise<Findings> {
  const { machine, params: values, progress } = context;
  const { root } = machine;
  const { availableBytes: before } = await machine.readMemory();
  progress(`writing ${formatBytes(values.size)} in the parent`);
  const region = await root.map({ size: values.size });
  await root.write(region);
  const moments = [await lookAt(context, 'before the fork', before)];

  progress(`forking ${String(values.children)} children`);
  const children: Process[] = [];
  for (let child = 0; child < values.children; child++) children.push(await root.fork());
  moments.push(await lookAt(context, '0%', before));

  const pages = values.size / machine.facts.pageSizeBytes;
  const { pattern, seed, steps } = values;
  for (let step = 1; step <= steps; step++) {
    const label = `${String(Math.round((100 * step) / steps))}%`;
    progress(`each child has written ${label}`);
    const [from, to] = [Math.floor(((step - 1) * pages) / steps), Math.floor((step * pages) / steps)];
    for (const child of children) await child.write(region, { pattern, seed, from, to });
    moments.push(await lookAt(context, label, before));
  }
  return findings(moments);
}

function figuresOf({ label, chargedKb, rssKb, pssKb, fellKb }: Moment): NamedFigure[] {
  const when = label.endsWith('%') ? `${label} written` : label;
  const headline = ['0%', '100%'].includes(label);
  return [
    { name: `${when}: commit charge`, unit: 'kB', value: chargedKb, headline: label === '0%' },
    { name: `${when}: sum of Rss`, unit: 'kB', value: rssKb, headline: label === '0%' },
    { name: `${when}: sum of Pss (memory used)`, unit: 'kB', value: pssKb, headline },
    {
      name: `${when}: MemAvailable fell by`,
      unit: 'kB',
      // Not to be judged: whoever else runs here moves it.
      value: typeof fellKb === 'number' ? fellKb : { unknown: AVAILABLE },
      headline: false,
    },
  ];
}

function findings(moments: readonly Moment[]): Findings {
  const mib = (figure: Figure): number => approximately(figure) / 1024;
  return {
    figures: moments.flatMap(figuresOf),
    tables: [
      {
        title: 'As the children write',
        columns: ['written', 'commit charge', 'sum of Rss', 'sum of Pss', 'available fell'],
        rows: moments.map(({ label, chargedKb, rssKb, pssKb, fellKb }) => {
          const fell = typeof fellKb === 'number' ? formatKb(fellKb) : '-';
          return [label, formatKb(chargedKb), formatKb(rssKb), formatKb(pssKb), fell];
        }),
      },
    ],
    plots: [
      {
        title: 'What is promised and what is used, MiB',
        xLabel: 'observation',
        yLabel: 'MiB',
        x: moments.map((_, index) => index),
        series: [
          { name: 'commit charge', y: moments.map(({ chargedKb }) => mib(chargedKb)) },
          { name: 'sum of Pss', y: moments.map(({ pssKb }) => mib(pssKb)) },
        ],
      },
    ],
    notes: [
      'Commit charge is the promise that each process could write all it has; the sum of Pss is what is really used; ' +
        'the sum of Rss counts a page once for each process. MemAvailable is that of the whole machine, for comparison.',
    ],
  };
}

function requireWholePages({ size }: Params, pageSizeBytes: number): void {
  if (size % pageSizeBytes === 0) return;
  throw new RangeError(`size must be a multiple of the page size, ${String(pageSizeBytes)}, not ${String(size)}`);
}

export const eighteenGb = defineExperiment({
  name: 'eighteen-gb',
  title: 'Do a parent of 2 GB and eight subprocesses need 18 GB?',
  claim: {
    text: 'with 2 GB in the parent and 8 subprocesses, you will need 18 GB',
    source: 'https://stackoverflow.com/questions/42584525',
  },
  params,

  needs(values, facts) {
    requireWholePages(values, facts.pageSizeBytes);
    // In the end every process has written everything.
    return { memoryBytes: values.size * (1 + values.children) };
  },

  run: program,

  conclude(result, agreed, { size, children }) {
    if (!agreed) return { outcome: 'undecided', inShort: 'Prediction and measurement differ; see the checks.' };
    const kb = (name: string): string => {
      const value = result.figures.find((figure) => figure.name === name)?.value;
      return typeof value === 'number' ? formatBytes(value * 1024) : 'unknown';
    };
    const processes = String(children + 1);
    return {
      outcome: 'holds only if',
      inShort:
        `${processes} x ${formatBytes(size)} = ${kb('0% written: commit charge')} are promised at the fork, but ` +
        `${kb('0% written: sum of Pss (memory used)')} are used: so much is needed only under strict overcommit, or ` +
        `once every child has written every page (${kb('100% written: sum of Pss (memory used)')}).`,
    };
  },
});
