/** `cowlab watch`: follows a process tree as it forks and exits, and says what it took and who broke which sharing. */
import { closeSync, writeSync } from 'node:fs';
import { constants } from 'node:os';
import { clearScreenDown, moveCursor } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { spawn } from '../api/spawn.js';
import type { SpawnedProgram } from '../api/spawn.js';
import { FeatureUnavailableError, SystemError } from '../errors.js';
import { ifThere } from '../proc/process-tree.js';
import { readStat } from '../proc/stat.js';
import { TreeWatch } from '../proc/tree-watch.js';
import type { TreeSample } from '../proc/tree-watch.js';
import type { WatchedMemory } from '../proc/watched-process.js';
import { bounds } from '../schema/figure.js';
import type { ExitStatus } from '../schema/step.js';
import { openExportFlags } from './exports.js';
import type { ExportFlags, OpenExport } from './exports.js';
import { EXIT, UsageError, note, requirePid, wantsColor } from './output.js';
import { liveText, summaryText } from './watch-text.js';
import type { HistoryPoint } from './watch-text.js';

export interface WatchFlags extends Pick<ExportFlags, 'json' | 'exportJson' | 'exportCsv'> {
  pid?: string;
  interval: string;
  maxLoad: string;
  until?: string;
}

/** The memory of a process is read in at most this share of the time, since it may have to wait meanwhile. */
const DUTY = 0.05;
/** So much of a core may be used where processes come and go, which is read at once; or --max-load, if that is more. */
const LOAD = 0.25;
/** A program is looked at more often while it is young, or a short one would not be seen at all. */
const YOUNG_MS = 20;

const CSV_HEADER =
  'elapsed_ms,pid,parent,program,rss_kb,pss_kb,uss_kb,shared_kb,minor_faults,copied_at_most_kb,age_ms,sample_cost_ms';

function csvRows({ elapsedMs, costMs, processes }: TreeSample): string {
  const rows = processes.map((one) =>
    [
      elapsedMs.toFixed(1),
      one.pid,
      one.parent,
      // The kernel's name for a program may hold anything; RFC 4180.
      `"${one.comm.replaceAll('"', '""')}"`,
      one.rssKb,
      one.pssKb,
      one.ussKb,
      one.sharedKb,
      one.minorFaults,
      bounds(one.copiedKb).max,
      one.ageMs.toFixed(0),
      costMs.toFixed(2),
    ].join(','),
  );
  return rows.map((row) => `${row}\n`).join('');
}

function asJson(value: unknown): string {
  return JSON.stringify(value, (_key, part: unknown) => (typeof part === 'bigint' ? `0x${part.toString(16)}` : part));
}

/** What is kept of all samples: points for the plot, and of each process the most and the last. */
class History {
  readonly samples: HistoryPoint[] = [];
  readonly processes = new Map<string, WatchedMemory>();
  peak: TreeSample | undefined;
  lengthened = 0;
  readonly #unreadable = new Set<number>();

  constructor(
    readonly intervalMs: number,
    readonly maxLoad: number,
  ) {}

  get unreadable(): number {
    return this.#unreadable.size;
  }

  add(sample: TreeSample): void {
    const { elapsedMs, costMs, longestReadMs, pssKb, ussKb, rssKb, processes } = sample;
    if (pssKb > (this.peak?.pssKb ?? -1)) this.peak = sample;
    for (const pid of sample.unreadable) this.#unreadable.add(pid);
    for (const process of processes) {
      const key = `${String(process.pid)} ${String(process.startTicks)}`;
      const before = this.processes.get(key);
      this.processes.set(key, {
        ...process,
        pssKb: Math.max(process.pssKb, before?.pssKb ?? 0),
        ussKb: Math.max(process.ussKb, before?.ussKb ?? 0),
      });
    }
    // Of those that have ended, what they had last stays in these sums.
    const all = [...this.processes.values()];
    const faults = all.reduce((total, one) => total + one.minorFaults, 0);
    const copiedKb = all.reduce((total, one) => total + bounds(one.copiedKb).max, 0);
    const figures = { elapsedMs, costMs, longestReadMs, pssKb, ussKb, rssKb, faults, copiedKb };
    this.samples.push({ ...figures, processes: processes.length });
  }
}

/** Where samples go besides the screen, each as soon as it is taken. */
class Exports {
  /** Standard output is for samples alone, and for nothing that people or a program would print. */
  readonly takesStandardOutput: boolean;

  constructor(private readonly files: readonly OpenExport[]) {
    this.takesStandardOutput = files.some(({ file }) => file === 'standard output');
    for (const one of files) if (one.format === 'csv') this.#append(one, `${CSV_HEADER}\n`);
  }

