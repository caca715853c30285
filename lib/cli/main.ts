#!/usr/bin/env node
/** The command line: parses, calls, prints, and ends with the exit code. */
import { createRequire } from 'node:module';
import { Command, CommanderError } from 'commander';
import { FeatureUnavailableError } from '../errors.js';
import { experiments } from '../experiments/catalogue.js';
import { predictFork } from '../machine/linux/predict.js';
import { examineHost } from '../proc/doctor.js';
import { pageSizeBytes, readHostFacts, tryNativeProbes } from '../proc/host.js';
import { readSharing } from '../proc/sharers.js';
import type { CommandOutput } from '../report/paragraph.js';
import { wrap } from '../report/paragraph.js';
import type { HoldFlags } from './hold.js';
import { leftBehindFinding, runDoctor, runRestore } from './doctor.js';
import { runExplain } from './explain.js';
import { EXIT, UsageError, exitCodeOf, note, print, printJson, requirePid, wantsColor, watchOutput } from './output.js';
import { runInspect } from './inspect.js';
import { runPredict } from './predict.js';
import type { ReplayFlags } from './replay.js';
import type { ReportFlags } from './report.js';
import { runCommand } from './run.js';
import type { RunFlags } from './run.js';
import type { VmRunFlags } from './vm.js';
import type { WatchFlags } from './watch.js';

const { version } = createRequire(import.meta.url)('../../package.json') as { version: string };

let exitCode: number = EXIT.ok;

function answer({ text, json, exitCode: code }: CommandOutput, flags: { json?: boolean }): void {
  if (flags.json) printJson(json);
  else print(text);
  exitCode = code;
}

/** Where titles begin: behind the longest name. */
const LIST_COLUMN = Math.max(...experiments.map(({ name }) => name.length)) + 2;

function list(flags: { json?: boolean }): void {
  const rows = experiments.map(({ name, title, claim, params }) => ({ name, title, claim, params }));
  const text = rows.map(({ name, title }) => wrap(title, name.padEnd(LIST_COLUMN), ' '.repeat(LIST_COLUMN))).join('\n');
  answer({ text, json: rows, exitCode: EXIT.ok }, flags);
}

async function doctor(flags: { json?: boolean; restore?: boolean }): Promise<void> {
  if (flags.restore) {
    answer(runRestore(), flags);
    return;
  }
  const color = wantsColor();
  const { vmFinding } = await import('./vm.js');
  try {
    const probes = tryNativeProbes();
    const findings = [...examineHost({ probes, pageSizeBytes: pageSizeBytes() }), leftBehindFinding(), vmFinding()];
    answer(runDoctor(findings, { color }), flags);
  } catch (error) {
    if (!(error instanceof FeatureUnavailableError)) throw error;
    note(error.message);
    // Without the addon the page size is not known; 4096 serves to show amounts of memory.
    answer(runDoctor([...examineHost({ probes: undefined, pageSizeBytes: 4096 }), vmFinding()], { color }), flags);
  }
}

function inspect(text: string, flags: { json?: boolean }): void {
  const pid = requirePid('PID', text);
  const sharing = readSharing(pid);
  const smaps = sharing.mappings.map(({ vma }) => vma);
  const fork = predictFork(pid, readHostFacts(process.pid), undefined, undefined, smaps);
  answer(runInspect(sharing, fork, { color: wantsColor() }), flags);
}

function predict(flags: { pid?: string; json?: boolean }): void {
  const pid = flags.pid === undefined ? process.ppid : requirePid('--pid', flags.pid);
  answer(runPredict(predictFork(pid, readHostFacts(process.pid)), { color: wantsColor() }), flags);
}

async function hold(name: string | undefined, flags: HoldFlags & { list?: boolean; json?: boolean }): Promise<void> {
  const { holdCommand, listFixtures } = await import('./hold.js');
  if (flags.list) answer(listFixtures(), flags);
  else if (name === undefined) throw new UsageError('give a fixture; cowlab hold --list names them');
  else exitCode = await holdCommand(name, flags);
}

function collect(value: string, previous: string[] = []): string[] {
  return [...previous, value];
}

