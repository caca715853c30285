/** Boots a guest, passes on what its command writes, and says how it ended. */
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { closeSync, openSync, unlinkSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Stream } from 'node:stream';
import { FeatureUnavailableError } from '../errors.js';
import { ownProgram } from '../own-program.js';
import { FrameDecoder } from './frames.js';
import type { Frame } from './frames.js';
import type { Image } from './image.js';
import { QEMU_FD, findQemu, kvmOpens, qemuArguments } from './qemu.js';
import type { Accelerator, QemuOptions } from './qemu.js';

export interface GuestOptions extends QemuOptions {
  /** From writeImage(). */
  imageFd: number;
  /** Default: KVM where it works, else TCG, which emulates. */
  accelerator?: Accelerator | undefined;
  /** For the whole life of the guest. */
  timeoutMs: number;
  /** Ends the guest. */
  signal?: AbortSignal;
  stdout: (bytes: Buffer) => void;
  stderr: (bytes: Buffer) => void;
  /** Told what people who wait should know. */
  note: (text: string) => void;
}

export interface GuestEnd {
  accelerator: Accelerator;
  /** The exit code of the command; undefined when a signal ended it. */
  code: number | undefined;
  signal: string | undefined;
  /** From the start of qemu to the hello of PID 1. */
  bootMs: number;
  elapsedMs: number;
}

/** The guest came to no proper end. */
export class GuestFailure extends Error {
  override readonly name = 'GuestFailure';
  /** Whether the guest had been up. */
  readonly greeted: boolean;
  /** Whether qemu ended by itself, and not because it was ended. */
  readonly byItself: boolean;
  /** In a few words, without what the console says. */
  readonly reason: string;

  constructor(reason: string, how: { greeted: boolean; byItself: boolean }, console: string) {
    super(console === '' ? reason : `${reason}; its last lines were:\n${console}`);
    this.reason = reason;
    this.greeted = how.greeted;
    this.byItself = how.byItself;
  }
}

/** KVM has this long to boot a guest, which takes it two seconds: where it hangs, it hangs for ever. */
const KVM_BOOT_MS = 15_000;
const TCG_BOOT_MS = 300_000;
/** To switch off, after the command has ended and its result has arrived. */
const POWER_OFF_MS = 10_000;

const TAIL_LINES = 20;

/**
 * Writes an image into a file without a name, which is gone when its last user is, whatever happens.
 * @returns A descriptor, for the caller to close.
 */
