/** Raw rows of an observation, for who wants to work on with them: one for each process, and one for the tree. */
import type { Access } from '../machine/machine.js';
import { sum } from '../schema/figure.js';
import type { Figure } from '../schema/figure.js';
import type { Observation, ProcessObservation } from '../schema/step.js';
import { regionOf, sumOfTree } from './tree-figures.js';

const COUNTS = ['exclusive', 'shared', 'zero', 'not-present', 'swapped'];

type Row = Record<string, string | number>;

function rowOf(step: string, process: string, figures: Record<string, Figure | undefined>): Row {
  const row: Row = { step, process };
  for (const [name, figure] of Object.entries(figures)) if (typeof figure === 'number') row[name] = figure;
  return row;
}

function processRow(label: string, process: ProcessObservation, access: Access | undefined): Row[] {
  const region = regionOf(process);
  if (!region) return [];
  return [
    rowOf(label, process.process, {
      ...Object.fromEntries(COUNTS.map((state) => [`${state} (pages)`, region.counts[state]])),
      ...Object.fromEntries(Object.entries(region.smapsKb).map(([field, figure]) => [`${field} (kB)`, figure])),
      'minor faults of the step': access?.minorFaults,
      'time of the step (ns)': access?.elapsedNs,
    }),
  ];
}

/**
 * Of a tree whose processes have one region.
 * @param accesses What led here, by the process; pages that several map count once for each in the row of the tree.
 */
export function rawRows(label: string, observation: Observation, accesses: ReadonlyMap<string, Access>): Row[] {
  const { processes } = observation;
  const fields = Object.keys(regionOf(processes[0])?.smapsKb ?? {});
  const pages = (state: string): Figure => sum(processes.map((process) => regionOf(process)?.counts[state] ?? 0));
  const tree = rowOf(label, 'tree', {
    ...Object.fromEntries(COUNTS.map((state) => [`${state} (pages)`, pages(state)])),
    ...Object.fromEntries(fields.map((field) => [`${field} (kB)`, sumOfTree(observation, field)])),
    'minor faults of the step': faultsOf(accesses),
  });
  return [...processes.flatMap((process) => processRow(label, process, accesses.get(process.process))), tree];
}

export function faultsOf(accesses: ReadonlyMap<string, Access>): Figure {
  return sum([...accesses.values()].map(({ minorFaults }) => minorFaults));
}
