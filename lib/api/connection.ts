/**
 * The socket to one forked process: commands out, replies in, in order. Commands are pipelined; the process
 * carries them out one after the other. Nothing here blocks the event loop.
 */
import { closeSync } from 'node:fs';
import net from 'node:net';
import { native } from '../native.js';
import { Op, RECORD_BYTES, decodeReply, encodeCommand } from './command.js';
import type { Command, Reply } from './command.js';

interface Pending {
  command: Command;
  /** A descriptor to send along, which is then closed here; -1 for none. */
  passedFd: number;
  answered: (reply: Reply) => void;
  /** The process has ended before it answered. */
  ended: () => void;
}

/** More would not make the process quicker, and must not fill the socket. */
const MAX_IN_FLIGHT = 32;

/** The process is gone, or going. */
export class ConnectionEnded extends Error {}

export class Connection {
  readonly ended: Promise<void>;
  readonly #fd: number;
  readonly #waiting: Pending[] = [];
  readonly #inFlight: Pending[] = [];
  #socket: net.Socket | undefined;
  #resolveEnded!: () => void;
  #buffered: Buffer | undefined;
  #hello: ((pid: number) => void) | undefined;
  #over = false;
  #holds = 0;
  #delays = 0;

  /** @param fd Our end of the socketpair; owned by the connection from here on. */
  constructor(fd: number) {
    this.#fd = fd;
    this.ended = new Promise((resolve) => (this.#resolveEnded = resolve));
    // Sending needs no socket of Node's, only waiting does. Right after a fork Node pays for every page it writes, and
    // a process that is told to exit at once is gone before one is made.
    const listen = this.delayListening();
    process.nextTick(listen);
  }

  /** Until the function that it returns is called, nothing is received. */
  delayListening(): () => void {
    this.#delays++;
    return () => {
      if (--this.#delays === 0 && !this.#over) this.#socket ??= this.#listen();
    };
  }

  /**
   * Whether commands can be sent. From the moment that the socket is destroyed, some time before it says 'close',
   * its descriptor may be another's.
   */
  get isOpen(): boolean {
    return !this.#over && this.#socket?.destroyed !== true;
  }

  /** The pid that a process forked by another one says it has, once it is there. */
  hello(): Promise<number> {
    this.hold();
    return new Promise<number>((resolve, reject) => {
      this.#hello = (pid) => {
        this.release();
        resolve(pid);
      };
      void this.ended.then(() => {
        reject(new ConnectionEnded('the process ended before it said hello'));
      });
    });
  }

  /** @throws ConnectionEnded (rejects) when the process ends before it has answered. */
  send(command: Command, passedFd = -1): Promise<Reply> {
    return new Promise((resolve, reject) => {
      const ended = () => {
        reject(new ConnectionEnded('the process has ended'));
      };
      this.#queue({ command, passedFd, answered: resolve, ended });
    });
  }

  /** Sends what needs no answer. */
  post(command: Command): void {
    this.#queue({ command, passedFd: -1, answered: () => undefined, ended: () => undefined });
  }

  close(): void {
    if (this.#over) return;
    if (this.#socket) {
      this.#socket.destroy();
    } else {
      closeSync(this.#fd);
      this.#end();
    }
  }

  /** To be called when the process has been waited for: nothing will come any more but what is underway. */
  processEnded(): void {
    const [, other] = this.#inFlight;
    if (!this.#socket && !other) this.close();
  }

  /** Keeps Node alive while something is awaited. */
  hold(): void {
    if (this.#holds++ === 0) this.#socket?.ref();
  }

  release(): void {
    if (--this.#holds === 0) this.#socket?.unref();
  }

  #queue(pending: Pending): void {
    if (!this.isOpen) {
      if (pending.passedFd >= 0) closeSync(pending.passedFd);
      pending.ended();
      return;
    }
    this.hold();
    this.#waiting.push(pending);
    this.#pump();
  }

  #listen(): net.Socket {
    const socket = new net.Socket({ fd: this.#fd, readable: true, writable: false });
    socket.on('data', (chunk: Buffer) => {
      this.#receive(chunk);
    });
    // A reset is how a process that died with unread commands looks: 'close' follows.
    socket.on('error', () => undefined);
    const end = () => {
      this.#end();
    };
    socket.on('end', end);
    socket.on('close', end);
    // An idle laboratory does not keep Node alive; when Node goes, so do the processes.
    if (this.#holds === 0) socket.unref();
    return socket;
  }

  #pump(): void {
    while (this.isOpen && this.#inFlight.length < MAX_IN_FLIGHT) {
      const next = this.#waiting.shift();
      if (!next) return;
      this.#inFlight.push(next);
      try {
        native().sendCommand(this.#fd, encodeCommand(next.command), next.passedFd);
      } catch {
        // EPIPE: the process is gone. Its socket closes, which rejects this and all others.
        this.close();
      } finally {
        if (next.passedFd >= 0) closeSync(next.passedFd);
      }
    }
  }

  #receive(chunk: Buffer): void {
    let rest = this.#buffered ? Buffer.concat([this.#buffered, chunk]) : chunk;
    for (; rest.length >= RECORD_BYTES; rest = rest.subarray(RECORD_BYTES)) {
      const reply = decodeReply(rest.subarray(0, RECORD_BYTES));
      if (reply.op === Op.hello) {
        this.#hello?.(Number(reply.value));
        this.#hello = undefined;
        continue;
      }
      this.release();
      this.#inFlight.shift()?.answered(reply);
    }
    this.#buffered = rest.length > 0 ? rest : undefined;
    this.#pump();
  }

  #end(): void {
    if (this.#over) return;
    this.#over = true;
    this.#resolveEnded();
    for (const { passedFd } of this.#waiting) if (passedFd >= 0) closeSync(passedFd);
    for (const pending of [...this.#inFlight.splice(0), ...this.#waiting.splice(0)]) pending.ended();
  }
}
