/** Why does fork() say ENOMEM while half of the memory is free? Today's default rule, to the page. */
import { SystemError } from '../errors.js';
import type { Machine, Process } from '../machine/machine.js';
import type { Figure } from '../schema/figure.js';
import type { HostFacts } from '../schema/facts.js';
import type { Findings, NamedFigure, Plot } from '../schema/result.js';
import type { Failure } from '../schema/step.js';
import { formatBytes, formatCount } from '../schema/units.js';
import { defineExperiment } from './define.js';

/** How a fork came out; 'uncertain' only on the model, where the kernel's counter is not exact. */
type Attempt = { result: 'forks' | 'uncertain' } | { result: 'refused'; failure: Failure };

/** How a layout of memory is made in the root before it forks, and taken away after it. */
type Layout = (root: Process) => Promise<(() => Promise<void>)[]>;

/** Forks once, then takes the child away again. */
async function attemptFork(machine: Machine): Promise<Attempt> {
  const outcome = await machine.root.tryFork();
  if ('refused' in outcome) return { result: 'refused', failure: outcome.refused };
  const uncertain = machine.trace.at(-1)?.outcome.uncertain !== undefined;
  await outcome.kill();
  return { result: uncertain ? 'uncertain' : 'forks' };
}

async function attempt(machine: Machine, layout: Layout): Promise<Attempt> {
  let undo: (() => Promise<void>)[] = [];
  try {
    undo = await layout(machine.root);
    return await attemptFork(machine);
  } catch (error) {
    // In strict mode the mapping itself may be what is refused.
    if (error instanceof SystemError && error.code === 'ENOMEM') {
      return { result: 'refused', failure: error.detail ?? { code: error.code, syscall: error.syscall } };
    }
    throw error;
  } finally {
    for (const step of undo) await step();
  }
}

/** One VMA of `pages` pages, made by mremap: each of the two steps is judged alone, so both are granted. */
function oneVma(pages: number, dontforkPages = 0): Layout {
  return async (root) => {
    const region = await root.map({ pages: Math.ceil(pages / 2) });
    const undo = [() => root.unmap(region)];
    try {
      if (pages > 1) await root.grow(region, pages);
      if (dontforkPages > 0) {
        await root.advise(region, 'dontfork', { first: pages - dontforkPages, pages: dontforkPages });
      }
      return undo;
    } catch (error) {
      await root.unmap(region);
      throw error;
    }
  };
}

function twoVmas(pages: number): Layout {
  return async (root) => {
    const first = await root.map({ pages: Math.floor(pages / 2) });
    const second = await root.map({ pages: Math.ceil(pages / 2) });
    return [() => root.unmap(first), () => root.unmap(second)];
  };
}

function noreserve(pages: number): Layout {
  return async (root) => {
    const region = await root.map({ pages, noreserve: true });
    return [() => root.unmap(region)];
  };
}

/** The most pages that fork, found by bisection between one that does and one that does not. */
async function bisect(machine: Machine, high: number, uncertainForks: boolean, tried: number[]): Promise<number> {
  let [forks, fails] = [1, high];
  while (fails - forks > 1) {
    const middle = Math.floor((forks + fails) / 2);
    tried.push(middle);
    const { result } = await attempt(machine, oneVma(middle));
    if (result === 'forks' || (result === 'uncertain' && uncertainForks)) forks = middle;
    else fails = middle;
  }
  return forks;
}

/** Pages beyond which no fork can succeed, or undefined where the commit rules never refuse. */
function hopelessPages(facts: HostFacts): number | undefined {
  switch (facts.overcommitMode) {
    case 0:
      return 2 * (facts.memTotalPages + facts.swapTotalPages);
    case 1:
      return undefined;
    case 2:
      return facts.commitLimitPages + 1;
  }
}

/** @param tried Receives the page counts of the attempts. */
async function findThreshold(machine: Machine, tried: number[]): Promise<Figure> {
  const high = hopelessPages(machine.facts);
  if (high === undefined) return { unknown: 'vm.overcommit_memory is 1: the commit rules refuse no fork' };
  tried.push(high);
  const { result } = await attempt(machine, oneVma(high));
  if (result !== 'refused') return { unknown: `a fork with ${formatCount(high)} pages succeeded` };
  const sure = await bisect(machine, high, false, tried);
  // Nothing is uncertain to the kernel, nor to the model in the default mode: then once is enough.
  const doubted = machine.trace.some(({ outcome }) => outcome.uncertain !== undefined);
  const possible = doubted ? await bisect(machine, high, true, []) : sure;
  const why = 'the kernel judges by a per-CPU counter that may lag by a batch on each CPU (MODEL.md rule 14)';
  return sure === possible ? sure : { min: sure, max: possible, why };
}

function describe(result: Attempt): string {
  return result.result === 'refused' ? `${result.failure.syscall}: ${result.failure.code}` : result.result;
}

function asFigure(name: string, attempted: Attempt): NamedFigure {
  if (attempted.result === 'uncertain')
    return { name, unit: 'forks', value: { min: 0, max: 1, why: 'uncertain' }, headline: false };
  return { name, unit: 'forks', value: attempted.result === 'forks' ? 1 : 0, headline: false };
}

