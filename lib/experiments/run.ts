/** Runs an experiment: on the kernel, then on the model with the same facts, and compares the two. */
import { createRequire } from 'node:module';
import { compareTraces, describeCheck } from '../machine/compare.js';
import { modelMachine, openMachine, replayOnModel } from '../machine/open.js';
import type { WatchedMachine } from '../machine/open.js';
import type { Machine, SystemChange } from '../machine/machine.js';
import { readHostFacts } from '../proc/host.js';
import { readMeminfo } from '../proc/meminfo.js';
import type { HostFacts } from '../schema/facts.js';
import { agrees, isUnknown } from '../schema/figure.js';
import type { Check, Environment, Findings, ParamValues, ResultDocument, Verdict } from '../schema/result.js';
import { SCHEMA_ID } from '../schema/schema-id.js';
import type { Trace } from '../schema/step.js';
import { formatBytes } from '../schema/units.js';
import { Closing } from './closing.js';
import type { AnyExperiment, Measurement, Needs } from './define.js';

export interface RunOptions {
  progress?: (text: string) => void;
  /** Called with what an interrupt has to close, once it is open. */
  opened?: (running: { close(): Promise<void> }) => void;
  /** Settings of the whole system may be changed, and are put back. Default false. */
  allowSystemChanges?: boolean;
}

const OVERCOMMIT = ['heuristic', 'always', 'never'] as const;

const { version } = createRequire(import.meta.url)('../../package.json') as { version: string };

export function describeEnvironment(facts: HostFacts): Environment {
  const { pageSizeBytes } = facts;
  return {
    platform: process.platform,
    kernel: facts.kernelRelease,
    arch: facts.arch,
    node: process.version,
    cowlab: version,
    pageSizeBytes,
    memTotalBytes: facts.memTotalPages * pageSizeBytes,
    swapTotalBytes: facts.swapTotalPages * pageSizeBytes,
    overcommit: `${String(facts.overcommitMode)} (${OVERCOMMIT[facts.overcommitMode]})`,
    commitLimitBytes: facts.commitLimitPages * pageSizeBytes,
    thp: facts.thpEnabled,
    privileged: facts.capSysAdmin,
    startedAt: new Date().toISOString(),
  };
}

/** What a change of the system is called. */
export const CHANGES: Record<SystemChange, string> = {
  overcommit: 'vm.overcommit_memory and its limits',
  hugetlb: 'vm.nr_hugepages, the pool of huge pages',
  ksm: '/sys/kernel/mm/ksm, what ksmd does',
  swap: 'the swap of the system',
  cgroup: 'the cgroups (it makes one of its own)',
};

interface Leave extends Pick<RunOptions, 'allowSystemChanges'> {
  /** Whether `cowlab vm run` takes it, which takes experiments. Default true. */
  isExperiment?: boolean;
}

/** How else it can be run than on this system. */
function elsewhere(changes: readonly SystemChange[], { isExperiment = true }: Leave): string {
  if (!isExperiment) return '';
  if (changes.includes('swap')) return ' (guests of `cowlab vm run` have no disk for it)';
  return ', or run it in a machine of its own with `cowlab vm run`';
}

/** Why this host cannot run it now, or undefined. */
export function whyNot({ memoryBytes, lacking, changes = [] }: Needs, leave: Leave): string | undefined {
  if (lacking !== undefined) return lacking;
  if (changes.length > 0 && !leave.allowSystemChanges) {
    const what = changes.map((change) => CHANGES[change]).join(' and ');
    return (
      `it changes ${what} for the whole system, and puts them back: allow that with --allow-system-changes, as root` +
      elsewhere(changes, leave)
    );
  }
  const available = (readMeminfo().fieldsKb['MemAvailable'] ?? Infinity) * 1024;
  // A tenth is left for page tables, for the kernel, and for everybody else.
  if (memoryBytes * 1.1 <= available) return undefined;
  const [needs, has] = [formatBytes(memoryBytes), formatBytes(available)];
  return `it needs ${needs} of memory and a tenth to spare, and ${has} are available: choose a smaller size`;
}

/** Findings of the same name are one figure, seen from the model and from the kernel. */
function compareFindings(predicted: Findings, measured: Findings): Check[] {
  return measured.figures.flatMap(({ name, unit, value }) => {
    const expected = predicted.figures.find((figure) => figure.name === name)?.value;
    if (expected === undefined || isUnknown(expected)) return [];
    const pass = agrees(expected, value) ?? null;
    return [{ name, unit, basis: 'model' as const, expected, measured: value, tolerance: 0 as const, pass }];
  });
}

/** The verdict of a run: a disturbed machine proves nothing, whatever the checks say. */
export function judge(checks: readonly Check[], disturbed: readonly string[]): { verdict: Verdict; reason: string } {
  const failed = checks.filter(({ pass }) => pass === false);
  const passed = checks.filter(({ pass }) => pass === true);
  if (disturbed.length > 0) {
    return { verdict: 'inconclusive', reason: `the machine was disturbed: ${disturbed.join(', ')}` };
  }
  const [first] = failed;
  if (first) {
    const others = failed.length > 1 ? ` (and ${String(failed.length - 1)} more)` : '';
    return { verdict: 'fail', reason: `${describeCheck(first)}${others}` };
  }
  if (passed.length === 0) return { verdict: 'inconclusive', reason: 'nothing could be checked' };
  const unknown = checks.length - passed.length;
  const rest = unknown > 0 ? `; ${String(unknown)} figures cannot be known and were not judged` : '';
  return { verdict: 'pass', reason: `${String(passed.length)} of ${String(passed.length)} checks agree${rest}` };
}

