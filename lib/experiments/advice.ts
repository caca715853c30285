/** What does advice to the kernel change about a fork: what is charged, what the child has, and what its writes cost? */
import type { Process, Region } from '../machine/machine.js';
import { whyNoExactSwap } from '../machine/swap.js';
import { MAX_SWAP_PAGES } from '../schema/arguments.js';
import type { Figure } from '../schema/figure.js';
import type { HostFacts } from '../schema/facts.js';
import type { Check, Findings } from '../schema/result.js';
import type { Observation } from '../schema/step.js';
import { formatBytes } from '../schema/units.js';
import { defineExperiment, requireWholePages } from './define.js';
import type { ParamsOf, RunContext } from './define.js';
import { Measures } from './measures.js';
import { checkMergedByHand, describeMerging, mergeAlike } from './merging.js';
import { checkPagedOutByHand, describePaging, pageOutAndFork, swapPagesFor } from './paging-out.js';
import { rawRows } from './raw-rows.js';
import { chargedPages, difference, formatFigure, formatKb, presentPages, sumOfTree } from './tree-figures.js';

const params = {
  size: { type: 'size', default: 16 * 2 ** 20, min: 4096, max: 2 ** 44, describe: 'written data of the parent' },
  ksm: { type: 'boolean', default: false, describe: 'merge equal pages too, by ksmd (--allow-system-changes)' },
  swap: { type: 'boolean', default: false, describe: 'send memory to swap too (--allow-system-changes)' },
} as const;
type Params = ParamsOf<typeof params>;
type Context = RunContext<typeof params>;

/** Given by the parent before the fork, or by the child before it writes. */
const ADVICE = {
  none: { title: 'none', parent: undefined, child: undefined },
  dontfork: { title: 'DONTFORK', parent: 'dontfork', child: undefined },
  wipeonfork: { title: 'WIPEONFORK', parent: 'wipeonfork', child: undefined },
  mergeable: { title: 'MERGEABLE', parent: 'mergeable', child: undefined },
  read: { title: 'child: POPULATE_READ', parent: undefined, child: 'populate-read' },
  write: { title: 'child: POPULATE_WRITE', parent: undefined, child: 'populate-write' },
} as const;
type Kind = keyof typeof ADVICE;

/** A kernel without KSM does not know the advice. */
function kindsFor({ hasKsm }: HostFacts): Kind[] {
  const kinds = Object.keys(ADVICE) as Kind[];
  return hasKsm === false ? kinds.filter((kind) => kind !== 'mergeable') : kinds;
}

const MEASURES = new Measures({
  charged: ['charged by the fork', 'pages'],
  has: ['pages of the child at the fork', 'pages'],
  populated: ['faults of populating', 'faults'],
  faults: ['faults of writing', 'faults'],
  taken: ['taken by the writes of the child', 'kB'],
});
type Key = (typeof MEASURES.keys)[number];
type Measured = Record<Key, Figure>;

/** The child writes everything, if it has it. */
async function childWrites(child: Process, kind: Kind, region: Region): Promise<{ populated: Figure; faults: Figure }> {
  if (!child.regions.has(region)) return { populated: 0, faults: 0 };
  const advice = ADVICE[kind].child;
  const populated = advice ? (await child.advise(region, advice)).minorFaults : 0;
  return { populated, faults: (await child.write(region)).minorFaults };
}

async function tryAdvice({ machine, params: values, progress, sample }: Context, kind: Kind): Promise<Measured> {
  const { root } = machine;
  progress(`advice: ${ADVICE[kind].title}`);
  const observe = async (when: string): Promise<Observation> => {
    const observation = await machine.observe(`${ADVICE[kind].title}: ${when}`);
    for (const row of rawRows(`${ADVICE[kind].title}: ${when}`, observation, new Map())) sample(row);
    return observation;
  };
  const region = await root.map({ size: values.size });
  await root.write(region);
  const advice = ADVICE[kind].parent;
  if (advice) await root.advise(region, advice);
  const before = await observe('before the fork');
  const child = await root.fork();
  const forked = await observe('forked');
  const cost = await childWrites(child, kind, region);
  const written = await observe('the child has written');
  await child.exit();
  await root.unmap(region);
  return {
    charged: chargedPages(forked, region.name) - chargedPages(before, region.name),
    has: presentPages(forked.processes[1], region.name),
    ...cost,
    taken: difference(sumOfTree(written, 'Pss', region.name), sumOfTree(before, 'Pss', region.name)),
  };
}

async function program(context: Context): Promise<Findings> {
  const all: [Kind, Measured][] = [];
  for (const kind of kindsFor(context.machine.facts)) all.push([kind, await tryAdvice(context, kind)]);
  const findings = findingsOf(context, all);
  if (context.params.ksm) return joined(findings, await mergeAlike(context));
  return context.params.swap ? joined(findings, await pageOutAndFork(context)) : findings;
}

function joined(first: Findings, second: Findings): Findings {
  return {
    figures: [...first.figures, ...second.figures],
    tables: [...first.tables, ...second.tables],
    plots: [...first.plots, ...second.plots],
    notes: [...first.notes, ...second.notes],
  };
}

