/** What does one written byte cost after a fork, where the memory is made of huge pages? */
import { check } from '../machine/compare.js';
import type { Process, Region } from '../machine/machine.js';
import type { Figure } from '../schema/figure.js';
import type { HostFacts } from '../schema/facts.js';
import type { Check, Findings, NamedFigure, Table } from '../schema/result.js';
import type { Observation } from '../schema/step.js';
import { formatBytes } from '../schema/units.js';
import { defineExperiment } from './define.js';
import type { ParamsOf, RunContext } from './define.js';
import { rawRows } from './raw-rows.js';
import { difference, findFigure, formatFigure, formatKb, regionOf, sumOfTree } from './tree-figures.js';

const params = {
  size: { type: 'size', default: 32 * 2 ** 20, min: 2 ** 21, max: 2 ** 44, describe: 'written data of the parent' },
  writer: {
    type: 'choice',
    default: 'child',
    choices: ['child', 'parent'],
    describe: 'who writes while both have the data',
  },
} as const;
type Params = ParamsOf<typeof params>;
type Context = RunContext<typeof params>;

const KINDS = { base: 'base pages', huge: 'huge pages' } as const;
type Kind = keyof typeof KINDS;
const ALL_KINDS = Object.keys(KINDS) as Kind[];

const STEPS = {
  filled: 'parent fills the memory',
  forked: 'fork',
  byte: 'a byte in each 2 MiB',
  rest: 'everything',
  alone: 'child ends, parent writes all',
} as const;
type StepName = keyof typeof STEPS;
const ALL_STEPS = Object.keys(STEPS) as StepName[];

const WHAT = { faults: 'faults', taken: 'kB', huge: 'kB' } as const;

/** What a step has cost, and what is mapped by huge pages after it. */
interface Cost {
  faults: Figure;
  /** Growth of the sum of Pss, in kB. */
  taken: Figure;
  /** AnonHugePages of the one that writes, in kB. */
  huge: Figure;
}

function nameOf(kind: Kind, step: StepName, what: keyof typeof WHAT): string {
  const title = { faults: 'minor faults', taken: 'taken', huge: 'mapped huge' }[what];
  return `${KINDS[kind]}: ${STEPS[step]}: ${title}`;
}

/** One kind of memory, through all steps. */
class Trial {
  readonly costs = new Map<StepName, Cost>();
  #taken: Figure = 0;

  constructor(
    readonly context: Context,
    readonly kind: Kind,
    readonly region: Region,
  ) {}

