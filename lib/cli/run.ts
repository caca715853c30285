/** `cowlab run`: experiments, one after the other. */
import { existsSync } from 'node:fs';
import { totalmem } from 'node:os';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { Listr, ListrLogger, ProcessOutput } from 'listr2';
import type { ListrDefaultRendererLogLevels } from 'listr2';
import { experiments, findExperiment } from '../experiments/catalogue.js';
import { isExperiment, parseParams } from '../experiments/define.js';
import type { AnyExperiment } from '../experiments/define.js';
import { CHANGES, predictExperiment, runExperiment } from '../experiments/run.js';
import { readHostFacts } from '../proc/host.js';
import { wrap } from '../report/paragraph.js';
import { renderText } from '../report/text.js';
import { assumedFacts } from '../schema/assumed-facts.js';
import type { HostFacts } from '../schema/facts.js';
import type { ParamValues, ResultDocument, Verdict } from '../schema/result.js';
import { formatBytes } from '../schema/units.js';
import { openExportFlags, writeExports } from './exports.js';
import type { ExportFlags, OpenExport } from './exports.js';
import { EXIT, UsageError, note, print, wantsColor } from './output.js';

export interface RunFlags extends ExportFlags {
  param?: string[];
  model?: boolean;
  dryRun?: boolean;
  allowSystemChanges?: boolean;
}

/** @throws UsageError that names the file, whatever is wrong with it: the error alone tells no more than what. */
async function load(file: string): Promise<{ default?: unknown }> {
  try {
    return (await import(pathToFileURL(resolve(file)).href)) as { default?: unknown };
  } catch (error) {
    const said = error instanceof Error ? error.message : String(error);
    throw new UsageError(`${file} is no module that can be loaded (\`node ${file}\` says where it fails): ${said}`);
  }
}

/** An experiment by its name, or the default export of a file. */
export async function findOrLoad(nameOrFile: string): Promise<AnyExperiment> {
  const known = findExperiment(nameOrFile);
  if (known) return known;
  if (!existsSync(nameOrFile)) {
    const names = experiments.map(({ name }) => name).join(', ');
    throw new UsageError(`there is no experiment ${nameOrFile}, and no such file; experiments: ${names}`);
  }
  const module = await load(nameOrFile);
  if (!isExperiment(module.default)) {
    throw new UsageError(`${nameOrFile} must have the result of defineExperiment({...}) as its default export`);
  }
  return module.default;
}

export function parsePairs(pairs: readonly string[]): Record<string, string> {
  // By fromEntries, which makes a property of __proto__ too.
  return Object.fromEntries(
    pairs.map((pair) => {
      const equals = pair.indexOf('=');
      if (equals < 1) throw new UsageError(`--param ${pair}: write name=value`);
      return [pair.slice(0, equals), pair.slice(equals + 1)];
    }),
  );
}

export interface Planned {
  experiment: AnyExperiment;
  params: ParamValues;
}

/** A parameter given for several experiments goes to those that have it; one that none has is an error. */
export function plan(chosen: readonly AnyExperiment[], given: Record<string, string>): Planned[] {
  for (const name of Object.keys(given)) {
    if (chosen.length > 1 && chosen.some(({ params }) => Object.hasOwn(params, name))) continue;
    for (const experiment of chosen) parseParams(experiment, { [name]: given[name] });
  }
  return chosen.map((experiment) => {
    const own = Object.entries(given).filter(([name]) => Object.hasOwn(experiment.params, name));
    return { experiment, params: parseParams(experiment, Object.fromEntries(own)) };
  });
}

/** Of this host; where there is no Linux, what the model alone is asked for is predicted for a plain one. */
function factsFor(flags: RunFlags): HostFacts {
  if (process.platform === 'linux' || !flags.model) return readHostFacts(process.pid);
  const memoryBytes = totalmem();
  note(`this is ${process.platform}: predicting for a plain Linux with ${formatBytes(memoryBytes)} of RAM`);
  return assumedFacts(memoryBytes);
}

function describePlan({ experiment, params }: Planned, flags: RunFlags): string {
  const { memoryBytes, lacking, changes = [] } = experiment.needs(params, factsFor(flags));
  const settings = changes.map((change) => CHANGES[change]).join(' and ');
  const change = settings === '' ? 'change no setting' : `change ${settings} of the system, and put them back`;
  const uses = lacking ?? `would use up to ${formatBytes(memoryBytes)} of memory and ${change}`;
  const values = Object.entries(params).map(([name, value]) => `${name}=${String(value)}`);
  return `${experiment.name} ${values.join(' ')}\n  ${uses}`;
}

