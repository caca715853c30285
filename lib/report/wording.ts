/** What every kind of report calls things. */
import { isUnknown } from '../schema/figure.js';
import type { Figure } from '../schema/figure.js';
import type { Environment, ParamValues, ResultDocument, Table } from '../schema/result.js';
import { formatBytes, formatCount } from '../schema/units.js';

/** What follows 'The claim'. */
export const OUTCOMES: Record<ResultDocument['claim']['outcome'], string> = {
  holds: 'holds',
  'holds only if': 'holds only in part',
  refuted: 'is refuted',
  undecided: 'is undecided',
};

export function figureText(figure: Figure | undefined): string {
  if (figure === undefined) return '-';
  if (typeof figure === 'number') return formatCount(figure);
  return isUnknown(figure) ? '-' : `${formatCount(figure.min)}..${formatCount(figure.max)}`;
}

/** measured - expected, where both are numbers or ranges: 0 inside of a range, else how far outside. */
export function differenceText(expected: Figure, measured: Figure): string {
  if (typeof expected === 'number' && typeof measured === 'number') return formatCount(measured - expected);
  if (typeof measured !== 'number' || typeof expected === 'number' || isUnknown(expected)) return '-';
  if (measured < expected.min) return formatCount(measured - expected.min);
  return formatCount(Math.max(0, measured - expected.max));
}

/** Why a figure is a range or not known. */
export function reasonOf(figure: Figure | undefined): string | undefined {
  if (typeof figure !== 'object') return undefined;
  return isUnknown(figure) ? figure.unknown : figure.why;
}

/** The sentence of the checks: how many agree, or what is wrong. */
export function verdictText({ checks, verdict, reason }: ResultDocument): string {
  const passed = checks.filter(({ pass }) => pass === true).length;
  return verdict === 'pass' ? `${formatCount(passed)} checks, all as predicted` : reason;
}

/** Whether the model's table says the same as the measured one, where it says anything: '-' is what no model knows. */
export function saysTheSame(predicted: Table, measured: Table): boolean {
  if (predicted.title !== measured.title || predicted.rows.length !== measured.rows.length) return false;
  return predicted.rows.every((row, index) => {
    const seen = measured.rows[index] ?? [];
    return row.length === seen.length && row.every((cell, column) => cell === '-' || cell === seen[column]);
  });
}

/** The tables of a result; where the model's are the same as the measured, that is said and they are not shown twice. */
export function tablesOf({ prediction, measurement }: ResultDocument): Table[] {
  if (!measurement || !prediction) return (measurement ?? prediction)?.tables ?? [];
  return measurement.tables.flatMap((measured, index) => {
    const predicted = prediction.tables[index];
    if (!predicted) return [measured];
    if (saysTheSame(predicted, measured)) {
      return [{ ...measured, title: `${measured.title}: measured, exactly as predicted` }];
    }
    return [
      { ...measured, title: `${measured.title}: measured` },
      { ...predicted, title: `${predicted.title}: predicted` },
    ];
  });
}

/** The named results that a summary shows, predicted beside measured. */
export function headlineTable({ prediction, measurement }: ResultDocument): Table | undefined {
  const shown = (measurement ?? prediction)?.figures.filter(({ headline }) => headline) ?? [];
  if (shown.length === 0) return undefined;
  const valueIn = (findings: typeof prediction, name: string): Figure | undefined =>
    findings?.figures.find((one) => one.name === name)?.value;
  const rows = shown.map(({ name, unit }) => {
    return [name, figureText(valueIn(prediction, name)), figureText(valueIn(measurement, name)), unit];
  });
  return { title: 'Predicted and measured', columns: ['figure', 'predicted', 'measured', 'unit'], rows };
}

/** Name and value of what the result was made on and with. */
export function environmentRows({ environment, params, seed, elapsedMs }: ResultDocument): [string, string][] {
  return [
    ...machineRows(environment),
    ...Object.entries(params).map(([name, value]): [string, string] => [
      `parameter ${name}`,
      parameterText(name, value),
    ]),
    ['seed', String(seed)],
    ['took', `${formatCount(elapsedMs)} ms`],
  ];
}

/** A parameter as people write it: a size in its unit. */
export function parameterText(name: string, value: ParamValues[string]): string {
  if (typeof value === 'boolean') return value ? 'yes' : 'no';
  return typeof value === 'number' && name === 'size' ? formatBytes(value) : String(value);
}

function machineRows(environment: Environment): [string, string][] {
  const { virtualMachine } = environment;
  return [
    ['kernel', `Linux ${environment.kernel} ${environment.arch}`],
    ['page size', formatBytes(environment.pageSizeBytes)],
    ['RAM', formatBytes(environment.memTotalBytes)],
    ['swap', formatBytes(environment.swapTotalBytes)],
    ['overcommit', environment.overcommit],
    ['CommitLimit', formatBytes(environment.commitLimitBytes)],
    ['transparent huge pages', environment.thp],
    ['CAP_SYS_ADMIN', environment.privileged ? 'yes' : 'no'],
    ['Node', environment.node],
    ['cowlab', environment.cowlab],
    ['started', environment.startedAt],
    ...(virtualMachine
      ? [
          [
            'virtual machine',
            `${virtualMachine.accelerator}, ${formatBytes(virtualMachine.memoryBytes)}, ${String(virtualMachine.cpus)} CPUs`,
          ] satisfies [string, string],
        ]
      : []),
  ];
}
