/** The life of one forked process: its place in the tree, how it is ended, and how it is waited for. */
import { setTimeout as delay } from 'node:timers/promises';
import { ProcessEndedError } from '../errors.js';
import { native } from '../native.js';
import type { ExitStatus } from '../schema/step.js';
import { Op } from './command.js';
import type { Connection } from './connection.js';
import { decodeStatus, exitStatusOf } from './exit-status.js';
import type { EndingSignal } from './exit-status.js';

/** What the addon fills; made once, since memory from malloc is what costs most right after a fork. */
const endFigures = new Float64Array(6);

/** How long to look for the end of a process at each turn of the event loop, before that is left to a socket or timer. */
const WATCH_MS = 0.5;

export class ProcessLife {
  readonly pid: number;
  /** Resolves when the process has ended and has been waited for. Never rejects. */
  readonly ended: Promise<ExitStatus>;
  #status: ExitStatus | undefined;
  readonly #connection: Connection;
  readonly #parent: ProcessLife | undefined;
  readonly #children = new Set<ProcessLife>();

  /** @param parent Undefined for a child of Node. */
  constructor(pid: number, connection: Connection, parent: ProcessLife | undefined) {
    this.pid = pid;
    this.#connection = connection;
    this.#parent = parent;
    if (parent) parent.#children.add(this);
    this.ended = connection.ended.then(() => this.#reap());
  }

  /** How it ended; undefined while it lives. */
  get status(): ExitStatus | undefined {
    return this.#status;
  }

  /** @throws ProcessEndedError if it has ended. */
  requireLiving(): void {
    if (this.#status) throw new ProcessEndedError(`process ${String(this.pid)}`, this.#status);
  }

  /** Tells it to exit, and waits for that. */
  async exit(code: number): Promise<ExitStatus> {
    this.requireLiving();
    this.#connection.post({ op: Op.exit, argument: BigInt(code) });
    const listen = this.#connection.delayListening();
    const status = await this.#watchEnd();
    listen();
    return status ?? this.awaitEnd();
  }

  /** Sends a signal that ends the process, and waits for that. */
  async kill(signal: EndingSignal): Promise<ExitStatus> {
    this.requireLiving();
    // While its socket is open nobody has waited for it, so the pid cannot be another's. After that it is dying.
    if (this.#connection.isOpen) process.kill(this.pid, signal);
    return this.awaitEnd();
  }

  /** Ends the process and all its descendants, and waits for them. Never fails, and may be called again. */
  async close(): Promise<void> {
    // The set grows while this goes on: when a child ends, its own children become ours.
    for (const child of this.#children) await child.close();
    if (!this.#status) {
      await this.kill('SIGKILL').catch(() => undefined);
      await this.awaitEnd();
    }
  }

  /** As `ended`, but keeps Node alive meanwhile. */
  async awaitEnd(): Promise<ExitStatus> {
    this.#connection.hold();
    const status = await this.ended;
    this.#connection.release();
    return status;
  }

  /** Its socket is closed, so the process is a zombie or about to be one. */
  async #reap(): Promise<ExitStatus> {
    let status = this.#parent ? await this.#waitByParent() : await this.#watchEnd();
    for (; !status; status = this.#waitAsChildOfNode()) await delay(1);
    this.#status = status;
    const root = this.#ancestors().at(-1) ?? this;
    for (const child of this.#children) {
      // As the kernel does it, orphans go to the root. Without a root, what is left ends as its socket does.
      if (root.#status) child.#connection.close();
      else root.#children.add(child);
    }
    root.#children.delete(this);
    if (this.#parent) this.#parent.#children.delete(this);
    return status;
  }

  /** A small process is gone before its socket says so, and before a timer could: so looks again and again, shortly. */
  async #watchEnd(): Promise<ExitStatus | undefined> {
    const start = performance.now();
    for (;;) {
      const status = this.#waitAsChildOfNode();
      if (status || this.#parent || performance.now() - start > WATCH_MS) return status;
      await new Promise(setImmediate);
    }
  }

  /** The status of an ended child of Node; undefined while it lives, and for a child of another process. */
  #waitAsChildOfNode(): ExitStatus | undefined {
    if (this.#status || this.#parent) return this.#status;
    try {
      if (!native().waitProcess(this.pid, endFigures)) return undefined;
    } catch {
      // Somebody else has waited for it: how it ended is not known.
      return (this.#status = {});
    }
    this.#connection.processEnded();
    return (this.#status = exitStatusOf(endFigures));
  }

  /** From the parent up to the root. */
  #ancestors(): ProcessLife[] {
    const ancestors: ProcessLife[] = [];
    for (let process = this.#parent; process; process = process.#parent) ancestors.push(process);
    return ancestors;
  }

  /** Waits through the parent or, if that has ended, through the root, to which the kernel gave the orphan. */
  async #waitByParent(): Promise<ExitStatus> {
    const ancestors = this.#ancestors();
    for (const waiter of new Set([ancestors.at(0), ancestors.at(-1)])) {
      try {
        if (!waiter) continue;
        const reply = await waiter.#connection.send({ op: Op.wait, argument: BigInt(this.pid) });
        if (reply.errno !== 0) continue;
        const { minorFaults, majorFaults, maxRssBytes, userMicroseconds, systemMicroseconds } = reply;
        const usage = { minorFaults, majorFaults, maxRssBytes, userMicroseconds, systemMicroseconds };
        return { ...decodeStatus(Number(reply.value)), ...usage };
      } catch {
        // That one has ended as well. The kernel gives its children away only after its socket has closed, but
        // before it can be waited for.
        await waiter?.ended;
      }
    }
    // Everybody who could have waited is gone; init has. How this one ended is not known.
    return {};
  }
}