interface Parts {
  facts: HostFacts;
  trace: Trace;
  checks: Check[];
  verdict: Verdict;
  reason: string;
  samples: ResultDocument['samples'];
  prediction?: Findings;
  measurement?: Findings;
}

function compose(experiment: AnyExperiment, params: ParamValues, parts: Parts, startMs: number): ResultDocument {
  const { facts, verdict } = parts;
  const findings = parts.measurement ?? parts.prediction;
  const agreed = verdict === 'pass' || parts.measurement === undefined;
  const conclusion = findings
    ? experiment.conclude(findings, agreed, params, facts)
    : { outcome: 'undecided' as const, inShort: 'It was not run.' };
  return {
    $schema: SCHEMA_ID.result,
    schemaVersion: 1,
    experiment: experiment.name,
    title: experiment.title,
    params,
    seed: typeof params['seed'] === 'number' ? params['seed'] : 0,
    environment: describeEnvironment(facts),
    claim: { ...experiment.claim, ...conclusion },
    ...parts,
    elapsedMs: Math.round(performance.now() - startMs),
  };
}

async function runProgram(
  experiment: AnyExperiment,
  params: ParamValues,
  machine: Machine,
  options: RunOptions,
): Promise<{ findings: Findings; samples: ResultDocument['samples'] }> {
  const samples: ResultDocument['samples'] = [];
  const findings = await experiment.run({
    machine,
    params,
    progress: (text) => options.progress?.(text),
    sample: (row) => samples.push(row),
  });
  return { findings, samples };
}

/** Runs the model alone: what would happen on a host of these facts. */
export async function predictExperiment(
  experiment: AnyExperiment,
  params: ParamValues,
  facts: HostFacts,
  options: RunOptions = {},
): Promise<ResultDocument> {
  const start = performance.now();
  // Where the system may be changed the tree gives CAP_SYS_ADMIN up (machine/linux/backend.ts).
  const changes = (experiment.needs(params, facts).changes ?? []).length > 0;
  const machine = modelMachine(changes ? { ...facts, capSysAdmin: false } : facts);
  const { findings, samples } = await runProgram(experiment, params, machine, options);
  if (experiment.measure) findings.notes.push('What no model predicts, such as times, is left out.');
  const verdict = { verdict: 'skip' as const, reason: 'the prediction alone was asked for' };
  const parts = { facts, trace: machine.trace, checks: [], ...verdict, samples, prediction: findings };
  return compose(experiment, params, parts, start);
}

/**
 * Runs an experiment on the kernel and compares it with the model, observation by observation.
 * @returns A result whose verdict is 'skip', with the reason, when this host cannot run it.
 * @throws FeatureUnavailableError on anything but Linux.
 */
export async function runExperiment(
  experiment: AnyExperiment,
  params: ParamValues,
  options: RunOptions = {},
): Promise<ResultDocument> {
  const start = performance.now();
  // Asked once more of the facts of the root; these tell whether the machine has to be allowed anything.
  const needs = experiment.needs(params, readHostFacts(process.pid));
  const allow = whyNot(needs, options) === undefined ? (needs.changes ?? []) : [];
  const closing = new Closing();
  const machine = await openMachine({ allow, purpose: `cowlab run ${experiment.name}` });
  closing.add(() => machine.close());
  options.opened?.(closing);
  try {
    return await runOn(machine, closing, experiment, params, options, start);
  } finally {
    await closing.close();
  }
}

/** Runs what no model predicts, if the experiment has such a part, and joins what it found to `findings`. */
async function measureBeside(
  machine: Machine,
  closing: Closing,
  experiment: AnyExperiment,
  params: ParamValues,
  options: RunOptions,
  { findings, samples }: { findings: Findings; samples: ResultDocument['samples'] },
): Promise<Measurement> {
  if (!experiment.measure) return { ...findings, checks: [] };
  const beside = await experiment.measure({
    machine,
    params,
    findings,
    progress: (text) => options.progress?.(text),
    sample: (row) => samples.push(row),
    closeLater: (close) => closing.add(close),
  });
  return {
    figures: [...findings.figures, ...beside.figures],
    tables: [...findings.tables, ...beside.tables],
    plots: [...findings.plots, ...beside.plots],
    notes: [...findings.notes, ...beside.notes],
    checks: beside.checks,
  };
}

async function runOn(
  machine: WatchedMachine,
  closing: Closing,
  experiment: AnyExperiment,
  params: ParamValues,
  options: RunOptions,
  start: number,
): Promise<ResultDocument> {
  const { facts } = machine;
  const reason = whyNot(experiment.needs(params, facts), options);
  if (reason !== undefined) {
    const parts: Parts = { facts, trace: [], checks: [], verdict: 'skip', reason, samples: [] };
    return compose(experiment, params, parts, start);
  }
  const measured = await runProgram(experiment, params, machine, options);
  const trace = [...machine.trace];
  const { checks: others, ...measurement } = await measureBeside(
    machine,
    closing,
    experiment,
    params,
    options,
    measured,
  );
  const disturbed = machine.disturbances();

  options.progress?.('replaying on the model');
  const predicted = await runProgram(experiment, params, modelMachine(facts, { readings: trace }), {});
  const replayed = await replayOnModel(trace, facts);
  const compared = [...compareFindings(predicted.findings, measured.findings), ...compareTraces(replayed, trace)];
  const checks = [...compared, ...others];
  return compose(
    experiment,
    params,
    {
      facts,
      trace,
      checks,
      ...judge(checks, disturbed),
      samples: measured.samples,
      prediction: predicted.findings,
      measurement,
    },
    start,
  );
}
