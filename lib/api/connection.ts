/**
 * The socket to one forked process: commands out, replies in, in order. Commands are pipelined; the process
 * carries them out one after the other. Nothing here blocks the event loop.
 */
import { closeSync } from 'node:fs';
import net from 'node:net';
import { native } from '../native.js';
import { RECORD_BYTES, decodeReply, encodeCommand } from './command.js';
import type { Command, Reply } from './command.js';

interface Pending {
  command: Command;
  /** A descriptor to send along, which is then closed here; -1 for none. */
  passedFd: number;
  resolve: (reply: Reply) => void;
  reject: (reason: ConnectionEnded) => void;
}

/** More would not make the process quicker, and must not fill the socket. */
const MAX_IN_FLIGHT = 32;

/** The process is gone, or going. */
export class ConnectionEnded extends Error {}

export class Connection {
  readonly ended: Promise<void>;
  readonly #fd: number;
  readonly #socket: net.Socket;
  readonly #waiting: Pending[] = [];
  readonly #inFlight: Pending[] = [];
  #buffered: Buffer = Buffer.alloc(0);
  #hello: ((pid: number) => void) | undefined;
  #open = true;
  #holds = 0;

  /** @param fd Our end of the socketpair; owned by the connection from here on. */
  constructor(fd: number) {
    this.#fd = fd;
    this.#socket = new net.Socket({ fd, readable: true, writable: false });
    this.#socket.on('data', (chunk: Buffer) => {
      this.#receive(chunk);
    });
    // A reset is how a process that died with unread commands looks: 'close' follows.
    this.#socket.on('error', () => undefined);
    this.ended = new Promise((resolve) => {
      this.#socket.on('close', () => {
        this.#end();
        resolve();
      });
    });
    // An idle laboratory does not keep Node alive; when Node goes, so do the processes.
    this.#socket.unref();
  }

  /** The pid that the process says it has, once it is there. */
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
      if (!this.#open) {
        if (passedFd >= 0) closeSync(passedFd);
        reject(new ConnectionEnded('the process has ended'));
        return;
      }
      this.hold();
      this.#waiting.push({ command, passedFd, resolve, reject });
      this.#pump();
    });
  }

  close(): void {
    this.#socket.destroy();
  }

  /** Keeps Node alive while something is awaited. */
  hold(): void {
    if (this.#holds++ === 0) this.#socket.ref();
  }

  release(): void {
    if (--this.#holds === 0) this.#socket.unref();
  }

  #pump(): void {
    while (this.#open && this.#inFlight.length < MAX_IN_FLIGHT) {
      const next = this.#waiting.shift();
      if (!next) return;
      this.#inFlight.push(next);
      try {
        native().sendCommand(this.#fd, encodeCommand(next.command), next.passedFd);
      } catch {
        // EPIPE: the process is gone. Its socket closes, which rejects this and all others.
        this.#socket.destroy();
      } finally {
        if (next.passedFd >= 0) closeSync(next.passedFd);
      }
    }
  }

  #receive(chunk: Buffer): void {
    this.#buffered = this.#buffered.length === 0 ? chunk : Buffer.concat([this.#buffered, chunk]);
    while (this.#buffered.length >= RECORD_BYTES) {
      const reply = decodeReply(this.#buffered.subarray(0, RECORD_BYTES));
      this.#buffered = this.#buffered.subarray(RECORD_BYTES);
      if (reply.op === 0n) {
        this.#hello?.(Number(reply.value));
        this.#hello = undefined;
        continue;
      }
      const pending = this.#inFlight.shift();
      this.release();
      pending?.resolve(reply);
    }
    this.#pump();
  }

  #end(): void {
    this.#open = false;
    for (const { passedFd } of this.#waiting) if (passedFd >= 0) closeSync(passedFd);
    for (const pending of [...this.#inFlight.splice(0), ...this.#waiting.splice(0)]) {
      pending.reject(new ConnectionEnded('the process has ended'));
    }
  }
}
