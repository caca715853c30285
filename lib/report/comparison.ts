/** Several results of one experiment beside each other: what they were run with, and what came out differently. */
import type { ParamValues, ResultDocument } from '../schema/result.js';
import { formatBytes } from '../schema/units.js';
import { figureText, parameterText } from './wording.js';

/** One line for each thing that is not the same in all; the values in the order of the results. */
export interface Difference {
  name: string;
  unit: string;
  values: string[];
}

export interface Comparison {
  experiment: string;
  results: ResultDocument[];
  /** Where each stands among all results of the report, from 1. */
  numbers: number[];
  conditions: Difference[];
  figures: Difference[];
  /** How many measured figures are the same in all. */
  sameFigures: number;
}

function valueText(name: string, value: ParamValues[string] | undefined): string {
  if (value === undefined) return '-';
  return typeof value === 'number' && name.endsWith('Bytes') ? formatBytes(value) : parameterText(name, value);
}

function conditionsOf({ environment, params }: ResultDocument): ParamValues {
  // When it was run is no condition that anybody sets.
  const { virtualMachine, ...machine } = environment;
  const settings = Object.entries(machine).filter(([name]) => name !== 'startedAt');
  return { ...Object.fromEntries(settings), virtualMachine: virtualMachine?.accelerator ?? 'no', ...params };
}

function isSame(values: readonly string[]): boolean {
  return new Set(values).size === 1;
}

function compareConditions(results: readonly ResultDocument[]): Difference[] {
  const conditions = results.map(conditionsOf);
  const names = new Set(conditions.flatMap((one) => Object.keys(one)));
  return [...names]
    .map((name) => ({ name, unit: '', values: conditions.map((one) => valueText(name, one[name])) }))
    .filter(({ values }) => !isSame(values));
}

function compareFigures(results: readonly ResultDocument[]): Pick<Comparison, 'figures' | 'sameFigures'> {
  const findings = results.map(({ measurement, prediction }) => (measurement ?? prediction)?.figures ?? []);
  const units = new Map(findings.flat().map(({ name, unit }) => [name, unit]));
  const all = [...units].map(([name, unit]) => {
    return { name, unit, values: findings.map((one) => figureText(one.find((figure) => figure.name === name)?.value)) };
  });
  const figures = all.filter(({ values }) => !isSame(values));
  return { figures, sameFigures: all.length - figures.length };
}

/** Of each experiment that has more than one result. */
export function compareAll(results: readonly ResultDocument[]): Comparison[] {
  const byExperiment = new Map<string, { result: ResultDocument; number: number }[]>();
  for (const [index, result] of results.entries()) {
    const known = byExperiment.get(result.experiment) ?? [];
    byExperiment.set(result.experiment, [...known, { result, number: index + 1 }]);
  }
  return [...byExperiment]
    .filter(([, those]) => those.length > 1)
    .map(([experiment, those]) => {
      const own = those.map(({ result }) => result);
      return {
        experiment,
        results: own,
        numbers: those.map(({ number }) => number),
        conditions: compareConditions(own),
        ...compareFigures(own),
      };
    });
}