function findingsOf(context: Context, all: readonly [Kind, Measured][]): Findings {
  return {
    figures: all.flatMap(([kind, measured]) =>
      MEASURES.named(ADVICE[kind].title, measured, ADVICE[kind].child ? [] : ['charged', 'taken']),
    ),
    tables: [
      {
        title: `Advice about ${formatBytes(context.params.size)}`,
        columns: ['advice', 'charged', 'child has', 'populating', 'writing', 'taken'],
        rows: all.map(([kind, { charged, has, populated, faults, taken }]) => [
          ADVICE[kind].title,
          formatFigure(charged),
          formatFigure(has),
          formatFigure(populated),
          formatFigure(faults),
          formatKb(taken),
        ]),
      },
    ],
    plots: [],
    notes: [
      'The parent has written all before the fork, and the child writes all after it. Charged: pages that the fork adds to the commit charge. Child has: pages with an entry in its page tables right ' +
        'after the fork. Populating, writing: minor faults. Taken: growth of the sum of Pss since before the fork.',
      ...ksmNotes(context.machine.facts),
    ],
  };
}

/** @throws RangeError for more than half of the largest swap. */
function whyNoSwap({ size }: Params, facts: HostFacts): { lacking?: string } {
  if (swapPagesFor(size / facts.pageSizeBytes) > MAX_SWAP_PAGES) {
    const most = Math.floor((MAX_SWAP_PAGES - 1) / 2) * facts.pageSizeBytes;
    throw new RangeError(`with swap=true size must be at most ${formatBytes(most)}, not ${formatBytes(size)}`);
  }
  const why = whyNoExactSwap(facts);
  return why ? { lacking: why.message } : {};
}

function ksmNotes({ hasKsm, ksmRuns }: HostFacts): string[] {
  if (hasKsm === false) return ['MERGEABLE is left out: this kernel has no KSM (CONFIG_KSM).'];
  if (!ksmRuns) return [];
  return [
    'ksmd runs (/sys/kernel/mm/ksm/run is 1), so nobody knows when pages of MERGEABLE are merged: its figures are not ' +
      'judged, and a run during which ksmd merges or copies is inconclusive.',
  ];
}

function ksmSentence(findings: Findings, merged: boolean, hasKsm: boolean | undefined): string {
  if (merged) return ` ${describeMerging(findings)}`;
  return hasKsm === false ? '' : ' Nor does MERGEABLE: it only lets ksmd merge pages later, if that runs.';
}

/** What one can say beforehand, for so many pages. */
function expectedByHand(pages: number, pageKb: number): Record<Kind, Record<Key, number>> {
  const copied = { charged: pages, has: pages, populated: 0, faults: pages, taken: pages * pageKb };
  return {
    none: copied,
    dontfork: { charged: 0, has: 0, populated: 0, faults: 0, taken: 0 },
    // It has no pages, and gets as many new ones, of zeros, as it would have copied.
    wipeonfork: { ...copied, has: 0 },
    // Nothing merges unless ksmd runs.
    mergeable: copied,
    // All that is there can be read.
    read: copied,
    write: { ...copied, populated: pages, faults: 0 },
  };
}

function checkByHand(findings: Findings, { size }: Params, facts: HostFacts): Check[] {
  const expected = expectedByHand(size / facts.pageSizeBytes, facts.pageSizeBytes / 1024);
  const known = kindsFor(facts).filter((kind) => kind !== 'mergeable' || !facts.ksmRuns);
  // Of a page that two map each has half, which is a whole kB: these sums of Pss lose nothing to rounding.
  return known.flatMap((kind) => MEASURES.checkByHand(ADVICE[kind].title, expected[kind], findings));
}

export const advice = defineExperiment({
  name: 'advice',
  title: 'What does advice (madvise) change about a fork?',
  claim: {
    text: 'MADV_DONTFORK and MADV_WIPEONFORK keep the memory of a parent from its children',
    source: 'https://man7.org/linux/man-pages/man2/madvise.2.html',
  },
  params,

  needs(values, facts) {
    requireWholePages('size', values.size, facts.pageSizeBytes);
    const memoryBytes = values.size * 2;
    if (values.ksm && values.swap) throw new RangeError('choose ksm or swap: merged pages in swap are not modelled');
    if (values.swap) return { memoryBytes, changes: ['swap'], ...whyNoSwap(values, facts) };
    if (!values.ksm) return { memoryBytes };
    if (facts.hasKsm === false) return { memoryBytes, lacking: 'this kernel has no KSM (CONFIG_KSM)' };
    return { memoryBytes, changes: ['ksm'] };
  },

  run: program,

  measure({ findings, params: values, machine }) {
    const { facts } = machine;
    const checks = checkByHand(findings, values, facts);
    if (values.ksm) checks.push(...checkMergedByHand(findings, values.size / facts.pageSizeBytes, facts));
    if (values.swap) checks.push(...checkPagedOutByHand(findings, values.size / facts.pageSizeBytes, facts));
    return Promise.resolve({ figures: [], tables: [], plots: [], notes: [], checks });
  },

  conclude(findings, agreed, { size, ksm, swap }, { hasKsm }) {
    if (!agreed) return { outcome: 'undecided', inShort: 'Prediction and measurement differ; see the checks.' };
    const all = formatBytes(size);
    return {
      outcome: 'holds',
      inShort:
        `But only DONTFORK spares the fork anything: nothing of ${all} is charged, and the child does not have the ` +
        'mapping. WIPEONFORK hides what is in it; the fork is charged for all the same, and what the child writes takes ' +
        'as much memory as copies would. To populate for writing in the child copies everything in one call, in which ' +
        'the faults are taken; to populate for reading changes nothing, since all is there.' +
        ksmSentence(findings, ksm, hasKsm) +
        (swap ? ` ${describePaging(findings)}` : ''),
    };
  },
});