  write(sample: TreeSample): void {
    for (const one of this.files) {
      this.#append(one, one.format === 'csv' ? csvRows(sample) : `${asJson(sample)}\n`);
    }
  }

  end(summary: unknown): void {
    for (const one of this.files) {
      if (one.format === 'json') this.#append(one, `${asJson(summary)}\n`);
      if (one.file !== 'standard output') closeSync(one.file);
    }
  }

  #append({ file }: OpenExport, text: string): void {
    if (file === 'standard output') process.stdout.write(text);
    else writeSync(file, text);
  }
}

/** Draws over what it drew before. */
class Screen {
  #lines = 0;

  constructor(private readonly stream: NodeJS.WriteStream | undefined) {}

  draw(text: () => string): void {
    if (!this.stream) return;
    this.clear();
    const shown = text()
      .split('\n')
      .slice(0, (this.stream.rows || 24) - 1);
    this.stream.write(`${shown.join('\n')}\n`);
    this.#lines = shown.length;
  }

  clear(): void {
    if (!this.stream || this.#lines === 0) return;
    moveCursor(this.stream, 0, -this.#lines);
    clearScreenDown(this.stream);
    this.#lines = 0;
  }
}

/** @returns The share of a core. */
function requirePercent(name: string, text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !(value > 0) || value > 100) {
    throw new UsageError(`${name} must be percent of one core, above 0 and up to 100, not ${text}`);
  }
  return value / 100;
}

function requireSeconds(name: string, text: string, least: number): number {
  const value = Number(text);
  if (text.trim() === '' || !(value >= least) || value > 86_400) {
    throw new UsageError(`${name} must be seconds, from ${String(least)} to 86400, not ${text}`);
  }
  return value * 1000;
}

interface Session {
  watch: TreeWatch;
  history: History;
  exports: Exports;
  screen: Screen;
  untilMs: number;
  stop: AbortController;
  /** Whether there is nothing to wait for any more. */
  over: () => boolean;
}

/** How long to wait after a look, so that neither the tree waits for us too often nor we take too much of a core. */
function pauseAfter(sample: TreeSample, { intervalMs, maxLoad }: History): { pauseMs: number; isLonger: boolean } {
  const { costMs, longestReadMs, elapsedMs } = sample;
  const wantedMs = Math.min(intervalMs, Math.max(YOUNG_MS, elapsedMs / 4));
  const load = Math.max(LOAD, maxLoad);
  let restMs = Math.max(longestReadMs * (1 / DUTY - 1), costMs * (1 / load - 1));
  // Of the load, half is for memory (ReadingPace); the looks in between are not to take more than the other.
  const isYoung = wantedMs < intervalMs;
  if (longestReadMs === 0 && !isYoung) restMs = Math.max(restMs, costMs * (2 / maxLoad - 1));
  return { pauseMs: Math.max(wantedMs, restMs), isLonger: restMs > intervalMs };
}

async function follow({ watch, history, exports, screen, untilMs, stop, over }: Session): Promise<void> {
  const began = performance.now();
  for (;;) {
    const isLast = stop.signal.aborted || over() || performance.now() - began >= untilMs;
    const sample = watch.sample({ whole: isLast });
    if (sample.processes.length === 0 && sample.unreadable.length === 0) return;
    history.add(sample);
    exports.write(sample);
    screen.draw(() => liveText(sample, history.samples));
    if (isLast) return;
    const { pauseMs, isLonger } = pauseAfter(sample, history);
    if (isLonger) history.lengthened++;
    const leftMs = Math.max(0, untilMs - (performance.now() - began));
    await sleep(Math.min(pauseMs, leftMs), undefined, { signal: stop.signal }).catch(() => undefined);
  }
}

/** A program that may not be watched, such as one that becomes root, runs all the same. */
function tryWatch(pid: number, maxLoad: number): TreeWatch | undefined {
  try {
    return ifThere(() => new TreeWatch(pid, { maxLoad }));
  } catch (error) {
    // It has ended already, and nobody has waited for it yet.
    if (error instanceof FeatureUnavailableError) return undefined;
    if (!(error instanceof SystemError)) throw error;
    note(`it runs without being watched: ${error.message}`);
    return undefined;
  }
}

/** @param outputTo Where its standard output goes: 1, or 2 when ours is for samples. */
function startCommand([file = '', ...args]: readonly string[], outputTo: 1 | 2): SpawnedProgram {
  try {
    return spawn(file, args, { stdio: [0, outputTo, 2] });
  } catch (error) {
    if (!(error instanceof SystemError)) throw error;
    const why = error.code === 'ENOENT' ? 'there is no such program in PATH' : error.message;
    throw new UsageError(`${file} cannot be run: ${why}`);
  }
}

/** As a shell has it: 128 and the number of the signal. */
function exitCodeOfProgram({ code, signal }: ExitStatus): number {
  if (signal === undefined) return code ?? EXIT.failed;
  return 128 + constants.signals[signal as NodeJS.Signals];
}

/** For a program and what it starts: until it has ended. */
async function watchCommand(command: readonly string[], session: SessionParts): Promise<number> {
  // A terminal sends Ctrl-C to the program as well, which decides what comes of it.
  const inTerminal = [process.stdin, process.stdout, process.stderr].some(({ isTTY }) => isTTY);
  // Before it is started: a signal in between would end us and leave it running.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'] as const) {
    process.on(signal, () => {
      if (signal !== 'SIGINT' || !inTerminal) program.kill(signal);
    });
  }
  const program = startCommand(command, session.exports.takesStandardOutput ? 2 : 1);
  const stop = new AbortController();
  void program.ended.then(() => {
    stop.abort();
  });
  const watch = tryWatch(program.pid, session.history.maxLoad);
  if (watch) await follow({ ...session, watch, stop, over: () => program.status !== undefined });
  session.screen.clear();
  const status = await program.ended;
  const how = status.signal === undefined ? `with code ${String(status.code)}` : `by ${status.signal}`;
  const code = exitCodeOfProgram(status);
  finish(`${command[0] ?? ''} has ended ${how}`, watch, session, process.stderr, { code });
  return code;
}

