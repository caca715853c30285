/** Holds two traces of one program against each other, figure by figure: as a rule the model's and the kernel's. */
import { agrees, showFigure, sum } from '../schema/figure.js';
import type { Figure } from '../schema/figure.js';
import type { Check } from '../schema/result.js';
import type { Observation, Outcome, RegionObservation, StateRuns, Step, Trace, Vma } from '../schema/step.js';

type Basis = Check['basis'];

/** Whether a measured figure is as expected; `pass` is null where one of the two is unknown. */
export function check(name: string, unit: string, basis: Basis, expected: Figure, measured: Figure): Check {
  return { name, unit, basis, expected, measured, tolerance: 0, pass: agrees(expected, measured) ?? null };
}

/** Pages whose state differs; a page whose state one side does not know differs from nothing. */
function differingPages(expected: StateRuns, measured: StateRuns): number {
  let differing = 0;
  let [i, j, usedI, usedJ] = [0, 0, 0, 0];
  for (;;) {
    const [a, b] = [expected[i], measured[j]];
    if (!a || !b) break;
    const pages = Math.min(a[0] - usedI, b[0] - usedJ);
    if (a[1] !== b[1] && a[1] !== 'unknown' && b[1] !== 'unknown') differing += pages;
    usedI += pages;
    usedJ += pages;
    if (usedI === a[0]) [i, usedI] = [i + 1, 0];
    if (usedJ === b[0]) [j, usedJ] = [j + 1, 0];
  }
  const rest = (runs: StateRuns, from: number, used: number): number =>
    runs.slice(from).reduce((total, [pages]) => total + pages, 0) - used;
  return differing + Math.abs(rest(expected, i, usedI) - rest(measured, j, usedJ));
}

function vmaKey({ first, pages, protection, accounted, dontfork, wipeonfork, mergeable = false }: Vma): string {
  return [first, pages, protection, accounted, dontfork, wipeonfork, mergeable].join(' ');
}

function differingVmas(expected: readonly Vma[], measured: readonly Vma[]): number {
  const unmatched = (from: readonly Vma[], among: readonly Vma[]): number => {
    const keys = new Set(among.map(vmaKey));
    return from.filter((vma) => !keys.has(vmaKey(vma))).length;
  };
  return Math.max(unmatched(expected, measured), unmatched(measured, expected));
}

function compareRegions(
  where: string,
  basis: Basis,
  expected: RegionObservation,
  measured: RegionObservation,
): Check[] {
  const checks = [
    check(`${where}: length`, 'pages', basis, expected.pages, measured.pages),
    check(`${where}: pages in another state`, 'pages', basis, 0, differingPages(expected.states, measured.states)),
    check(`${where}: VMAs unlike the predicted`, 'VMAs', basis, 0, differingVmas(expected.vmas, measured.vmas)),
  ];
  const figures = (kind: string, unit: string, ours: Record<string, Figure>, theirs: Record<string, Figure>): void => {
    for (const [name, figure] of Object.entries(ours)) {
      // A figure that this kernel does not show (KSM before 6.8) cannot be checked.
      const seen = theirs[name] ?? { unknown: 'not shown by this kernel' };
      checks.push(check(`${where}: ${kind}${name}`, unit, basis, figure, seen));
    }
  };
  figures('', 'pages', expected.counts, measured.counts);
  figures('', 'kB', expected.smapsKb, measured.smapsKb);
  return checks;
}

function endName(outcome: Outcome): string {
  if (!outcome.ended) return 'goes on';
  const { signal, code } = outcome.ended;
  return signal ?? (code === undefined ? 'ended' : `code ${String(code)}`);
}

/** What a step did to the program: a name for each way it can come out, compared as a whole. */
function resultName(outcome: Outcome): string {
  const killed = [...(outcome.killed ?? [])].sort();
  const others = killed.length > 0 ? `, ${killed.join(' and ')} killed` : '';
  return `${outcome.failure ? `${outcome.failure.syscall} ${outcome.failure.code}` : endName(outcome)}${others}`;
}

function stepName(step: Step, index: number): string {
  const where = 'process' in step ? ` ${step.process}` : '';
  const what = 'region' in step ? ` ${step.region}` : '';
  return `step ${String(index + 1)} ${step.op}${where}${what}`;
}