type Layouts = [name: string, layout: Layout][];

/** Around RAM plus swap: what the heuristic rule looks at is the one VMA. */
function heuristicLayouts(edge: number): Layouts {
  return [
    [`one VMA of ${formatCount(edge)} pages`, oneVma(edge)],
    ['one VMA, one page more', oneVma(edge + 1)],
    ['as much, in two VMAs', twoVmas(edge + 1)],
    ['as much, one page of it MADV_DONTFORK', oneVma(edge + 1, 1)],
    ['as much, MAP_NORESERVE', noreserve(edge + 1)],
  ];
}

/** Strict overcommit looks at the sum, of which parent and child hold one half each. */
function strictLayouts(halfPages: number): Layouts {
  const [less, more] = [Math.floor(halfPages * 0.8), Math.floor(halfPages * 1.2)];
  return [
    [`one VMA of ${formatCount(less)} pages`, oneVma(less)],
    [`one VMA of ${formatCount(more)} pages`, oneVma(more)],
    ['as much, in two VMAs', twoVmas(more)],
    ['as much, half of it MADV_DONTFORK', oneVma(more, Math.floor(more / 2))],
    ['as much, MAP_NORESERVE', noreserve(more)],
  ];
}

function layoutsFor(facts: HostFacts): Layouts {
  if (facts.overcommitMode === 2) return strictLayouts((facts.commitLimitPages - facts.committedPages) / 2);
  return heuristicLayouts(facts.memTotalPages + facts.swapTotalPages);
}

function plotAttempts(tried: readonly number[], facts: HostFacts): Plot[] {
  if (tried.length === 0) return [];
  const gib = (pages: number): number => (pages * facts.pageSizeBytes) / 2 ** 30;
  const memory = facts.memTotalPages + facts.swapTotalPages;
  return [
    {
      title: 'The search: GiB of the one VMA at each attempt',
      xLabel: 'attempt',
      yLabel: 'GiB',
      x: tried.map((_, index) => index + 1),
      series: [
        { name: 'RAM plus swap', y: tried.map(() => gib(memory)) },
        { name: 'tried', y: tried.map(gib) },
      ],
    },
  ];
}

const MODE_NAMES = ['0 (heuristic, the default)', '1 (always)', '2 (never, strict)'] as const;

export const enomem = defineExperiment({
  name: 'enomem',
  title: 'At how many pages does fork() start to say "Cannot allocate memory"?',
  claim: {
    text: 'fork duplicates the whole process, so a big parent gets OSError: [Errno 12] Cannot allocate memory',
    source: 'https://stackoverflow.com/questions/42584525',
  },
  params: {
    mode: {
      type: 'choice',
      default: 'heuristic',
      choices: ['heuristic'],
      describe: "the host's own overcommit mode; nothing is changed",
    },
  },
  needs: () => ({ memoryBytes: 0 }),

  async run({ machine, progress, sample }): Promise<Findings> {
    const { facts } = machine;
    progress('searching for the page count at which fork starts to fail');
    const tried: number[] = [];
    const threshold = await findThreshold(machine, tried);
    progress('forking with other layouts of the same amount');
    const figures: NamedFigure[] = [
      { name: 'largest VMA that forks', unit: 'pages', value: threshold, headline: true },
    ];
    const rows: (string | number)[][] = [];
    const notes: string[] = [];
    for (const [name, layout] of layoutsFor(facts)) {
      const attempted = await attempt(machine, layout);
      figures.push(asFigure(name, attempted));
      rows.push([name, describe(attempted)]);
      sample({ layout: name, result: describe(attempted) });
      const why = attempted.result === 'refused' ? attempted.failure.why : undefined;
      if (why !== undefined) notes.push(`Why: ${why}`);
    }
    notes.push(`vm.overcommit_memory is ${MODE_NAMES[facts.overcommitMode]}. No page of these regions was touched.`);
    return {
      figures,
      tables: [{ title: 'What forks', columns: ['memory of the parent', 'fork'], rows }],
      plots: plotAttempts(tried, facts),
      notes,
    };
  },

  conclude(findings, agreed, _params, facts) {
    const threshold = findings.figures[0]?.value;
    if (!agreed) return { outcome: 'undecided', inShort: 'Prediction and measurement differ; see the checks.' };
    if (facts.overcommitMode === 1) {
      return { outcome: 'refuted', inShort: 'With vm.overcommit_memory=1 no amount of memory makes fork say ENOMEM.' };
    }
    if (facts.overcommitMode === 2 || typeof threshold !== 'number') {
      return {
        outcome: 'holds only if',
        inShort: 'Under strict overcommit fork fails once the promised memory would pass CommitLimit.',
      };
    }
    const size = formatBytes(threshold * facts.pageSizeBytes);
    return {
      outcome: 'holds only if',
      inShort:
        `By today's default rule fork says ENOMEM only if one single VMA exceeds RAM plus swap (${size} here), ` +
        "however much memory is free. The article's own failure needs strict overcommit, or a kernel before 5.2.",
    };
  },
});
