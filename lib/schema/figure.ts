/** Arithmetic of figures: numbers that are known exactly, within bounds, or not at all. */
import type { Figure, Unknown } from './figure-schema.js';

export type { Figure, Range, Unknown } from './figure-schema.js';

export function isUnknown(figure: Figure): figure is Unknown {
  return typeof figure === 'object' && 'unknown' in figure;
}

/** The interval of values a figure allows; an unknown allows all. */
export function bounds(figure: Figure): { min: number; max: number } {
  if (typeof figure === 'number') return { min: figure, max: figure };
  if (isUnknown(figure)) return { min: -Infinity, max: Infinity };
  return { min: figure.min, max: figure.max };
}

/** Adds figures: the sum of exact ones is exact, of bounded ones bounded, and one unknown makes it unknown. */
export function sum(figures: readonly Figure[]): Figure {
  let min = 0;
  let max = 0;
  const reasons = new Set<string>();
  for (const figure of figures) {
    if (isUnknown(figure)) return figure;
    const bound = bounds(figure);
    min += bound.min;
    max += bound.max;
    if (typeof figure === 'object') reasons.add(figure.why);
  }
  return min === max ? min : { min, max, why: [...reasons].join('; ') };
}

/**
 * Whether a measured figure is one that the expected figure allows: so if it lies inside, and not if the two have no
 * value in common. Undefined when that cannot be told, since one of the two is unknown, or a measured range reaches
 * out of the expected one: nothing was decided, so nothing may be claimed.
 */
export function agrees(expected: Figure, measured: Figure): boolean | undefined {
  if (isUnknown(expected) || isUnknown(measured)) return undefined;
  const wanted = bounds(expected);
  const seen = bounds(measured);
  if (seen.min >= wanted.min && seen.max <= wanted.max) return true;
  return seen.max < wanted.min || seen.min > wanted.max ? false : undefined;
}

export function showFigure(figure: Figure): string {
  if (typeof figure === 'number') return String(figure);
  if (isUnknown(figure)) return 'unknown';
  return `${String(figure.min)}..${String(figure.max)}`;
}
