/** Two saved results of one experiment, difference by difference: two kernels, two settings, before and after. */
import { compareTraces, repeatable } from '../machine/compare.js';
import { replayOnModel } from '../machine/open.js';
import { bounds, isUnknown } from '../schema/figure.js';
import type { Figure } from '../schema/figure.js';
import type { HostFacts } from '../schema/facts.js';
import type { Findings, NamedFigure, ResultDocument } from '../schema/result.js';
import type { Trace } from '../schema/step.js';

export type Value = string | number | boolean | null;

/** Something that one has otherwise than the other; null where one has not got it. */
export interface ValueDifference {
  name: string;
  a: Value;
  b: Value;
}

export interface FigureDifference {
  name: string;
  unit: string;
  a: Figure | null;
  b: Figure | null;
  /** b - a, where both are numbers. */
  difference: number | null;
  /** Whether each was predicted as it was measured, so that the model knows why they differ; null if it says nothing. */
  foretold: boolean | null;
}

export interface Side {
  kernel: string;
  startedAt: string;
  verdict: ResultDocument['verdict'];
  reason: string;
  outcome: ResultDocument['claim']['outcome'];
}

export interface ResultComparison {
  experiment: string;
  a: Side;
  b: Side;
  params: ValueDifference[];
  /** Of the environment and of the host's facts. */
  conditions: ValueDifference[];
  /** What was measured: how many figures both have, and those that differ or that one alone has. */
  figures: { compared: number; differences: FigureDifference[] };
  /** Each step of the program: how many figures were compared, or why they cannot be. */
  steps: { compared: number; differences: FigureDifference[] } | { incomparable: string };
}

type Settings = Record<string, unknown>;

