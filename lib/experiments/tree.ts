/** Who pays for what many inherit: in fans and chains of forks, as one after the other writes, and as some end. */
import { check } from '../machine/compare.js';
import type { Access, Process, Region } from '../machine/machine.js';
import { sum } from '../schema/figure.js';
import type { Figure } from '../schema/figure.js';
import type { HostFacts } from '../schema/facts.js';
import type { Check, Findings, NamedFigure } from '../schema/result.js';
import { formatBytes } from '../schema/units.js';
import { defineExperiment, requireWholePages } from './define.js';
import type { ParamsOf, RunContext } from './define.js';
import { rawRows } from './raw-rows.js';
import { approximately, difference, findFigure, formatFigure, formatKb, regionOf, sumOfTree } from './tree-figures.js';

const params = {
  size: { type: 'size', default: 16 * 2 ** 20, min: 4096, max: 2 ** 44, describe: 'written data of the root' },
  descendants: { type: 'integer', default: 4, min: 2, max: 30, describe: 'processes beside the root, in each tree' },
  first: {
    type: 'choice',
    default: 'root',
    choices: ['root', 'last'],
    describe: 'who writes first: the root, or the process that was forked last',
  },
} as const;
type Params = ParamsOf<typeof params>;
type Context = RunContext<typeof params>;

const SHAPES = ['fan', 'chain'] as const;
type Shape = (typeof SHAPES)[number];

/** What one write of all pages has cost. */
interface Payment {
  tree: Shape;
  who: string;
  when: string;
  faults: Figure;
  /** Growth of the sum of Pss, in kB. */
  copied: Figure;
  /** Pss of the writer after it, in kB. */
  pss: Figure;
}

/** A tree with the same data in every process. */
class Tree {
  readonly payments: Payment[] = [];
  #taken: Figure = 0;

  constructor(
    readonly context: Context,
    readonly shape: Shape,
    readonly region: Region,
    /** In the order of birth, the root first. */
    readonly processes: readonly Process[],
  ) {}

  static async grow(context: Context, shape: Shape): Promise<Tree> {
    const { machine, params: values } = context;
    const { root } = machine;
    const region = await root.map({ size: values.size });
    await root.write(region);
    const processes = [root];
    for (let child = 1; child <= values.descendants; child++) {
      const parent = shape === 'fan' ? root : processes.at(-1);
      processes.push(await (parent ?? root).fork());
    }
    const tree = new Tree(context, shape, region, processes);
    await tree.look('forked');
    return tree;
  }