const STANDARD_OUTPUT_HELP = '\nA <file> of - is standard output.';

/** The files that results are written to. */
function addExports(command: Command): Command {
  return command
    .addHelpText('after', STANDARD_OUTPUT_HELP)
    .option('--export-json <file>', 'also write the result document to a file; may be repeated', collect)
    .option('--export-html <file>', 'also write a report, one HTML file; may be repeated', collect)
    .option('--export-markdown <file>', 'also write a report for a pull request; may be repeated', collect)
    .option('--export-csv <file>', 'also write the raw samples, an observation a row; may be repeated', collect);
}

function build(): Command {
  const program = new Command('cowlab')
    .description('A laboratory for fork() and copy-on-write on Linux')
    .version(version)
    .exitOverride()
    .showHelpAfterError('(cowlab --help lists the commands)');
  program
    .command('list')
    .description('the experiments, a line each')
    .option('--json', 'JSON on standard output')
    .action(list);
  addExports(program.command('run'))
    .description('run experiments, or files whose default export is one')
    .argument('<experiment...>', 'names from `cowlab list`, or paths of .mjs files')
    .option('-p, --param <name=value>', 'a parameter; may be repeated', collect)
    .option('--json', 'the result document on standard output')
    .option('--model', 'the prediction alone; nothing is forked')
    .option('--dry-run', 'say what would be used, and run nothing')
    .option('--allow-system-changes', 'settings of the whole system may be changed; they are put back')
    .action(async (names: string[], flags: RunFlags) => {
      exitCode = await runCommand(names, flags);
    });
  program
    .command('replay')
    .description('repeat the steps of a saved result here, and show what differs')
    .argument('<result>', 'a file written by --json or --export-json')
    .option('--json', 'JSON on standard output')
    .option('--model', 'repeat them on the model, with the recorded facts')
    .option('--allow-system-changes', 'settings of the whole system may be changed; they are put back')
    .action(async (path: string, flags: ReplayFlags) => {
      // Loaded when needed: the validation of results is half of the start-up time.
      const { replayCommand } = await import('./replay.js');
      exitCode = await replayCommand(path, flags);
    });
  program
    .command('compare')
    .description('two saved results, difference by difference: two kernels, two settings, before and after')
    .argument('<a>', 'a file written by --json or --export-json')
    .argument('<b>', 'another')
    .option('--json', 'JSON on standard output')
    .action(async (a: string, b: string, flags: { json?: boolean }) => {
      const { runCompare } = await import('./compare.js');
      answer(await runCompare(a, b, { color: wantsColor() }), flags);
    });
  program
    .command('report')
    .description('saved results as a report; several make a comparison')
    .argument('<result...>', 'files written by --json or --export-json')
    .addHelpText('after', STANDARD_OUTPUT_HELP)
    .option('--html <file>', 'one self-contained HTML file (the default, on standard output); may be repeated', collect)
    .option('--markdown <file>', 'for a pull request or a hand-in; may be repeated', collect)
    .option('--csv <file>', 'the raw samples, an observation a row; may be repeated', collect)
    .action(async (paths: string[], flags: ReportFlags) => {
      await (await import('./report.js')).reportCommand(paths, flags);
    });
  program
    .command('predict')
    .description('would a fork of a process succeed here, and what would it charge?')
    .option('--pid <pid>', 'the process; without it, the one that called cowlab')
    .option('--json', 'JSON on standard output')
    .action(predict);
  program
    .command('inspect')
    .description('the mappings of a process: how much is shared and with whom, and what a fork would charge')
    .argument('<pid>', 'a process of your own, or of anybody as root')
    .option('--json', 'JSON on standard output')
    .action(inspect);
  program
    .command('watch')
    .description('follow a process tree as it forks: what it takes, and who copies what was shared')
    .usage('[options] --pid <pid> | -- <command...>')
    .argument('[command...]', 'a program to run and watch; its exit code is passed on')
    .option('--pid <pid>', 'a process of your own, with all that descend from it')
    .option('--interval <seconds>', 'between samples; longer where a look takes long', '1')
    .option('--max-load <percent>', 'of one core, for reading memory; 100 reads it in each sample where it stirs', '5')
    .option('--until <seconds>', 'stop watching after so long; a program that was run goes on to its end')
    .option(
      '--json',
      'one object a sample on standard output, the last a summary; what a command prints goes to stderr',
    )
    .option('--export-json <file>', 'the same to a file; may be repeated', collect)
    .option('--export-csv <file>', 'a row for each process and sample; may be repeated', collect)
    .addHelpText('after', `${STANDARD_OUTPUT_HELP} As with --json, no table is drawn there then.`)
    .action(async (command: string[], flags: WatchFlags) => {
      exitCode = await (await import('./watch.js')).watchTree(command, flags);
    });
  program
    .command('hold')
    .description('processes whose memory is known, held still: what another tool can be tested against')
    .argument('[fixture]', 'a name from --list, or a saved result, whose steps are a fixture as well')
    .option('-p, --param <name=value>', 'a parameter; may be repeated', collect)
    .option('--list', 'the fixtures, with their parameters')
    .option('--json', 'the list as JSON; what is held is told in JSON in any case')
    .option('--allow-system-changes', 'a saved result may change settings of the whole system; they are put back')
    .action(hold);
  program
    .command('explain')
    .description('the claim, the mechanism, the formula, the figures, and what to do')
    .argument('<experiment>', 'a name from `cowlab list`')
    .option('--json', 'JSON on standard output')
    .action((name: string, flags: { json?: boolean }) => {
      answer(runExplain(name, { color: wantsColor() }), flags);
    });
  program
    .command('doctor')
    .description('what this host offers, what each thing is needed for, and what would help')
    .option('--json', 'JSON on standard output')
    .option('--restore', 'put back the settings that a killed run has left changed')
    .action(doctor);
  addVm(program);
  return program;
}