function compareOutcomes(name: string, basis: Basis, expected: Outcome, measured: Outcome): Check[] {
  const checks: Check[] = [];
  const [wanted, seen] = [resultName(expected), resultName(measured)];
  if (expected.uncertain === undefined && (wanted !== seen || wanted !== 'goes on')) {
    const title = wanted === seen ? `${name}: ${wanted}` : `${name}: ${wanted} expected, ${seen} seen`;
    checks.push(check(title, 'times', basis, 1, wanted === seen ? 1 : 0));
  }
  for (const [field, title] of [
    ['minorFaults', 'minor faults'],
    ['majorFaults', 'major faults'],
  ] as const) {
    const [ours, theirs] = [expected[field], measured[field]];
    if (ours !== undefined && theirs !== undefined)
      checks.push(check(`${name}: ${title}`, 'faults', basis, ours, theirs));
  }
  if (expected.faults !== undefined && measured.minorFaults !== undefined) {
    const together = measured.faults ?? sum([measured.minorFaults, measured.majorFaults ?? 0]);
    checks.push(check(`${name}: minor and major faults`, 'faults', basis, expected.faults, together));
  }
  return checks;
}

/** How many lengths of VMAs one side has that the other has not. */
function differingLengths(expected: readonly number[], measured: readonly number[]): number {
  const left = new Map<number, number>();
  for (const pages of expected) left.set(pages, (left.get(pages) ?? 0) + 1);
  for (const pages of measured) left.set(pages, (left.get(pages) ?? 0) - 1);
  return [...left.values()].reduce((total, count) => total + Math.abs(count), 0);
}

/** What a fork under strict overcommit is charged, and the limit that it is held to. */
function compareCommit(name: string, basis: Basis, expected: Outcome, measured: Outcome): Check[] {
  const checks: Check[] = [];
  const [ours, theirs] = [expected.commit, measured.commit];
  if (ours && theirs) {
    const differing = differingLengths(ours.vmaPages, theirs.vmaPages);
    checks.push(check(`${name}: accounted VMAs unlike the predicted`, 'VMAs', basis, 0, differing));
    checks.push(check(`${name}: total_vm`, 'pages', basis, ours.totalPages, theirs.totalPages));
  }
  if (expected.commitLimitPages !== undefined && measured.commitLimitPages !== undefined) {
    checks.push(check(`${name}: CommitLimit`, 'pages', basis, expected.commitLimitPages, measured.commitLimitPages));
  }
  return checks;
}

/** What is charged to the cgroup, and so whether each page that was copied is. */
function compareMemory(name: string, basis: Basis, expected: Outcome, measured: Outcome): Check[] {
  const [ours, theirs] = [expected.memory, measured.memory];
  if (!ours || !theirs) return [];
  return [check(`${name}: charged to the cgroup before it`, 'pages', basis, ours.usagePages, theirs.usagePages)];
}

/** All that KSM has merged in the whole system, so that pages of others among it are noticed. */
function compareMerged(name: string, basis: Basis, expected: Outcome, measured: Outcome): Check[] {
  const [ours, theirs] = [expected.merged, measured.merged];
  if (!ours || !theirs) return [];
  return [
    check(`${name}: merged pages`, 'pages', basis, ours.sharedPages, theirs.sharedPages),
    check(`${name}: pages in whose place they are`, 'pages', basis, ours.sharingPages, theirs.sharingPages),
  ];
}

/** Frames of regions, where both know them: as the model does always, and the kernel tells to CAP_SYS_ADMIN. */
function compareFrames(basis: Basis, { frames: ours }: Observation, { label, frames: theirs }: Observation): Check[] {
  if (!ours || !theirs) return [];
  return [...new Set([...Object.keys(ours), ...Object.keys(theirs)])].map((region) =>
    check(`${label}: ${region}: page frames of all processes`, 'frames', basis, ours[region] ?? 0, theirs[region] ?? 0),
  );
}