  /** Observes. @returns By how much the sum of Pss has grown since the last time, and each Pss. */
  async look(label: string, access?: [Process, Access]): Promise<{ grown: Figure; pss: ReadonlyMap<string, Figure> }> {
    const observation = await this.context.machine.observe(`${this.shape}, ${label}`);
    const taken = sumOfTree(observation, 'Pss', this.region.name);
    const grown = difference(taken, this.#taken);
    this.#taken = taken;
    const accesses = new Map(access ? [[access[0].name, access[1]]] : []);
    for (const row of rawRows(`${this.shape}, ${label}`, observation, accesses)) this.context.sample(row);
    const pss = new Map(
      observation.processes.map((process) => [process.process, regionOf(process)?.smapsKb['Pss'] ?? 0]),
    );
    return { grown, pss };
  }

  async pay(process: Process, when: string): Promise<void> {
    const who = this.nameOf(process);
    this.context.progress(`${this.shape}, ${when}: ${who} writes`);
    const access = await process.write(this.region);
    const { grown, pss } = await this.look(`${when}: ${who} has written`, [process, access]);
    const ours = pss.get(process.name) ?? 0;
    this.payments.push({ tree: this.shape, who, when, faults: access.minorFaults, copied: grown, pss: ours });
  }

  nameOf(process: Process): string {
    const index = this.processes.indexOf(process);
    return index === 0 ? 'root' : `process ${String(index)}`;
  }

  async end(): Promise<void> {
    const [root, ...descendants] = this.processes;
    for (const process of descendants.reverse()) if (process.alive) await process.exit();
    await root?.unmap(this.region);
  }
}

/** One after the other writes everything. */
async function allWrite(context: Context, shape: Shape): Promise<Payment[]> {
  const tree = await Tree.grow(context, shape);
  const order = context.params.first === 'root' ? tree.processes : [...tree.processes].reverse();
  for (const process of order) await tree.pay(process, 'all write');
  await tree.end();
  return tree.payments;
}

/** Those between the root and the last of a chain end; then the last writes, ends too, and the root writes. */
async function middleEnds(context: Context): Promise<Payment[]> {
  const tree = await Tree.grow(context, 'chain');
  const { processes } = tree;
  const [root, last] = [processes[0], processes.at(-1)];
  if (!root || !last) throw new Error('a tree has a root and descendants');
  for (const process of processes.slice(1, -1)) await process.exit();
  await tree.look('the middle has ended');
  await tree.pay(last, 'the middle has ended');
  await last.exit();
  await tree.look('the last has ended');
  await tree.pay(root, 'the last has ended');
  await tree.end();
  return tree.payments;
}

async function program(context: Context): Promise<Findings> {
  const payments: Payment[] = [];
  for (const shape of SHAPES) payments.push(...(await allWrite(context, shape)));
  payments.push(...(await middleEnds(context)));
  return findingsOf(payments);
}

function nameOf({ tree, when, who }: Pick<Payment, 'tree' | 'when' | 'who'>, what: string): string {
  return `${tree}, ${when}: ${who}: ${what}`;
}

function findingsOf(payments: readonly Payment[]): Findings {
  const figures = payments.flatMap((payment): NamedFigure[] => [
    { name: nameOf(payment, 'minor faults'), unit: 'faults', value: payment.faults, headline: false },
    { name: nameOf(payment, 'growth of the sum of Pss'), unit: 'kB', value: payment.copied, headline: false },
  ]);
  for (const shape of SHAPES) {
    const written = payments.filter(({ tree, when }) => tree === shape && when === 'all write');
    figures.push({
      name: `${shape}: taken when all have written`,
      unit: 'kB',
      value: sum(written.map(({ copied }) => copied)),
      headline: true,
    });
  }
  return {
    figures,
    tables: [
      {
        title: 'Who pays',
        columns: ['tree', 'when', 'who writes', 'faults', 'copied', 'its Pss'],
        rows: payments.map(({ tree, when, who, faults, copied, pss }) => [
          tree,
          when,
          who,
          formatFigure(faults),
          formatKb(copied),
          formatKb(pss),
        ]),
      },
    ],
    plots: [],
    notes: [
      'Each writes every page once. Copied: growth of the sum of Pss over the tree, which the kernel rounds down to whole ' +
        'kB for each process. A fault that copies nothing makes the page, which nobody else maps any more, writable again.',
    ],
  };
}

/** What one can work out on paper: everybody but the last one to write copies everything. */
function checkByHand(findings: Findings, values: Params, { pageSizeBytes }: HostFacts): Check[] {
  const pages = values.size / pageSizeBytes;
  const [kb, processes] = [values.size / 1024, values.descendants + 1];
  const names = ['root', ...Array.from({ length: values.descendants }, (_, index) => `process ${String(index + 1)}`)];
  const order = values.first === 'root' ? names : names.reverse();
  const expected: [Pick<Payment, 'tree' | 'when' | 'who'>, copies: boolean][] = [
    ...SHAPES.flatMap((tree) =>
      order.map((who, index): (typeof expected)[number] => [{ tree, when: 'all write', who }, index < processes - 1]),
    ),
    [{ tree: 'chain', when: 'the middle has ended', who: `process ${String(values.descendants)}` }, true],
    [{ tree: 'chain', when: 'the last has ended', who: 'root' }, false],
  ];
  // And to 2^-12 bytes for each page.
  const lost = processes * (1 + Math.ceil(pages / 2 ** 22));
  const why = 'Pss is rounded down to whole kB for each process';
  return expected.flatMap(([payment, copies]) => {
    const copied = copies ? kb : 0;
    const range: Figure = { min: copied - lost, max: copied + lost, why };
    const [faults, growth] = [nameOf(payment, 'minor faults'), nameOf(payment, 'growth of the sum of Pss')];
    return [
      check(`${faults}, by hand`, 'faults', 'anchor', pages, findFigure(findings, faults)),
      check(`${growth}, by hand`, 'kB', 'anchor', range, findFigure(findings, growth)),
    ];
  });
}

export const tree = defineExperiment({
  name: 'tree',
  title: 'Who pays for pages that a whole tree of processes inherits?',
  claim: {
    text: 'fork costs nothing but page tables, until someone writes',
    source: 'https://man7.org/linux/man-pages/man2/fork.2.html',
  },
  params,

  needs(values, facts) {
    requireWholePages('size', values.size, facts.pageSizeBytes);
    return { memoryBytes: values.size * (values.descendants + 1) };
  },

  run: program,

  measure({ findings, params: values, machine }) {
    const checks = checkByHand(findings, values, machine.facts);
    return Promise.resolve({ figures: [], tables: [], plots: [], notes: [], checks });
  },

  conclude(findings, agreed, { size, descendants }) {
    if (!agreed) return { outcome: 'undecided', inShort: 'Prediction and measurement differ; see the checks.' };
    const taken = findFigure(findings, 'fan: taken when all have written');
    const mib = formatBytes(Math.round(approximately(taken) / 1024) * 2 ** 20);
    return {
      outcome: 'holds',
      inShort:
        `And then whoever writes pays, be it parent or child: of ${String(descendants + 1)} processes with the same ` +
        `${formatBytes(size)} all copied them but the one that wrote last, ${mib} in all, in a chain as in a fan. That ` +
        'one pays a fault for each page and no memory. Who ends without writing has cost nobody anything.',
    };
  },
});
