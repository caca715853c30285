/** What a fork makes of memory that is in swap: it is charged and shared as other memory is, and reading it is a fault. */
import type { Machine } from '../machine/machine.js';
import type { Figure } from '../schema/figure.js';
import type { HostFacts } from '../schema/facts.js';
import type { Check, Findings } from '../schema/result.js';
import type { Observation } from '../schema/step.js';
import { Measures } from './measures.js';
import { chargedPages, difference, findFigure, formatFigure, formatKb, sumOfTree } from './tree-figures.js';

const MEASURES = new Measures({
  charged: ['charged by the fork', 'pages'],
  pss: ['sum of Pss after the fork', 'kB'],
  swap: ['sum of Swap after the fork', 'kB'],
  swapPss: ['sum of SwapPss after the fork', 'kB'],
  readFaults: ['faults of reading all in the child', 'faults'],
  writeFaults: ['faults of writing it then', 'faults'],
  both: ['sum of Pss when the parent has read it too', 'kB'],
});
type Key = (typeof MEASURES.keys)[number];
type Measured = Record<Key, Figure>;
const OF = 'swap';

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
  return {
    figures: MEASURES.named(OF, measured, ['swap', 'swapPss', 'readFaults']),
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
  const expected: Record<Key, number> = {
    charged: pages,
    pss: 0,
    swap: 2 * allKb,
    // Half of a page is a whole kB.
    swapPss: allKb,
    readFaults: pages,
    writeFaults: pages,
    both: 2 * allKb,
  };
  return MEASURES.checkByHand(OF, expected, findings);
}

export function describePaging(findings: Findings): string {
  const show = (what: 'swap' | 'swapPss'): string => formatKb(findFigure(findings, MEASURES.nameOf(OF, what)));
  const faults = formatFigure(findFigure(findings, MEASURES.nameOf(OF, 'writeFaults')));
  return (
    `What is in swap is shared by a fork too: the sum of Swap is ${show('swap')}, and ${show('swapPss')} are taken. ` +
    `A page that the child reads and then writes is copied (${faults} faults), since the parent has it in swap.`
  );
}