/** What is open now, which an interrupt closes. */
let running: { close(): Promise<void> } | undefined;

async function interrupt(): Promise<void> {
  note('interrupted, cleaning up');
  try {
    await running?.close();
  } catch (error) {
    note(error instanceof Error ? error.message : String(error));
  }
  process.exit(EXIT.interrupted);
}

function runOne({ experiment, params }: Planned, flags: RunFlags, progress: (text: string) => void) {
  if (flags.model) return predictExperiment(experiment, params, factsFor(flags), { progress });
  return runExperiment(experiment, params, {
    progress,
    allowSystemChanges: flags.allowSystemChanges === true,
    opened: (opened) => {
      running = opened;
    },
  });
}

async function runAll(planned: readonly Planned[], flags: RunFlags): Promise<ResultDocument[]> {
  const results: ResultDocument[] = [];
  const logger = new ListrLogger<ListrDefaultRendererLogLevels>({
    processOutput: new ProcessOutput(process.stderr, process.stderr),
  });
  const tasks = new Listr(
    planned.map((one) => ({
      title: one.experiment.name,
      task: async (_context, task): Promise<void> => {
        results.push(
          await runOne(one, flags, (text) => {
            task.output = text;
          }),
        );
      },
    })),
    {
      renderer: process.stderr.isTTY ? 'default' : 'silent',
      rendererOptions: { logger, clearOutput: true, removeEmptyLines: true, formatOutput: 'truncate' },
      registerSignalListeners: false,
    },
  );
  if (!process.stderr.isTTY) note(`running ${planned.map(({ experiment }) => experiment.name).join(', ')}`);
  await tasks.run();
  return results;
}

const EXIT_OF: Record<Verdict, number> = {
  pass: EXIT.ok,
  fail: EXIT.failed,
  inconclusive: EXIT.failed,
  skip: EXIT.unavailable,
};

/** The exit code of several results: the worst of all, failures before skips. */
export function exitCodeOfResults(results: readonly ResultDocument[]): number {
  const codes = results.map(({ verdict }) => EXIT_OF[verdict]);
  return codes.includes(EXIT.failed) ? EXIT.failed : Math.max(EXIT.ok, ...codes);
}

/**
 * Writes results to files, and as text to standard output unless that is one of them.
 * @param files Opened by openExportFlags(), closed here.
 * @returns Whether the text was printed.
 */
export async function deliver(results: readonly ResultDocument[], files: readonly OpenExport[]): Promise<boolean> {
  if (await writeExports(results, files)) return false;
  print(results.map((result) => renderText(result, { color: wantsColor() })).join('\n'));
  return true;
}

/** What somebody may want to know next of those that came to something. */
function nextSteps(results: readonly ResultDocument[]): string | undefined {
  const told = results.filter(({ measurement, prediction }) => measurement ?? prediction);
  if (told.length === 0) return undefined;
  const known = told.map(({ experiment }) => experiment).filter((name) => findExperiment(name));
  const why = known.map((name) => `cowlab explain ${name}`).join(', ');
  const report = 'With --export-html FILE all this is a page with plots and page maps.';
  return `\n${wrap(why === '' ? report : `Why it is so: ${why}. ${report}`)}`;
}

/** @returns The exit code: that of the results, or 0 where nothing was to be measured. */
export async function runCommand(names: readonly string[], flags: RunFlags): Promise<number> {
  const chosen: AnyExperiment[] = [];
  for (const name of names) chosen.push(await findOrLoad(name));
  const planned = plan(chosen, parsePairs(flags.param ?? []));
  if (flags.dryRun) {
    print(planned.map((one) => describePlan(one, flags)).join('\n'));
    return EXIT.ok;
  }
  // Files are opened before anything is measured: a bad path must not cost a run.
  const files = openExportFlags(flags);
  process.once('SIGINT', () => void interrupt());
  process.once('SIGTERM', () => void interrupt());
  const results = await runAll(planned, flags);
  const shown = await deliver(results, files);
  const next = shown && !flags.exportHtml ? nextSteps(results) : undefined;
  if (next !== undefined) print(next);
  if (flags.model) return EXIT.ok;
  return exitCodeOfResults(results);
}