function valueOf(value: unknown): Value {
  if (value === undefined || value === null) return null;
  if (typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean') return value;
  return JSON.stringify(value);
}

function differingValues(a: Settings, b: Settings): ValueDifference[] {
  return [...new Set([...Object.keys(a), ...Object.keys(b)])]
    .map((name) => ({ name, a: valueOf(a[name]), b: valueOf(b[name]) }))
    .filter((pair) => pair.a !== pair.b);
}

/** Facts of a host that decide something and that the environment does not tell. */
const DECISIVE = [
  ...(['cpus', 'hugetlbPages', 'adminReservePages', 'userReservePages', 'capSysAdmin'] as const),
  ...(['faultAroundPages', 'pagesPerTable', 'shmemThpEnabled'] as const),
] satisfies (keyof HostFacts)[];

function conditionsOf({ environment, facts }: ResultDocument): Settings {
  const decisive = facts ? Object.fromEntries(DECISIVE.map((name) => [name, facts[name]])) : {};
  // When it was run is no condition that anybody sets.
  return {
    ...environment,
    startedAt: undefined,
    ...decisive,
    forbidsZeroPage: facts?.forbidsZeroPage ?? false,
    hugePages: facts?.noHugePages === undefined,
    hugeZeroPage: facts?.hugeZeroPage ?? true,
  };
}

function same(a: Figure | undefined, b: Figure | undefined): boolean {
  if (a === undefined || b === undefined) return a === b;
  if (isUnknown(a) || isUnknown(b)) return isUnknown(a) && isUnknown(b);
  const [x, y] = [bounds(a), bounds(b)];
  return x.min === y.min && x.max === y.max;
}

function named(findings: Findings | undefined, name: string): NamedFigure | undefined {
  return findings?.figures.find((figure) => figure.name === name);
}

/** Whether a result's model said of a figure what was then measured. */
function wasPredicted({ prediction, measurement }: ResultDocument, name: string): boolean | undefined {
  const predicted = named(prediction, name)?.value;
  if (predicted === undefined || isUnknown(predicted)) return undefined;
  return same(predicted, named(measurement, name)?.value);
}

function differenceOf(a: Figure | undefined, b: Figure | undefined): number | null {
  return typeof a === 'number' && typeof b === 'number' ? b - a : null;
}

function compareFigures(a: ResultDocument, b: ResultDocument): ResultComparison['figures'] {
  const all = [...(a.measurement?.figures ?? []), ...(b.measurement?.figures ?? [])];
  const units = new Map(all.map(({ name, unit }) => [name, unit]));
  const differences: FigureDifference[] = [];
  let compared = 0;
  for (const [name, unit] of units) {
    const [x, y] = [named(a.measurement, name)?.value, named(b.measurement, name)?.value];
    if (x !== undefined && y !== undefined) compared++;
    if (same(x, y)) continue;
    const predicted = [wasPredicted(a, name), wasPredicted(b, name)];
    const foretold = predicted.includes(undefined) ? null : predicted.every((one) => one === true);
    differences.push({ name, unit, a: x ?? null, b: y ?? null, difference: differenceOf(x, y), foretold });
  }
  return { compared, differences };
}

async function compareSteps(a: ResultDocument, b: ResultDocument): Promise<ResultComparison['steps']> {
  if (a.trace.length === 0 && b.trace.length === 0) return { incomparable: 'neither has steps' };
  const index = a.trace.findIndex(({ step }, at) => JSON.stringify(step) !== JSON.stringify(b.trace[at]?.step));
  if (index !== -1 || a.trace.length !== b.trace.length) {
    const number = index === -1 ? Math.min(a.trace.length, b.trace.length) : index;
    return { incomparable: `from step ${String(number + 1)} on they are not the same` };
  }
  const modelA = await modelOf(a);
  // What need not come out twice the same, such as accessed bits, is not compared.
  const checks = compareTraces(modelA ? repeatable(a.trace, modelA) : a.trace, b.trace, 'comparison');
  const compared = checks.filter(({ pass }) => pass !== null).length;
  const failed = checks.filter(({ pass }) => pass === false);
  if (failed.length === 0) return { compared, differences: [] };
  const modelB = await modelOf(b);
  const wrong = modelA && modelB && new Set([...wrongFigures(modelA, a), ...wrongFigures(modelB, b)]);
  const differences = failed.map(({ name, unit, expected, measured }): FigureDifference => {
    const foretold = wrong ? !wrong.has(name) : null;
    return { name, unit, a: expected, b: measured, difference: differenceOf(expected, measured), foretold };
  });
  return { compared, differences };
}

async function modelOf({ facts, trace }: ResultDocument): Promise<Trace | undefined> {
  return facts && replayOnModel(trace, facts);
}

/** Names of the figures that the model had otherwise. */
function wrongFigures(model: Trace, { trace }: ResultDocument): string[] {
  return compareTraces(model, trace)
    .filter(({ pass }) => pass === false)
    .map(({ name }) => name);
}

function sideOf({ environment, verdict, reason, claim }: ResultDocument): Side {
  return { kernel: environment.kernel, startedAt: environment.startedAt, verdict, reason, outcome: claim.outcome };
}

export async function compareResults(a: ResultDocument, b: ResultDocument): Promise<ResultComparison> {
  return {
    experiment: a.experiment,
    a: sideOf(a),
    b: sideOf(b),
    params: differingValues(a.params, b.params),
    conditions: differingValues(conditionsOf(a), conditionsOf(b)),
    figures: compareFigures(a, b),
    steps: await compareSteps(a, b),
  };
}

export interface Pairing {
  pairs: [ResultDocument, ResultDocument][];
  /** Names of experiments that one side alone has. */
  onlyA: string[];
  onlyB: string[];
}

/** Pairs results of the same experiment, those with the same parameters first. */
export function pairResults(a: readonly ResultDocument[], b: readonly ResultDocument[]): Pairing {
  const left = [...b];
  const pairs: Pairing['pairs'] = [];
  const onlyA: string[] = [];
  for (const one of a) {
    const candidates = left.filter(({ experiment }) => experiment === one.experiment);
    const twin = candidates.find(({ params }) => differingValues(params, one.params).length === 0) ?? candidates[0];
    if (!twin) {
      onlyA.push(one.experiment);
      continue;
    }
    left.splice(left.indexOf(twin), 1);
    pairs.push([one, twin]);
  }
  return { pairs, onlyA, onlyB: left.map(({ experiment }) => experiment) };
}
