/** What an experiment is: one question, a program against a Machine, and what follows from what it found. */
import { requireObject } from '../schema/arguments.js';
import type { HostFacts } from '../schema/facts.js';
import type { Check, Findings, ParamValues, ResultDocument } from '../schema/result.js';
import { parseSize } from '../schema/units.js';
import type { Machine, SystemChange } from '../machine/machine.js';

interface SpecBase {
  /** One line for `cowlab explain`. */
  describe: string;
}
export type ParamSpec =
  | (SpecBase & { type: 'integer'; default: number; min: number; max: number })
  /** In bytes; on the command line also 256MiB. A multiple of the page size. */
  | (SpecBase & { type: 'size'; default: number; min: number; max: number })
  | (SpecBase & { type: 'choice'; default: string; choices: readonly string[] })
  | (SpecBase & { type: 'boolean'; default: boolean });

export type ParamSpecs = Record<string, ParamSpec>;

type ValueOf<S> = S extends { type: 'integer' | 'size' }
  ? number
  : S extends { type: 'boolean' }
    ? boolean
    : S extends { choices: readonly (infer C)[] }
      ? C
      : never;

export type ParamsOf<S extends ParamSpecs> = { [K in keyof S]: ValueOf<S[K]> };

export interface RunContext<S extends ParamSpecs = ParamSpecs> {
  /** The kernel the first time, the model the second: the program must not ask which. */
  machine: Machine;
  params: ParamsOf<S>;
  /** Says what is going on, for people who wait. */
  progress: (text: string) => void;
  /** Keeps a raw row, one observation of one process each. */
  sample: (row: Record<string, string | number>) => void;
}

/** What measure() is given. */
export interface MeasureContext<S extends ParamSpecs = ParamSpecs> extends RunContext<S> {
  /** Still open, as run() left it. What it does from here on is not part of the trace, and no model replays it. */
  machine: Machine;
  /** What run() found on the kernel. */
  findings: Findings;
  /**
   * Has something closed when the experiment ends, is interrupted or fails: processes, files. The last comes first.
   * @returns Closes it now.
   */
  closeLater: (close: () => Promise<void> | void) => () => Promise<void>;
}

/** What was measured beside the model; a check's basis is a bound, a comparison or an anchor. */
export interface Measurement extends Findings {
  checks: Check[];
}

export interface Needs {
  /** Memory that the program will really use, at most, in bytes. */
  memoryBytes: number;
  /** What it changes of the system, which the user must have allowed. */
  changes?: readonly SystemChange[];
  /** One sentence, if this host cannot run it: which feature is lacking and what would help. */
  lacking?: string;
}

export interface Conclusion {
  outcome: ResultDocument['claim']['outcome'];
  /** One plain sentence. */
  inShort: string;
}

export interface Experiment<S extends ParamSpecs = ParamSpecs> {
  name: string;
  title: string;
  claim: { text: string; source: string };
  params: S;
  /** Programs of the host that it runs, which `cowlab vm` takes along: only python3 is known so far. */
  programs?: readonly 'python3'[];
  /** @throws RangeError for parameters that make no sense together or on this host. */
  needs(params: ParamsOf<S>, facts: HostFacts): Needs;
  run(context: RunContext<S>): Promise<Findings>;
  /** What no model predicts, such as times and programs of others: on the kernel alone, after run(). */
  measure?(context: MeasureContext<S>): Promise<Measurement>;
  /** @param agreed Whether every check passed. */
  conclude(findings: Findings, agreed: boolean, params: ParamsOf<S>, facts: HostFacts): Conclusion;
}

/** An experiment of any parameters, as lists of them hold it. */
export type AnyExperiment = Omit<Experiment, 'needs' | 'run' | 'measure' | 'conclude'> & {
  needs(params: ParamValues, facts: HostFacts): Needs;
  run(context: WithAnyParams<RunContext>): Promise<Findings>;
  measure?(context: WithAnyParams<MeasureContext>): Promise<Measurement>;
  conclude(findings: Findings, agreed: boolean, params: ParamValues, facts: HostFacts): Conclusion;
};
type WithAnyParams<C> = Omit<C, 'params'> & { params: ParamValues };

