/** Figures of a whole process tree, from one observation of it, and how tables show them. */
import { isUnknown, sum } from '../schema/figure.js';
import type { Figure } from '../schema/figure.js';
import type { Findings } from '../schema/result.js';
import type { Observation, ProcessObservation, RegionObservation } from '../schema/step.js';
import { formatBytes, formatCount } from '../schema/units.js';

/** What a process shows of a region, or of its first one. */
export function regionOf(process: ProcessObservation | undefined, name?: string): RegionObservation | undefined {
  return process?.regions.find(({ region }) => name === undefined || region === name);
}

/** A figure of smaps, in kB, summed over all processes that have the region (or over their first regions). */
export function sumOfTree(observation: Observation, field: string, name?: string): Figure {
  return sum(observation.processes.map((process) => regionOf(process, name)?.smapsKb[field] ?? 0));
}

/**
 * What the tree has been promised of a region: the pages of all its VMAs that are charged to Committed_AS ("ac" in
 * VmFlags). A fork charges the child's anew [kernel/fork.c: dup_mmap].
 */
export function chargedPages(observation: Observation, name?: string): number {
  const vmas = observation.processes.flatMap((process) => regionOf(process, name)?.vmas ?? []);
  return vmas.reduce((total, { accounted, pages }) => total + (accounted ? pages : 0), 0);
}

/** Pages of a region that a process has page table entries for. */
export function presentPages(process: ProcessObservation | undefined, name: string): Figure {
  const counts = regionOf(process, name)?.counts ?? {};
  return sum(['exclusive', 'shared', 'zero'].map((state) => counts[state] ?? 0));
}

/** What was found under a name. */
export function findFigure({ figures }: Pick<Findings, 'figures'>, name: string): Figure {
  return figures.find((figure) => figure.name === name)?.value ?? { unknown: 'it was not measured' };
}

/** A figure to plot or to subtract; where it is a range, its middle. */
export function approximately(figure: Figure): number {
  if (typeof figure === 'number') return figure;
  return 'unknown' in figure ? NaN : (figure.min + figure.max) / 2;
}

export function difference(figure: Figure, base: Figure): Figure {
  if (typeof figure === 'number' && typeof base === 'number') return figure - base;
  const unknown = [figure, base].find(isUnknown);
  return unknown ?? { unknown: 'one of the two figures is not exact' };
}

export function formatFigure(figure: Figure | undefined): string {
  if (figure === undefined) return '-';
  if (typeof figure === 'number') return formatCount(figure);
  return 'unknown' in figure ? 'unknown' : `${formatCount(figure.min)}..${formatCount(figure.max)}`;
}

/** @param figure In kB. */
export function formatKb(figure: Figure): string {
  return typeof figure === 'number' ? formatBytes(figure * 1024) : formatFigure(figure);
}
