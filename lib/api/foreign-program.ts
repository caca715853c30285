/** Programs of others with which one talks by lines, and of which nothing is left in the end, whatever they start. */
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import type { Socket } from 'node:net';
import { delimiter, join } from 'node:path';
import { createInterface } from 'node:readline';
import { FeatureUnavailableError } from '../errors.js';
import { ownProgram } from '../own-program.js';
import { requireInteger } from '../schema/arguments.js';
import type { ExitStatus } from '../schema/step.js';
import { spawn } from './spawn.js';
import type { SpawnOptions, SpawnedProgram } from './spawn.js';

/** How much of what a program says to standard error is kept for people. */
const COMPLAINT_BYTES = 4096;

/** A program did not say what it was to say. */
export class ForeignProgramError extends Error {
  override readonly name = 'ForeignProgramError';
}

export class ForeignProgram {
  readonly #keeper: SpawnedProgram;
  readonly #input: Socket;
  readonly #lines: string[] = [];
  readonly #name: string;
  #complaints = '';
  /** Told of a line, and of the end. */
  #awaited: (() => void) | undefined;
  #over = false;

  /** @internal Use startProgram(). */
  constructor(name: string, keeper: SpawnedProgram) {
    const [input, output, errors] = keeper.stdio;
    if (!input || !output || !errors) throw new TypeError('the keeper must have pipes');
    this.#name = name;
    this.#keeper = keeper;
    this.#input = input;
    // Who has gone reads nothing: that it has is seen at its output.
    input.on('error', () => undefined);
    createInterface({ input: output }).on('line', (line) => {
      this.#lines.push(line);
      this.#awaited?.();
    });
    errors.setEncoding('utf8').on('data', (text: string) => {
      this.#complaints = (this.#complaints + text).slice(-COMPLAINT_BYTES);
    });
    // What it said last may still be on its way when it has ended.
    void Promise.all([keeper.ended, once(output, 'close'), once(errors, 'close')]).then(() => {
      this.#over = true;
      this.#awaited?.();
    });
  }

  /** How the program ended. Resolves when nothing is left of its tree. */
  get ended(): Promise<ExitStatus> {
    return this.#keeper.ended;
  }

  /** Writes a line to its standard input. */
  send(line: string): void {
    this.#input.write(`${line}\n`);
  }

  /**
   * The next line of its standard output.
   * @throws ForeignProgramError (rejects) when it says nothing for so long, or has ended; with what it complained of.
   */
  async line(milliseconds = 60_000): Promise<string> {
    requireInteger('milliseconds', milliseconds, 0, 2 ** 31 - 1);
    const deadline = performance.now() + milliseconds;
    for (;;) {
      const line = this.#lines.shift();
      if (line !== undefined) return line;
      const left = deadline - performance.now();
      if (this.#over || left <= 0) throw this.#failure(this.#over ? 'ended' : 'said nothing in time');
      await this.#wait(left);
    }
  }

  /** The next line, as JSON. @throws ForeignProgramError (rejects) when it is something else. */
  async json(milliseconds?: number): Promise<Record<string, unknown>> {
    const line = await this.line(milliseconds);
    try {
      return JSON.parse(line) as Record<string, unknown>;
    } catch {
      throw this.#failure(`said ${JSON.stringify(line.slice(0, 200))}, which is no JSON,`);
    }
  }

  /** Ends the program and all that descends from it, and waits for that. May be called again. */
  async close(): Promise<void> {
    this.#input.end();
    // Tells the keeper to end them all. Were it killed itself, nobody would.
    this.#keeper.kill('SIGHUP');
    await this.ended;
    for (const stream of this.#keeper.stdio) stream?.destroy();
  }

  async #wait(milliseconds: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const timer = setTimeout(() => {
        resolve();
      }, milliseconds);
      this.#awaited = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    this.#awaited = undefined;
  }

  #failure(what: string): ForeignProgramError {
    const complaints = this.#complaints.trim();
    return new ForeignProgramError(
      `${this.#name} ${what}${complaints === '' ? '' : `; it complained:\n${complaints}`}`,
    );
  }
}

/**
 * Starts a program in a session of its own. When it ends, when it is closed, and when Node ends, however that happens,
 * every process that descends from it is asked to end (SIGTERM), and killed if it has not after two seconds.
 * @param file Looked up in PATH unless it has a slash.
 * @throws SystemError from posix_spawn. A program that is not there ends with code 127, and says so.
 */
export function startProgram(
  file: string,
  args: readonly string[] = [],
  options: Pick<SpawnOptions, 'env' | 'cwd'> = {},
): ForeignProgram {
  const keeper = spawn(ownProgram('cowlab-keeper'), [String(process.pid), file, ...args], {
    ...options,
    stdio: ['pipe', 'pipe', 'pipe'],
    newSession: true,
  });
  return new ForeignProgram(file, keeper);
}

export interface Python {
  /** Path of the interpreter itself. */
  executable: string;
  /** [major, minor]. */
  version: [number, number];
  /** '3.11.2'. */
  release: string;
  /** The folder of its standard library. */
  standardLibrary: string;
}

const ASK =
  'import sys, platform, sysconfig; print(sys.executable); print(platform.python_version()); ' +
  "print(sysconfig.get_path('stdlib'))";

/** By PATH: an interpreter has to be started to be asked, which takes longer than most of what it is wanted for. */
const found = new Map<string, Python>();

/**
 * CPython 3 from PATH. One that has been found is not asked again.
 * @throws FeatureUnavailableError that says how to install it.
 */
export function findPython(path = process.env['PATH'] ?? ''): Python {
  const python = found.get(path) ?? askForPython(path);
  found.set(path, python);
  return python;
}

function askForPython(path: string): Python {
  const candidates = path
    .split(delimiter)
    .filter((folder) => folder !== '')
    .map((folder) => join(folder, 'python3'))
    .filter((file) => existsSync(file));
  for (const file of candidates) {
    try {
      const answer = execFileSync(file, ['-c', ASK], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
      const [executable = '', release = '', standardLibrary = ''] = answer.split('\n');
      const [major = 0, minor = 0] = release.split('.').map(Number);
      if (executable !== '' && major === 3) {
        return { executable, version: [major, minor], release, standardLibrary };
      }
    } catch {
      // One that may not be run, or is only a front for one that is not there: perhaps the next.
    }
  }
  throw new FeatureUnavailableError('python3', 'there is none in PATH', 'Install it: `apt-get install python3`.');
}
