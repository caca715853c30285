/** Runs the built command line as a user does. */
import { execFile, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

export const ROOT = fileURLToPath(new URL('../..', import.meta.url));
export const MAIN = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));

export interface Finished {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

interface RunOptions {
  cwd?: string;
  env?: NodeJS.ProcessEnv;
  uid?: number;
}

export function run(file: string, args: readonly string[], options: RunOptions = {}): Promise<Finished> {
  const { cwd = ROOT, env = process.env, uid } = options;
  const identity = uid === undefined ? {} : { uid, gid: uid };
  return new Promise((resolve) => {
    const child = execFile(file, [...args], { cwd, env, ...identity, maxBuffer: 2 ** 28 }, (_error, stdout, stderr) => {
      resolve({ code: child.exitCode, signal: child.signalCode, stdout, stderr });
    });
  });
}

/** Standard error as it was before its long lines were broken. */
export function unbroken(stderr: string): string {
  return stderr.replaceAll('\n  ', ' ');
}

export function cowlab(args: readonly string[], options?: RunOptions): Promise<Finished> {
  return run(process.execPath, [MAIN, ...args], options);
}

export function start(args: readonly string[]) {
  return spawn(process.execPath, [MAIN, ...args], { cwd: ROOT, stdio: ['ignore', 'pipe', 'pipe'] });
}
