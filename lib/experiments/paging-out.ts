/** What a fork makes of memory that is in swap: it is charged and shared as other memory is, and reading it is a fault. */
import { check } from '../machine/compare.js';
import type { Machine } from '../machine/machine.js';
import type { Figure } from '../schema/figure.js';
import type { HostFacts } from '../schema/facts.js';
import type { Check, Findings, NamedFigure } from '../schema/result.js';
import type { Observation } from '../schema/step.js';
import { chargedPages, difference, findFigure, formatFigure, formatKb, sumOfTree } from './tree-figures.js';

const WHAT = {
  charged: ['charged by the fork', 'pages'],
  pss: ['sum of Pss after the fork', 'kB'],
  swap: ['sum of Swap after the fork', 'kB'],
  swapPss: ['sum of SwapPss after the fork', 'kB'],
  readFaults: ['faults of reading all in the child', 'faults'],
  writeFaults: ['faults of writing it then', 'faults'],
  both: ['sum of Pss when the parent has read it too', 'kB'],
} as const;
type Measured = Record<keyof typeof WHAT, Figure>;
const MEASURES = Object.keys(WHAT) as (keyof typeof WHAT)[];

function nameOf(what: keyof typeof WHAT): string {
  return `swap: ${WHAT[what][0]}`;
}

interface Context {
  machine: Machine;
  params: { size: number };
  progress: (text: string) => void;
}

/** The smallest swap of which half holds so many pages, without that of the header [Machine.addSwap]. */
export function swapPagesFor(pages: number): number {
  return Math.max(10, 2 * pages + 1);
}

export async function pageOutAndFork({ machine, params, progress }: Context): Promise<Findings> {
  const { root } = machine;
  progress('advice: swap');
  await machine.addSwap(swapPagesFor(params.size / machine.facts.pageSizeBytes));
  const region = await root.map({ size: params.size });
  await root.write(region);
  await root.advise(region, 'pageout');
  const seen = (when: string): Promise<Observation> => machine.observe(`swap: ${when}`);
  const before = await seen('paged out');
  const child = await root.fork();
  const forked = await seen('forked');
  const { faults: readFaults } = await child.read(region);
  const { faults: writeFaults } = await child.write(region);
  await root.read(region);
  const both = await seen('the child has written, and the parent has read');
  await child.exit();
  await root.unmap(region);
  return findingsOf({
    charged: difference(chargedPages(forked, region.name), chargedPages(before, region.name)),
    pss: sumOfTree(forked, 'Pss', region.name),
    swap: sumOfTree(forked, 'Swap', region.name),
    swapPss: sumOfTree(forked, 'SwapPss', region.name),
    readFaults,
    writeFaults,
    both: sumOfTree(both, 'Pss', region.name),
  });
}

function findingsOf(measured: Measured): Findings {
  const headlines: readonly (keyof typeof WHAT)[] = ['swap', 'swapPss', 'readFaults'];
  return {
    figures: MEASURES.map((what): NamedFigure => ({
      name: nameOf(what),
      unit: WHAT[what][1],
      value: measured[what],
      headline: headlines.includes(what),
    })),
    tables: [
      {
        title: 'A fork of memory that is in swap',
        columns: ['charged', 'Pss', 'Swap', 'SwapPss', 'reading', 'writing', 'Pss then'],
        rows: [
          [
            formatFigure(measured.charged),
            formatKb(measured.pss),
            formatKb(measured.swap),
            formatKb(measured.swapPss),
            formatFigure(measured.readFaults),
            formatFigure(measured.writeFaults),
            formatKb(measured.both),
          ],
        ],
      },
    ],
    plots: [],
    notes: [
      'All of it was in swap when the parent forked. Pss, Swap and SwapPss: sums over both, right after the fork; both have ' +
        'the same pages in swap, which Swap counts in each. Reading, writing: faults of the child, minor and major; which ' +
        'of them wait for the disk depends on what is still in the swap cache. Pss then: when the parent has read all too.',
    ],
  };
}

/** The child brings all of `pages` back by reading; but the parent still has them in swap, so that each write copies. */
export function checkPagedOutByHand(findings: Findings, pages: number, facts: HostFacts): Check[] {
  const allKb = pages * (facts.pageSizeBytes / 1024);
  const expected: Record<keyof typeof WHAT, number> = {
    charged: pages,
    pss: 0,
    swap: 2 * allKb,
    // Half of a page is a whole kB.
    swapPss: allKb,
    readFaults: pages,
    writeFaults: pages,
    both: 2 * allKb,
  };
  return MEASURES.map((what) => {
    const name = nameOf(what);
    return check(`${name}, by hand`, WHAT[what][1], 'anchor', expected[what], findFigure(findings, name));
  });
}

export function describePaging(findings: Findings): string {
  const show = (what: 'swap' | 'swapPss'): string => formatKb(findFigure(findings, nameOf(what)));
  const faults = formatFigure(findFigure(findings, nameOf('writeFaults')));
  return (
    `What is in swap is shared by a fork too: the sum of Swap is ${show('swap')}, and ${show('swapPss')} are taken. ` +
    `A page that the child reads and then writes is copied (${faults} faults), since the parent has it in swap.`
  );
}