export function writeImage(image: Image): number {
  const path = join(tmpdir(), `cowlab-${randomUUID()}.cpio`);
  const fd = openSync(path, 'wx+', 0o600);
  unlinkSync(path);
  try {
    image.write(fd);
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/** The last lines of a stream, as text for people. */
class Tail {
  #text = '';

  push(bytes: Buffer): void {
    this.#text = (this.#text + bytes.toString('latin1')).slice(-8192);
  }

  get lines(): string[] {
    // Terminals are told to clear themselves by the firmware; who reads this should not be.
    // eslint-disable-next-line no-control-regex -- control characters are what is taken out
    const printable = this.#text.replace(/\u001b(?:\[[0-9;?=]*[A-Za-z]|c)/g, '').replace(/[^\n\x20-\x7e]/g, '');
    return printable
      .split('\n')
      .filter((line) => line.trim() !== '')
      .slice(-TAIL_LINES);
  }
}

function nameOfSignal(number: number): string {
  const found = Object.entries(constants.signals).find(([, value]) => value === number);
  return found?.[0] ?? `signal ${String(number)}`;
}

/** @param status As waitpid(2) gives it. */
export function parseWaitStatus(status: number): Pick<GuestEnd, 'code' | 'signal'> {
  const signal = status & 0x7f;
  if (signal === 0) return { code: (status >> 8) & 0xff, signal: undefined };
  return { code: undefined, signal: nameOfSignal(signal) };
}

/** One qemu, from start to end. */
class Boot {
  readonly #options: GuestOptions;
  readonly #accelerator: Accelerator;
  readonly #decoder = new FrameDecoder();
  readonly #console = new Tail();
  readonly #complaints = new Tail();
  readonly #startMs = performance.now();
  readonly #timers: NodeJS.Timeout[] = [];
  #bootMs = NaN;
  #status = 0;
  /** Why qemu was ended by us. */
  #ended: { reason: string } | undefined;
  #kill: () => void = () => undefined;

  constructor(options: GuestOptions, accelerator: Accelerator) {
    this.#options = options;
    this.#accelerator = accelerator;
  }

  async run(): Promise<GuestEnd> {
    const { signal } = this.#options;
    signal?.throwIfAborted();
    const abort = (): void => {
      this.#end('it was interrupted');
    };
    signal?.addEventListener('abort', abort);
    try {
      await this.#runQemu();
    } finally {
      this.#timers.forEach(clearTimeout);
      signal?.removeEventListener('abort', abort);
    }
    signal?.throwIfAborted();
    if (this.#ended || !this.#decoder.ended) throw this.#failure();
    const elapsedMs = performance.now() - this.#startMs;
    return { accelerator: this.#accelerator, ...parseWaitStatus(this.#status), bootMs: this.#bootMs, elapsedMs };
  }

  /** @returns When qemu has ended, and all that it wrote has been read. */
  #runQemu(): Promise<void> {
    const { imageFd, timeoutMs } = this.#options;
    const [qemu, tether] = [findQemu(), ownProgram('cowlab-tether')];
    const args = [String(process.pid), qemu, ...qemuArguments(this.#options, this.#accelerator)];
    // In a session of its own, so that an interrupt from the terminal comes to us alone. The order is that of QEMU_FD.
    const child = spawn(tether, args, { stdio: ['ignore', 'ignore', 'pipe', imageFd, 'pipe', 'pipe'], detached: true });
    const streams: readonly (Stream | null | undefined)[] = child.stdio;
    this.#kill = () => child.kill('SIGKILL');
    const bootMs = this.#accelerator === 'kvm' ? KVM_BOOT_MS : TCG_BOOT_MS;
    this.#after(timeoutMs, `it was not done after ${String(timeoutMs / 1000)} s (--timeout)`);
    this.#timers.push(
      setTimeout(() => {
        if (!this.#decoder.greeted) this.#end(`it had not booted after ${String(bootMs / 1000)} s`);
      }, bootMs),
    );
    streams[2]?.on('data', (bytes: Buffer) => {
      this.#complaints.push(bytes);
    });
    streams[QEMU_FD.console]?.on('data', (bytes: Buffer) => {
      this.#console.push(bytes);
    });
    streams[QEMU_FD.port]?.on('data', (bytes: Buffer) => {
      this.#receive(bytes);
    });
    return new Promise((resolve, reject) => {
      child.once('error', reject);
      child.once('close', () => {
        resolve();
      });
    });
  }

  #after(ms: number, reason: string): void {
    this.#timers.push(
      setTimeout(() => {
        this.#end(reason);
      }, ms),
    );
  }

  #end(reason: string): void {
    this.#ended ??= { reason };
    this.#kill();
  }

  #receive(bytes: Buffer): void {
    if (this.#ended) return;
    try {
      for (const frame of this.#decoder.push(bytes)) this.#take(frame);
    } catch (error) {
      this.#end(`what came out of it was damaged: ${error instanceof Error ? error.message : String(error)}`);
    }
    if (this.#decoder.greeted && Number.isNaN(this.#bootMs)) this.#bootMs = performance.now() - this.#startMs;
  }

  #take(frame: Frame): void {
    if (frame.type !== 'end') this.#options[frame.type](frame.bytes);
    else {
      this.#status = frame.status;
      // The result is here: a guest that cannot switch itself off is switched off, and that is no failure.
      this.#timers.push(setTimeout(this.#kill, POWER_OFF_MS));
    }
  }

  #failure(): GuestFailure {
    const greeted = this.#decoder.greeted;
    const reason = this.#ended?.reason ?? (greeted ? 'it ended before its command did' : 'it ended while it booted');
    const tail = [...this.#console.lines, ...this.#complaints.lines].slice(-TAIL_LINES);
    return new GuestFailure(`the guest failed: ${reason}`, { greeted, byItself: !this.#ended }, tail.join('\n'));
  }
}

/** Once it has failed, KVM is not tried again by this process. */
let kvmFailed = false;

/**
 * Boots a guest and waits for its end.
 * @throws FeatureUnavailableError when there is no qemu, or KVM was asked for and cannot be opened.
 * @throws GuestFailure when the guest did not boot, was not done in time, or what came out of it was damaged.
 * @throws The reason of `signal` when that aborted it.
 */
export async function runGuest(options: GuestOptions): Promise<GuestEnd> {
  const { accelerator } = options;
  if (accelerator === 'kvm' && !kvmOpens()) {
    const remedy = 'Join the group kvm (`usermod -aG kvm NAME`), or leave --accel away and be slower.';
    throw new FeatureUnavailableError('KVM', '/dev/kvm cannot be opened for reading and writing', remedy);
  }
  const emulate = async (): Promise<GuestEnd> => {
    try {
      return await new Boot(options, 'tcg').run();
    } catch (error) {
      // Emulated kernels now and then panic as they boot, when their CPUs get too little time; the next try is another.
      if (!(error instanceof GuestFailure) || error.greeted || !error.byItself) throw error;
      options.note(`${error.reason}: booting once more`);
      return new Boot(options, 'tcg').run();
    }
  };
  const tryKvm = accelerator === 'kvm' || (accelerator === undefined && !kvmFailed && kvmOpens());
  if (!tryKvm) return emulate();
  try {
    return await new Boot(options, 'kvm').run();
  } catch (error) {
    if (accelerator === 'kvm' || !(error instanceof GuestFailure) || error.greeted) throw error;
    kvmFailed = true;
    options.note(`KVM does not work here (${error.reason}): emulating, which is slower`);
    return emulate();
  }
}
