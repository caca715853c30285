/** What the trace of a result says of processes and their memory, observation by observation. */
import { bounds, isUnknown } from '../schema/figure.js';
import type { Figure } from '../schema/figure.js';
import type { Check, ResultDocument } from '../schema/result.js';
import type { Observation, RegionObservation } from '../schema/step.js';

/** Whether what the trace shows is the kernel's or the model's. */
export function observedOn({ measurement }: ResultDocument): 'kernel' | 'model' {
  return measurement ? 'kernel' : 'model';
}

export function observationsOf({ trace }: ResultDocument): Observation[] {
  return trace.flatMap(({ outcome }) => outcome.observation ?? []);
}

/** How often a label has stood before, for each observation. */
export function occurrences(observations: readonly Observation[]): number[] {
  const seen = new Map<string, number>();
  return observations.map(({ label }) => {
    const before = seen.get(label) ?? 0;
    seen.set(label, before + 1);
    return before;
  });
}

/** Processes in order of birth. */
export function processesOf(observations: readonly Observation[]): string[] {
  return [...new Set(observations.flatMap(({ processes }) => processes.map(({ process }) => process)))];
}

/** As a number to draw: the middle of a range, and NaN for what is not known. */
export function toNumber(figure: Figure | undefined): number {
  if (figure === undefined || isUnknown(figure)) return NaN;
  const { min, max } = bounds(figure);
  return (min + max) / 2;
}

/** Pages of a region that are mapped as huge pages; a figure of smaps says how many, and none says which. */
export function hugePagesOf({ smapsKb }: RegionObservation, pageSizeBytes: number): number {
  const kb = ['AnonHugePages', 'Private_Hugetlb', 'Shared_Hugetlb'].map((field) => toNumber(smapsKb[field] ?? 0));
  return (kb.reduce((total, one) => total + one, 0) * 1024) / pageSizeBytes;
}

/**
 * The checks of figures of regions against the model, looked up by the name that the comparison gives them.
 * Observations may have the same label: they are then told apart by their order.
 */
export class Expectations {
  readonly #byName = new Map<string, Check[]>();

  constructor({ checks }: ResultDocument) {
    for (const check of checks) {
      if (check.basis !== 'model') continue;
      const known = this.#byName.get(check.name);
      if (known) known.push(check);
      else this.#byName.set(check.name, [check]);
    }
  }

  /** @param occurrence How many observations of the same label stood before this one. */
  of(label: string, process: string, region: string, figure: string, occurrence = 0): Check | undefined {
    return this.#byName.get(`${label}: ${process} ${region}: ${figure}`)?.[occurrence];
  }
}

type Row = Record<string, string | number>;

/** Each region of each process at each observation, a row each: pages by state, and the figures of smaps in kB. */
export function observationRows(result: ResultDocument): Row[] {
  return observationsOf(result).flatMap(({ label, processes }) =>
    processes.flatMap(({ process, regions }) =>
      regions.map(({ region, counts, smapsKb }) => {
        const row: Row = { step: label, process, region };
        const keep = (name: string, figure: Figure): void => {
          if (typeof figure === 'number') row[name] = figure;
        };
        for (const [state, pages] of Object.entries(counts)) keep(`${state} (pages)`, pages);
        for (const [field, kb] of Object.entries(smapsKb)) keep(`${field} (kB)`, kb);
        return row;
      }),
    ),
  );
}