function addVm(program: Command): void {
  const vm = program.command('vm').description('experiments as root on another kernel, in a virtual machine (qemu)');
  addExports(vm.command('run'))
    .description('boot a kernel, run experiments in it, bring the results out; nothing changes on this machine')
    .argument('<experiment...>', 'names from `cowlab list`, or paths of .mjs files')
    .option('-k, --kernel <kernel>', 'a path, or a version such as 6.1; may be repeated (default: the newest)', collect)
    .option('-m, --memory <size>', 'memory of the guest', '4GiB')
    .option('--cpus <n>', 'processors of the guest', '2')
    .option('--cgroup <version>', 'v1 or v2', 'v2')
    .option('--accel <how>', 'kvm or tcg (default: kvm where it works)')
    .option('--timeout <seconds>', 'for each kernel', '900')
    .option('-p, --param <name=value>', 'a parameter; may be repeated', collect)
    .option('--json', 'the result document on standard output, or an array of them')
    .action(async (names: string[], flags: VmRunFlags) => {
      exitCode = await (await import('./vm.js')).vmRunCommand(names, flags);
    });
  vm.command('kernels')
    .description('the kernels that were found, the newest first')
    .option('--json', 'JSON on standard output')
    .action(async (flags: { json?: boolean }) => {
      answer((await import('./vm.js')).vmKernels(), flags);
    });
  vm.command('fetch')
    .description("get Debian's newest kernel of a version, without root (it needs apt)")
    .argument('<version>', 'such as 6.1')
    .option('--json', 'JSON on standard output')
    .action(async (version: string, flags: { json?: boolean }) => {
      answer(await (await import('./vm.js')).vmFetch(version), flags);
    });
}

async function main(): Promise<void> {
  try {
    await build().parseAsync();
  } catch (error) {
    if (error instanceof CommanderError) {
      exitCode = error.exitCode === 0 ? EXIT.ok : EXIT.usage;
    } else {
      note(error instanceof Error ? error.message : String(error));
      if (process.env['COWLAB_DEBUG'] && error instanceof Error) process.stderr.write(`${error.stack ?? ''}\n`);
      exitCode = exitCodeOf(error);
    }
  }
  process.exitCode = exitCode;
}

watchOutput();

await main();