function compareObservations(basis: Basis, expected: Outcome, measured: Outcome): Check[] {
  const [ours, theirs] = [expected.observation, measured.observation];
  if (!ours || !theirs) return [];
  const checks: Check[] = compareFrames(basis, ours, theirs);
  const names = new Set([...ours.processes, ...theirs.processes].map(({ process }) => process));
  for (const process of names) {
    const a = ours.processes.find((one) => one.process === process);
    const b = theirs.processes.find((one) => one.process === process);
    const where = `${theirs.label}: ${process}`;
    if (!a || !b) {
      checks.push(check(`${where}: is alive`, 'processes', basis, a ? 1 : 0, b ? 1 : 0));
      continue;
    }
    for (const region of new Set([...a.regions, ...b.regions].map((one) => one.region))) {
      const [x, y] = [a.regions.find((one) => one.region === region), b.regions.find((one) => one.region === region)];
      if (x && y) checks.push(...compareRegions(`${where} ${region}`, basis, x, y));
      else checks.push(check(`${where} ${region}: is mapped`, 'regions', basis, x ? 1 : 0, y ? 1 : 0));
    }
  }
  return checks;
}

/**
 * Compares two traces of one program.
 * @param expected What was predicted, or recorded before.
 * @param measured What happened. Must be of the same steps: a program that took another way is one failed check.
 */
export function compareTraces(expected: Trace, measured: Trace, basis: Basis = 'model'): Check[] {
  const checks: Check[] = [];
  for (let index = 0; index < Math.max(expected.length, measured.length); index++) {
    const [ours, theirs] = [expected[index], measured[index]];
    if (!ours || !theirs || JSON.stringify(ours.step) !== JSON.stringify(theirs.step)) {
      checks.push(check(`step ${String(index + 1)}: the programs went the same way`, 'steps', basis, 1, 0));
      break;
    }
    checks.push(...compareOutcomes(stepName(theirs.step, index), basis, ours.outcome, theirs.outcome));
    checks.push(...compareCommit(stepName(theirs.step, index), basis, ours.outcome, theirs.outcome));
    checks.push(...compareMerged(stepName(theirs.step, index), basis, ours.outcome, theirs.outcome));
    checks.push(...compareMemory(stepName(theirs.step, index), basis, ours.outcome, theirs.outcome));
    checks.push(...compareObservations(basis, ours.outcome, theirs.outcome));
  }
  return checks;
}

/** The recorded figures, but the model's own wherever it cannot be exact: those need not come out twice the same. */
function exactOnly(
  recorded: Record<string, Figure>,
  model: Record<string, Figure> | undefined,
): Record<string, Figure> {
  return Object.fromEntries(
    Object.entries(recorded).map(([name, figure]) => {
      const predicted = model?.[name];
      return [name, typeof predicted === 'object' ? predicted : figure];
    }),
  );
}

function repeatableOutcome(recorded: Outcome, model: Outcome): Outcome {
  // What the process has beside its regions is Node's, and no two are alike.
  const { observation } = recorded;
  const result = { ...recorded };
  delete result.commit;
  delete result.memory;
  if (model.uncertain !== undefined) result.uncertain = model.uncertain;
  if (typeof model.minorFaults === 'object') result.minorFaults = model.minorFaults;
  if (!observation) return result;
  const processes = observation.processes.map(({ process, regions }) => {
    const twin = model.observation?.processes.find((one) => one.process === process);
    return {
      process,
      regions: regions.map((region) => {
        const predicted = twin?.regions.find((one) => one.region === region.region);
        return { ...region, smapsKb: exactOnly(region.smapsKb, predicted?.smapsKb) };
      }),
    };
  });
  return { ...result, observation: { ...observation, processes } };
}

/**
 * What a recorded program must give when it is repeated: the recorded figures where the model is exact, its ranges
 * and unknowns where it is not (accessed bits, writeback).
 */
export function repeatable(recorded: Trace, model: Trace): Trace {
  return recorded.map((entry, index) => {
    const predicted = model[index];
    return predicted ? { step: entry.step, outcome: repeatableOutcome(entry.outcome, predicted.outcome) } : entry;
  });
}

export function describeCheck({ name, unit, expected, measured }: Check): string {
  return `${name}: expected ${showFigure(expected)} ${unit}, measured ${showFigure(measured)}`;
}
