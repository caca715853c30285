/** What ksmd saves where a child and its parent have written the same after the fork, and what the next write costs. */
import type { Machine } from '../machine/machine.js';
import type { Figure } from '../schema/figure.js';
import type { HostFacts } from '../schema/facts.js';
import type { Check, Findings } from '../schema/result.js';
import type { Observation } from '../schema/step.js';
import { Measures } from './measures.js';
import { findFigure, formatFigure, formatKb, sumOfTree } from './tree-figures.js';

const MEASURES = new Measures({
  before: ['sum of Pss before merging', 'kB'],
  after: ['sum of Pss after it', 'kB'],
  readFaults: ['faults of reading merged pages', 'faults'],
  writeFaults: ['faults of writing them', 'faults'],
  written: ['sum of Pss when the child has written again', 'kB'],
});
type Key = (typeof MEASURES.keys)[number];
type Measured = Record<Key, Figure>;
const OF = 'merging';

interface Context {
  machine: Machine;
  params: { size: number };
  progress: (text: string) => void;
}

export async function mergeAlike({ machine, params, progress }: Context): Promise<Findings> {
  const { root } = machine;
  progress('advice: merging');
  const region = await root.map({ size: params.size });
  await root.write(region);
  await root.advise(region, 'mergeable');
  const child = await root.fork();
  await child.write(region);
  const sumNow = async (when: string): Promise<Figure> => {
    const observation: Observation = await machine.observe(`merging: ${when}`);
    return sumOfTree(observation, 'Pss', region.name);
  };
  const before = await sumNow('both have written');
  await machine.mergePages();
  const after = await sumNow('merged');
  const { minorFaults: readFaults } = await child.read(region);
  const { minorFaults: writeFaults } = await child.write(region);
  const written = await sumNow('written again');
  await child.exit();
  await root.unmap(region);
  return findingsOf({ before, after, readFaults, writeFaults, written });
}

function findingsOf(measured: Measured): Findings {
  return {
    figures: MEASURES.named(OF, measured, ['before', 'after', 'writeFaults']),
    tables: [
      {
        title: 'Merging what both have written alike',
        columns: ['before', 'merged', 'reading', 'writing', 'written again'],
        rows: [
          [
            formatKb(measured.before),
            formatKb(measured.after),
            formatFigure(measured.readFaults),
            formatFigure(measured.writeFaults),
            formatKb(measured.written),
          ],
        ],
      },
    ],
    plots: [],
    notes: [
      'Before, merged, written again: sums of Pss of parent and child, whose pages all hold the same; a page that many map ' +
        'counts next to nothing. Reading, writing: minor faults of the child. Any number of pages may become one here; ' +
        'by default 256 do (/sys/kernel/mm/ksm/max_page_sharing).',
    ],
  };
}

/** What so many mappings of one page count in the Pss of a process that has `pages` of them [smaps_pte_entry]. */
function pssKb(pages: number, mappings: number, { pageSizeBytes }: HostFacts): number {
  return Math.floor((pages * Math.floor((pageSizeBytes * 4096) / mappings)) / 2 ** 22);
}

/** Parent and child have `pages` each; all are merged into one, if there is more than one. */
export function checkMergedByHand(findings: Findings, pages: number, facts: HostFacts): Check[] {
  const pageKb = facts.pageSizeBytes / 1024;
  const expected: Record<Key, number> = {
    before: 2 * pages * pageKb,
    after: 2 * pssKb(pages, 2 * pages, facts),
    readFaults: 0,
    writeFaults: pages,
    written: pages * pageKb + pssKb(pages, pages, facts),
  };
  return MEASURES.checkByHand(OF, expected, findings);
}

export function describeMerging(findings: Findings): string {
  const show = (what: 'before' | 'after'): string => formatKb(findFigure(findings, MEASURES.nameOf(OF, what)));
  const faults = formatFigure(findFigure(findings, MEASURES.nameOf(OF, 'writeFaults')));
  return (
    `MERGEABLE saves where both write the same after the fork and ksmd runs: ${show('before')} became ${show('after')}. ` +
    `The next write to a merged page copies it again (${faults} faults).`
  );
}
