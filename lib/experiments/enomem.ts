/**
 * Why does fork() say ENOMEM while half of the memory is free? In the system's own overcommit mode, to the page, or
 * (mode=strict) in strict overcommit, set for the while.
 */
import type { HostFacts } from '../schema/facts.js';
import type { Findings, NamedFigure, Plot } from '../schema/result.js';
import { formatBytes, formatCount } from '../schema/units.js';
import { defineExperiment } from './define.js';
import type { Conclusion, RunContext } from './define.js';
import { concludeStrict, runStrict, strictNeeds, strictParams } from './enomem-strict.js';
import type { StrictParams } from './enomem-strict.js';
import { attempt, findThreshold, hopelessStrictPages, oneVma } from './fork-attempts.js';
import type { Attempt, Layout } from './fork-attempts.js';

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

/** Pages beyond which no fork can succeed, or undefined where the commit rules never refuse. */
function hopelessPages(facts: HostFacts): number | undefined {
  switch (facts.overcommitMode) {
    case 0:
      return 2 * (facts.memTotalPages + facts.swapTotalPages);
    case 1:
      return undefined;
    case 2:
      return hopelessStrictPages(facts);
  }
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

/** In the mode that the system is in, without changing anything. */
async function runAsItIs({ machine, progress, sample }: Pick<RunContext, 'machine' | 'progress' | 'sample'>) {
  const { facts } = machine;
  progress('searching for the page count at which fork starts to fail');
  const tried: number[] = [];
  const hopeless = hopelessPages(facts);
  const threshold =
    hopeless === undefined
      ? { unknown: 'vm.overcommit_memory is 1: the commit rules refuse no fork' }
      : await findThreshold(machine, hopeless, tried);
  progress('forking with other layouts of the same amount');
  const figures: NamedFigure[] = [{ name: 'largest VMA that forks', unit: 'pages', value: threshold, headline: true }];
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
}

function concludeAsItIs(findings: Findings, facts: HostFacts): Conclusion {
  const threshold = findings.figures[0]?.value;
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
}

/**
 * @throws RangeError for parameters of mode=strict alone. The others have names that other experiments have as well, and
 * who gives a size to several at once (cowlab run enomem cow-growth) means those that have a use for it.
 */
function requireNoneOf(params: StrictParams): void {
  for (const name of ['limit', 'ratio', 'find', 'touch'] as const) {
    if (params[name] === strictParams[name].default) continue;
    throw new RangeError(`${name} is for mode=strict: give both, or neither`);
  }
}

export const enomem = defineExperiment({
  name: 'enomem',
  title: 'When does fork() start to say "Cannot allocate memory"?',
  claim: {
    text: 'fork duplicates the whole process, so a big parent gets OSError: [Errno 12] Cannot allocate memory',
    source: 'https://stackoverflow.com/questions/42584525',
  },
  params: {
    mode: {
      type: 'choice',
      default: 'heuristic',
      choices: ['heuristic', 'strict'],
      describe: "heuristic: the system's own overcommit mode, nothing is changed; strict: vm.overcommit_memory=2",
    },
    ...strictParams,
  },

  needs(params, facts) {
    if (params.mode === 'strict') return strictNeeds(params, facts);
    requireNoneOf(params);
    return { memoryBytes: 0 };
  },

  run(context): Promise<Findings> {
    return context.params.mode === 'strict' ? runStrict(context) : runAsItIs(context);
  },

  conclude(findings, agreed, params, facts) {
    if (!agreed) return { outcome: 'undecided', inShort: 'Prediction and measurement differ; see the checks.' };
    return params.mode === 'strict' ? concludeStrict(findings, params) : concludeAsItIs(findings, facts);
  },
});