  /** @param writer Whose huge mappings are looked at. */
  async note(step: StepName, writer: Process, faults: Figure): Promise<void> {
    const { machine, sample } = this.context;
    const label = `${KINDS[this.kind]}: ${STEPS[step]}`;
    const observation = await machine.observe(label);
    for (const row of rawRows(label, observation, new Map())) sample(row);
    const taken = sumOfTree(observation, 'Pss', this.region.name);
    const huge = this.#hugeKb(observation, writer);
    this.costs.set(step, { faults, taken: difference(taken, this.#taken), huge });
    this.#taken = taken;
  }

  #hugeKb({ processes }: Observation, { name }: Process): Figure {
    const seen = regionOf(
      processes.find(({ process }) => process === name),
      this.region.name,
    );
    return seen?.smapsKb['AnonHugePages'] ?? 0;
  }
}

async function tryKind(context: Context, kind: Kind): Promise<Trial> {
  const { machine, params: values, progress } = context;
  const { root, facts } = machine;
  progress(`${KINDS[kind]}: a fork, and writes after it`);
  const region = await root.map({ size: values.size, hugePages: kind === 'huge' });
  const trial = new Trial(context, kind, region);
  await trial.note('filled', root, (await root.write(region)).minorFaults);
  const child = await root.fork();
  const writer = values.writer === 'child' ? child : root;
  await trial.note('forked', writer, 0);
  const blockPages = facts.pagesPerTable;
  const blocks = values.size / facts.pageSizeBytes / blockPages;
  const bytes = await writer.write(region, { pattern: 'stride', stride: blockPages, to: blocks });
  await trial.note('byte', writer, bytes.minorFaults);
  await trial.note('rest', writer, (await writer.write(region)).minorFaults);
  await child.exit();
  await trial.note('alone', root, (await root.write(region)).minorFaults);
  await root.unmap(region);
  return trial;
}

async function program(context: Context): Promise<Findings> {
  const trials: Trial[] = [];
  for (const kind of ALL_KINDS) trials.push(await tryKind(context, kind));
  return {
    figures: trials.flatMap(({ kind, costs }) => figuresOf(kind, costs)),
    tables: trials.map((trial) => tableOf(trial, context.params)),
    plots: [],
    notes: [
      'Faults: minor ones, of the writes. Taken: growth of the sum of Pss of both. Mapped huge: AnonHugePages of the one ' +
        'that writes, which is what it maps by entries of 2 MiB. A fault that takes ' +
        'nothing makes pages writable that nobody else has any more.',
    ],
  };
}

function figuresOf(kind: Kind, costs: ReadonlyMap<StepName, Cost>): NamedFigure[] {
  return [...costs].flatMap(([step, cost]) =>
    (Object.keys(WHAT) as (keyof typeof WHAT)[]).map((what) => ({
      name: nameOf(kind, step, what),
      unit: WHAT[what],
      value: cost[what],
      headline: step === 'byte' && what === 'taken',
    })),
  );
}

function tableOf({ kind, costs }: Trial, { size, writer }: Params): Table {
  return {
    title: `${formatBytes(size)} of ${KINDS[kind]}, the ${writer} writes`,
    columns: ['step', 'faults', 'taken', 'mapped huge'],
    rows: [...costs].map(([step, { faults, taken, huge }]) => [
      STEPS[step],
      formatFigure(faults),
      formatKb(taken),
      formatKb(huge),
    ]),
  };
}

/** What is by hand, for so many pages in so many blocks: exact, as a page that two map has half a page in each Pss. */
function expectedByHand(kind: Kind, { size, writer }: Params, facts: HostFacts): Record<StepName, Cost> {
  const pages = size / facts.pageSizeBytes;
  const blocks = pages / facts.pagesPerTable;
  const [kb, pageKb] = [size / 1024, facts.pageSizeBytes / 1024];
  const huge = kind === 'huge' ? kb : 0;
  const why = 'the processor may hold old translations of single pages of a huge one';
  const own = kind === 'base' ? pages : { min: blocks, max: pages, why };
  return {
    filled: { faults: kind === 'huge' ? blocks : pages, taken: kb, huge },
    forked: { faults: 0, taken: 0, huge },
    byte: { faults: blocks, taken: blocks * pageKb, huge: 0 },
    rest: { faults: pages - blocks, taken: kb - blocks * pageKb, huge: 0 },
    // The writes of the parent have made it all its own; those of the child have left it shared with nobody.
    alone: writer === 'parent' ? { faults: 0, taken: -kb, huge: 0 } : { faults: own, taken: -kb, huge },
  };
}

function checkByHand(findings: Findings, values: Params, facts: HostFacts): Check[] {
  return ALL_KINDS.flatMap((kind) => {
    const expected = expectedByHand(kind, values, facts);
    return ALL_STEPS.flatMap((step) =>
      (Object.keys(WHAT) as (keyof typeof WHAT)[]).map((what) => {
        const name = nameOf(kind, step, what);
        const figure = expected[step][what];
        const basis = typeof figure === 'number' ? 'anchor' : 'bound';
        return check(`${name}, by hand`, WHAT[what], basis, figure, findFigure(findings, name));
      }),
    );
  });
}

/** Whole huge pages only, so that every figure can be worked out. */
function requireWholeBlocks(size: number, { pageSizeBytes, pagesPerTable }: HostFacts): void {
  const block = pageSizeBytes * pagesPerTable;
  if (size % block === 0) return;
  throw new RangeError(
    `size must be a multiple of the size of a huge page, ${formatBytes(block)}, not ${String(size)}`,
  );
}

export const thp = defineExperiment({
  name: 'thp',
  title: 'What does a written byte cost after a fork, if pages are huge?',
  claim: {
    text: 'with transparent huge pages a write after a fork copies 2 MiB, so that a few writes copy nearly everything',
    source: 'https://redis.io/topics/latency',
  },
  params,

  needs(values, facts) {
    requireWholeBlocks(values.size, facts);
    const memoryBytes = values.size * 2;
    return facts.noHugePages === undefined ? { memoryBytes } : { memoryBytes, lacking: facts.noHugePages };
  },

  run: program,

  measure({ findings, params: values, machine }) {
    const checks = checkByHand(findings, values, machine.facts);
    return Promise.resolve({ figures: [], tables: [], plots: [], notes: [], checks });
  },

  conclude(findings, agreed, { size, writer }, { pageSizeBytes, pagesPerTable }) {
    if (!agreed) return { outcome: 'undecided', inShort: 'Prediction and measurement differ; see the checks.' };
    const blocks = size / pageSizeBytes / pagesPerTable;
    const taken = formatKb(findFigure(findings, nameOf('huge', 'byte', 'taken')));
    return {
      outcome: 'refuted',
      inShort:
        `A byte written in each of ${String(blocks)} shared huge pages has copied ${taken}, as with base pages: one page of ` +
        `4 KiB for each, not 2 MiB. What the ${writer} loses is the huge mapping: from then on its page tables have an entry for ` +
        'each 4 KiB, and each page that it writes is a fault of its own, as it always was with base pages. Before Linux 5.8 ' +
        'the claim was true.',
    };
  },
});
