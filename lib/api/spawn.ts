/**
 * posix_spawn(3): starts a program without copying or charging the memory of this process, however much it has.
 * `child_process.spawn` forks; it takes longer the more memory Node has, and fails with ENOMEM where fork does.
 */
import { closeSync } from 'node:fs';
import { Socket } from 'node:net';
import { resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { native } from '../native.js';
import { requireObject, requireOneOf } from '../schema/arguments.js';
import type { ExitStatus } from '../schema/step.js';
import { ENDING_SIGNALS, exitStatusOf } from './exit-status.js';
import type { EndingSignal } from './exit-status.js';

/**
 * What a descriptor of the program is: 'ignore': /dev/null; 'inherit': the one of the same number here; 'pipe': a
 * socket to this process; a number: that descriptor of this process.
 */
export type SpawnStdio = 'ignore' | 'inherit' | 'pipe' | number;

export interface SpawnOptions {
  /** Default: the environment of this process. */
  env?: Readonly<Record<string, string | undefined>>;
  /** The directory it starts in. Default: that of this process. */
  cwd?: string;
  /** Its descriptors 0, 1, 2, ..., at most 64. It has no others. Default: the three standard ones, inherited. */
  stdio?: readonly SpawnStdio[];
  /** setsid(2): in a session of its own, where the terminal's Ctrl-C does not reach it. Default false. */
  newSession?: boolean;
}

const MOST_DESCRIPTORS = 64;

/** How long to wait between two looks whether it has ended, at first and in the long run. */
const LOOK_MS = { first: 1, last: 16 } as const;

export class SpawnedProgram {
  readonly pid: number;
  /** Nanoseconds that the call took; it returns when the program is there, so exec is part of it. */
  readonly spawnNs: number;
  /** Our ends of what is 'pipe', by descriptor; undefined elsewhere. They are the caller's to end. */
  readonly stdio: readonly (Socket | undefined)[];
  /** Resolves when it has ended and has been waited for. Never rejects. Keeps Node alive until then. */
  readonly ended: Promise<ExitStatus>;
  #status: ExitStatus | undefined;

  /** @internal Use spawn(). */
  constructor(pid: number, spawnNs: number, stdio: readonly (Socket | undefined)[]) {
    this.pid = pid;
    this.spawnNs = spawnNs;
    this.stdio = stdio;
    this.ended = this.#watch();
  }

  /** How it ended; undefined while it lives. */
  get status(): ExitStatus | undefined {
    return this.#status;
  }

  /** Sends a signal that ends programs as a rule, unless it has ended. Does not wait. */
  kill(signal: EndingSignal = 'SIGTERM'): void {
    requireOneOf('signal', signal, ENDING_SIGNALS);
    // Nobody else waits for it, so the pid is its own until we have.
    if (!this.#look()) process.kill(this.pid, signal);
  }

  #look(): ExitStatus | undefined {
    if (this.#status) return this.#status;
    const figures = new Float64Array(6);
    try {
      if (!native().waitProcess(this.pid, figures)) return undefined;
    } catch {
      // Somebody else has waited for it: how it ended is not known.
      return (this.#status = {});
    }
    return (this.#status = exitStatusOf(figures));
  }

  async #watch(): Promise<ExitStatus> {
    for (let ms: number = LOOK_MS.first; ; ms = Math.min(2 * ms, LOOK_MS.last)) {
      await delay(ms);
      const status = this.#look();
      if (status) return status;
    }
  }
}

/** @throws TypeError, RangeError that name the argument. */
function requireText(name: string, value: unknown): string {
  if (typeof value !== 'string') throw new TypeError(`${name} must be a string, not ${typeof value}`);
  if (value.includes('\0')) throw new RangeError(`${name} must not hold a NUL character`);
  return value;
}

function requireEnvironment(env: SpawnOptions['env']): string[] | null {
  if (env === undefined) return null;
  requireObject('env', env);
  return Object.entries(env).flatMap(([name, value]) => {
    if (value === undefined) return [];
    if (name === '' || name.includes('='))
      throw new RangeError(`env has no variable of the name ${JSON.stringify(name)}`);
    return [`${requireText('env', name)}=${requireText(`env.${name}`, value)}`];
  });
}

interface Ends {
  descriptors: Int32Array;
  ours: (number | undefined)[];
  theirs: number[];
}

/** Opens what has to be opened; if that fails, nothing stays open. */
function openStdio(stdio: readonly SpawnStdio[]): Ends {
  const ends: Ends = { descriptors: new Int32Array(stdio.length), ours: [], theirs: [] };
  try {
    for (const [number, kind] of stdio.entries()) {
      ends.ours[number] = undefined;
      if (kind === 'pipe') {
        const [ours, theirs] = native().openChannel();
        ends.ours[number] = ours;
        ends.theirs.push(theirs);
        ends.descriptors[number] = theirs;
      } else {
        ends.descriptors[number] = kind === 'ignore' ? -1 : kind === 'inherit' ? number : kind;
      }
    }
    return ends;
  } catch (error) {
    closeAll([...ends.theirs, ...ends.ours]);
    throw error;
  }
}

function closeAll(fds: readonly (number | undefined)[]): void {
  for (const fd of fds) if (fd !== undefined) closeSync(fd);
}

function requireStdio(stdio: unknown): readonly SpawnStdio[] {
  if (!Array.isArray(stdio)) throw new TypeError('stdio must be an array');
  if (stdio.length > MOST_DESCRIPTORS)
    throw new RangeError(`stdio must have at most ${String(MOST_DESCRIPTORS)} parts`);
  for (const kind of stdio as unknown[]) {
    if (typeof kind === 'string' && ['ignore', 'inherit', 'pipe'].includes(kind)) continue;
    if (typeof kind === 'number' && Number.isInteger(kind) && kind >= 0 && kind < 2 ** 31) continue;
    throw new TypeError("stdio must hold 'ignore', 'inherit', 'pipe' or descriptors");
  }
  return stdio as SpawnStdio[];
}

/**
 * Starts a program by posix_spawn(3), synchronously; with no signal blocked or ignored, and no descriptors but those of
 * `stdio`. It may outlive Node.
 *
 * @param file Looked up in the PATH of this process unless it has a slash.
 * @throws SystemError ENOENT, EACCES, E2BIG and the like from execve(2), ENOMEM or EAGAIN; syscall 'posix_spawn'.
 * @throws FeatureUnavailableError on anything but Linux.
 */
export function spawn(file: string, args: readonly string[] = [], options: SpawnOptions = {}): SpawnedProgram {
  requireText('file', file);
  if (!Array.isArray(args)) throw new TypeError('args must be an array');
  requireObject('options', options);
  const { cwd, newSession = false, stdio = ['inherit', 'inherit', 'inherit'] } = options;
  if (typeof newSession !== 'boolean') throw new TypeError('newSession must be a boolean');
  const argv = [file, ...args.map((arg, index) => requireText(`args[${String(index)}]`, arg))];
  const environment = requireEnvironment(options.env);
  const directory = cwd === undefined ? null : resolve(requireText('cwd', cwd));
  const ends = openStdio(requireStdio(stdio));
  const into = new Float64Array(2);
  try {
    native().spawn(file, argv, environment, directory, ends.descriptors, newSession, into);
  } catch (error) {
    closeAll(ends.ours);
    throw error;
  } finally {
    closeAll(ends.theirs);
  }
  const [pid = 0, spawnNs = 0] = into;
  const sockets = ends.ours.map((fd) =>
    fd === undefined ? undefined : new Socket({ fd, readable: true, writable: true }),
  );
  return new SpawnedProgram(pid, spawnNs, sockets);
}