/** For a process that is there: until its tree has ended, or one has seen enough. */
async function watchProcess(pid: number, session: SessionParts): Promise<number> {
  const { comm } = readStat(pid);
  const watch = new TreeWatch(pid, { exclude: process.pid, maxLoad: session.history.maxLoad });
  const stop = new AbortController();
  const abort = (): void => {
    stop.abort();
  };
  process.once('SIGINT', abort);
  process.once('SIGTERM', abort);
  await follow({ ...session, watch, stop, over: () => false });
  session.screen.clear();
  const name = `${comm} (${String(pid)})`;
  const ended = ifThere(() => readStat(pid)) === undefined;
  const stream = session.exports.takesStandardOutput ? process.stderr : process.stdout;
  finish(ended ? `${name} has ended` : `${name} goes on`, watch, session, stream, {});
  return stop.signal.aborted ? EXIT.interrupted : EXIT.ok;
}

type SessionParts = Pick<Session, 'history' | 'exports' | 'screen' | 'untilMs'>;

function finish(
  what: string,
  watch: TreeWatch | undefined,
  { history, exports }: SessionParts,
  stream: NodeJS.WriteStream,
  ending: { code?: number },
): void {
  const broken = watch?.broken ?? [];
  const { samples, peak, processes, intervalMs, maxLoad, lengthened, unreadable } = history;
  exports.end({ summary: { ...ending, what, samples: samples.length, peakPssKb: peak?.pssKb ?? 0, broken } });
  const deferred = watch?.deferred ?? 0;
  const whole = { samples, peak, processes, intervalMs, maxLoad, lengthened, deferred, unreadable, broken };
  stream.write(summaryText(what, whole, { color: wantsColor(stream) }));
}

/** The terminal that may be drawn on: not that of a program which writes there itself. */
function screenFor({ takesStandardOutput }: Exports, runs: boolean): Screen {
  if (!runs) return new Screen(!takesStandardOutput && process.stdout.isTTY ? process.stdout : undefined);
  const free = process.stderr.isTTY && !process.stdout.isTTY && !takesStandardOutput;
  return new Screen(free ? process.stderr : undefined);
}

/**
 * @param command What to run; empty with --pid.
 * @returns The exit code: that of the program, if one was run.
 */
export async function watchTree(command: readonly string[], flags: WatchFlags): Promise<number> {
  if ((flags.pid === undefined) === (command.length === 0)) {
    throw new UsageError('give either --pid PID or a command after --, as in `cowlab watch -- python3 train.py`');
  }
  const pid = flags.pid === undefined ? undefined : requirePid('--pid', flags.pid);
  const intervalMs = requireSeconds('--interval', flags.interval, 0.01);
  const untilMs = flags.until === undefined ? Infinity : requireSeconds('--until', flags.until, 0);
  const history = new History(intervalMs, requirePercent('--max-load', flags.maxLoad));
  // Files are opened before anything is started or read.
  const exports = new Exports(openExportFlags(flags));
  const session = { history, exports, screen: screenFor(exports, command.length > 0), untilMs };
  if (pid !== undefined) return watchProcess(pid, session);
  if (process.stdout.isTTY && process.stderr.isTTY && !exports.takesStandardOutput) {
    note('the terminal is the program’s; for a live table send its output elsewhere, or watch --pid from another one');
  }
  return watchCommand(command, session);
}
