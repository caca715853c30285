/** `cowlab replay`: the steps of a saved result, once more, and what came out differently. */
import { CHANGES } from '../experiments/run.js';
import { compareTraces, repeatable } from '../machine/compare.js';
import { FeatureUnavailableError } from '../errors.js';
import { changesOf, replayOnLinux, replayOnModel } from '../machine/open.js';
import type { OpenOptions } from '../machine/open.js';
import { showFigure } from '../schema/figure.js';
import type { ResultDocument } from '../schema/result.js';
import { formatCount } from '../schema/units.js';
import { EXIT, UsageError, print, printJson } from './output.js';
import { loadResults } from './saved-results.js';

export interface ReplayFlags {
  json?: boolean;
  model?: boolean;
  allowSystemChanges?: boolean;
}

/** What the recorded steps change of the system. @throws FeatureUnavailableError if that has not been allowed. */
function leaveFor({ experiment, trace }: ResultDocument, flags: ReplayFlags): OpenOptions {
  const allow = changesOf(trace);
  if (allow.length === 0) return {};
  if (flags.allowSystemChanges) return { allow, purpose: `cowlab replay of ${experiment}` };
  throw new FeatureUnavailableError(
    `A replay of ${experiment}`,
    `its steps change ${allow.map((change) => CHANGES[change]).join(' and ')}`,
    'Allow that with --allow-system-changes, as root (it is put back), or replay it with --model.',
  );
}

async function replayOne(result: ResultDocument, flags: ReplayFlags) {
  const { facts, trace } = result;
  if (!facts || trace.length === 0) throw new UsageError(`${result.experiment} holds no steps: ${result.reason}`);
  const predicted = await replayOnModel(trace, facts);
  const expected = repeatable(trace, predicted);
  const again = flags.model ? predicted : (await replayOnLinux(trace, leaveFor(result, flags))).trace;
  const checks = compareTraces(expected, again, 'comparison');
  const differences = checks.filter(({ pass }) => pass === false);
  return { experiment: result.experiment, on: flags.model ? 'model' : 'linux', compared: checks.length, differences };
}

/** @returns 0 if everything came out as recorded, else 1. */
export async function replayCommand(path: string, flags: ReplayFlags): Promise<number> {
  const replays = [];
  for (const result of loadResults(path)) replays.push(await replayOne(result, flags));
  if (flags.json) printJson(replays.length === 1 ? replays[0] : replays);
  else {
    for (const { experiment, on, compared, differences } of replays) {
      print(
        `${experiment}: ${formatCount(compared)} figures compared on ${on}, ${formatCount(differences.length)} differ`,
      );
      for (const { name, unit, expected, measured } of differences) {
        print(`  ${name}: recorded ${showFigure(expected)} ${unit}, now ${showFigure(measured)}`);
      }
    }
  }
  return replays.every(({ differences }) => differences.length === 0) ? EXIT.ok : EXIT.failed;
}
