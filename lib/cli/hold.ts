/** `cowlab hold`: processes whose memory is known, held still while another tool is asked about them. */
import { existsSync } from 'node:fs';
import { createInterface } from 'node:readline';
import type { ParamSpec } from '../experiments/define.js';
import { fixtures } from '../fixtures/catalogue.js';
import { holdFixture } from '../fixtures/held.js';
import type { HeldFixture } from '../fixtures/held.js';
import type { SavedTrace } from '../fixtures/recorded.js';
import { NoTruthError } from '../fixtures/truth.js';
import { wrap } from '../report/paragraph.js';
import type { CommandOutput } from '../report/paragraph.js';
import type { HoldError } from '../schema/fixture.js';
import { formatBytes } from '../schema/units.js';
import { EXIT, UsageError, note, onOutputGone } from './output.js';
import { parsePairs } from './run.js';

export interface HoldFlags {
  param?: string[];
  allowSystemChanges?: boolean;
}

/** When to say that something takes its time. */
const PATIENCE_MS = 2000;

/** As it would be written on the command line. */
function defaultOf(spec: ParamSpec): string {
  return spec.type === 'size' ? formatBytes(spec.default).replace(' ', '') : String(spec.default);
}

export function listFixtures(): CommandOutput {
  const rows = fixtures.map(({ name, title, params }) => ({ name, title, params }));
  const text = rows.flatMap(({ name, title, params }) => {
    const values = Object.entries(params).map(([param, spec]) => `${param}=${defaultOf(spec)}`);
    const lines = [wrap(title, name.padEnd(18), ' '.repeat(18))];
    return values.length > 0 ? [...lines, wrap(values.join(' '), ' '.repeat(18), ' '.repeat(18))] : lines;
  });
  return { text: text.join('\n'), json: rows, exitCode: EXIT.ok };
}

async function fixtureOrTrace(nameOrFile: string): Promise<string | SavedTrace> {
  if (fixtures.some(({ name }) => name === nameOrFile)) return nameOrFile;
  if (!existsSync(nameOrFile)) {
    const names = fixtures.map(({ name }) => name).join(', ');
    throw new UsageError(`there is no fixture ${nameOrFile}, and no such file; fixtures: ${names}`);
  }
  // Loaded when needed: the validation of results takes longer than most fixtures.
  const { loadResults } = await import('./saved-results.js');
  const [result, ...others] = loadResults(nameOrFile);
  if (!result || others.length > 0) {
    throw new UsageError(`${nameOrFile} holds ${String(others.length + 1)} results: give a file with one`);
  }
  return result;
}

/** Writes a line of JSON, and waits until it is out. */
function tell(value: unknown): Promise<void> {
  return new Promise((resolve) => {
    process.stdout.write(`${JSON.stringify(value)}\n`, () => {
      resolve();
    });
  });
}

function asError(error: unknown): HoldError {
  const said = error instanceof Error ? error.message : String(error);
  return error instanceof NoTruthError ? { error: said, differences: error.differences } : { error: said };
}

/** Closes what is open, once, and ends the command line with it when that is asked for from outside. */
class Ending {
  #open: { close(): Promise<void> } | undefined;
  #ended = false;

  opened(what: { close(): Promise<void> }): void {
    this.#open = what;
    if (this.#ended) void this.close();
  }

  async close(): Promise<void> {
    await this.#open?.close();
  }

  async exit(code: number): Promise<void> {
    if (this.#ended) return;
    this.#ended = true;
    try {
      await this.close();
    } catch (error) {
      note(error instanceof Error ? error.message : String(error));
    }
    process.exit(code);
  }
}

/** @returns False when it was the last command. */
async function obey(held: HeldFixture, command: string): Promise<boolean> {
  switch (command) {
    case 'step':
      await tell(await held.step());
      return true;
    case 'observe':
      await tell(await held.observe());
      return true;
    case 'quit':
      await held.close();
      await tell({ quit: true });
      return false;
    default:
      throw new UsageError(`there is no command ${JSON.stringify(command)}; commands: step, observe, quit`);
  }
}

/** Until `quit`, or until nobody can say it any more. @returns 1 if at any time there was no truth to tell, else 0. */
async function serve(held: HeldFixture): Promise<number> {
  let code: number = EXIT.ok;
  for await (const line of createInterface({ input: process.stdin, terminal: false })) {
    try {
      if (!(await obey(held, line.trim()))) break;
    } catch (error) {
      if (error instanceof NoTruthError) code = EXIT.failed;
      await tell(asError(error));
    }
  }
  return code;
}

async function start(name: string, flags: HoldFlags, ending: Ending): Promise<HeldFixture> {
  const fixture = await fixtureOrTrace(name);
  const late = setTimeout(() => {
    note(`making ${name}`);
  }, PATIENCE_MS);
  try {
    return await holdFixture(fixture, parsePairs(flags.param ?? []), {
      allowSystemChanges: flags.allowSystemChanges === true,
      opened: (what) => {
        ending.opened(what);
      },
    });
  } finally {
    clearTimeout(late);
  }
}

/** @returns The exit code, once the processes have ended. */
export async function holdCommand(name: string, flags: HoldFlags): Promise<number> {
  const ending = new Ending();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => void ending.exit(EXIT.interrupted));
  }
  onOutputGone(() => void ending.exit(EXIT.ok));
  const held = await start(name, flags, ending);
  try {
    await tell(held.truth);
    if (process.stdin.isTTY) note('held; type step, observe or quit');
    return await serve(held);
  } finally {
    await held.close();
    process.stdin.destroy();
  }
}