const EXPERIMENTS = new WeakSet();

/**
 * Declares an experiment; `cowlab run FILE.mjs` runs the default export of a file that does so.
 *
 * @throws TypeError that names the missing or wrong part.
 */
export function defineExperiment<const S extends ParamSpecs>(experiment: Experiment<S>): AnyExperiment {
  requireObject('experiment', experiment);
  const { name, title, claim, params } = experiment as Partial<Experiment<S>>;
  if (typeof name !== 'string' || !/^[a-z][a-z0-9-]*$/.test(name)) {
    throw new TypeError('name must be lower-case letters, digits and dashes');
  }
  if (typeof title !== 'string') throw new TypeError('title must be a string');
  if (typeof claim?.text !== 'string' || typeof claim.source !== 'string') {
    throw new TypeError('claim must have text and source');
  }
  if (typeof params !== 'object') throw new TypeError('params must be an object, {} for none');
  for (const part of ['needs', 'run', 'conclude'] as const) {
    if (typeof experiment[part] !== 'function') throw new TypeError(`${part} must be a function`);
  }
  if (!['function', 'undefined'].includes(typeof experiment.measure)) throw new TypeError('measure must be a function');
  // Parameters are checked against their specifications before a program sees them (parseParams).
  const any = experiment as unknown as AnyExperiment;
  EXPERIMENTS.add(any);
  return any;
}

export function isExperiment(value: unknown): value is AnyExperiment {
  return typeof value === 'object' && value !== null && EXPERIMENTS.has(value);
}

function parseValue(name: string, spec: ParamSpec, given: unknown): string | number | boolean {
  switch (spec.type) {
    case 'boolean':
      if (given === true || given === 'true') return true;
      if (given === false || given === 'false') return false;
      throw new RangeError(`${name} must be true or false, not ${String(given)}`);
    case 'choice':
      if (typeof given === 'string' && spec.choices.includes(given)) return given;
      throw new RangeError(`${name} must be one of ${spec.choices.join(', ')}, not ${String(given)}`);
    case 'integer':
    case 'size': {
      const number = typeof given === 'string' && spec.type === 'size' ? parseSize(given) : Number(given);
      if (given === '' || !Number.isInteger(number) || number < spec.min || number > spec.max) {
        const bounds = `${String(spec.min)} to ${String(spec.max)}`;
        throw new RangeError(
          `${name} must be a whole number from ${bounds}, not ${given === '' ? 'nothing' : String(given)}`,
        );
      }
      return number;
    }
  }
}

/**
 * The parameters of a run: what was given, checked, and the defaults of the rest.
 * @throws RangeError for an unknown name or a value that is not allowed.
 */
export function parseParams(
  experiment: Pick<AnyExperiment, 'name' | 'params'>,
  given: Record<string, unknown>,
): ParamValues {
  for (const name of Object.keys(given)) {
    if (!Object.hasOwn(experiment.params, name)) {
      const known = Object.keys(experiment.params).join(', ') || 'none';
      throw new RangeError(`${experiment.name} has no parameter ${name}; it has: ${known}`);
    }
  }
  const values: ParamValues = {};
  for (const [name, spec] of Object.entries(experiment.params)) {
    values[name] = Object.hasOwn(given, name) ? parseValue(name, spec, given[name]) : spec.default;
  }
  return values;
}

/** For needs(), since only a host says how large its pages are. @throws RangeError that names the parameter. */
export function requireWholePages(name: string, bytes: number, pageSizeBytes: number): void {
  if (bytes % pageSizeBytes === 0) return;
  throw new RangeError(`${name} must be a multiple of the page size, ${String(pageSizeBytes)}, not ${String(bytes)}`);
}
