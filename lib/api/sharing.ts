/**
 * Words of shared memory, and what processes do with them: numbers with a lock each, rings of messages. The layouts are
 * those of native/core/sharing.h. A process must have been forked after the area was made, to have it.
 */
import { closeSync, openSync } from 'node:fs';
import { native } from '../native.js';
import { requireInteger, requireOneOf } from '../schema/arguments.js';
import { Op } from './command.js';
import type { Command, Reply } from './command.js';
import type { ForkedProcess } from './forked-process.js';
import { mmap } from './mapping.js';
import type { Mapping } from './mapping.js';

/**
 * How a number is added to. 'none': a load and a store, between which another may store, so that additions are lost;
 * 'atomic': one atomic operation; 'lock': under the lock of the number.
 */
export type Guard = 'none' | 'atomic' | 'lock';

const GUARDS: Record<Guard, number> = { none: 0, atomic: 1, lock: 2 };

/** A cache line: what is in one is not slowed down by what is in another. */
const LINE_BYTES = 64;
const RING_HEADER_BYTES = 192;
const RING_CAPACITY_AT = 128;
const RING_CLOSED_AT = 132;
const MESSAGE_BYTES = 8;

/** What an operation of a process did, measured in the process around its loop alone. */
export interface SharingReport {
  /** Additions, reads or messages. */
  done: number;
  /** Of what was read or received, modulo 2^64. */
  sum: bigint;
  /** How often the lock came from an owner that had died with it. */
  deadOwners: number;
  elapsedNs: number;
}

/** Has several processes begin at the same moment: as many as it was made for. For one use. */
export interface Gate {
  readonly offset: number;
  readonly count: number;
}

export interface Ring {
  readonly offset: number;
  /** Messages that it holds. */
  readonly capacity: number;
  /** Where its consumer sleeps. */
  readonly bell: number;
}

/** A pipe, whose messages are 8 bytes. Processes are given ends of their own. */
export class MessagePipe {
  #ends: { reader: number; writer: number } | undefined;

  /** @throws SystemError EMFILE, from pipe2. */
  constructor() {
    const [reader, writer] = native().openPipe();
    this.#ends = { reader, writer };
  }

  /** @internal A descriptor of its own. */
  end(which: 'reader' | 'writer'): number {
    if (!this.#ends) throw new TypeError('the pipe has been closed');
    return openSync(`/proc/self/fd/${String(this.#ends[which])}`, which === 'reader' ? 'r' : 'w');
  }

  /** Closes our ends: without a writer left, a reader sees the end. May be called again. */
  close(): void {
    if (!this.#ends) return;
    closeSync(this.#ends.reader);
    closeSync(this.#ends.writer);
    this.#ends = undefined;
  }
}

function reportOf({ value, sum, deadOwners, elapsedNs }: Reply): SharingReport {
  return { done: Number(value), sum, deadOwners, elapsedNs };
}

/** A number of 64 bits in shared memory, from 0, with a lock. */
export class SharedNumber {
  readonly #mapping: Mapping;
  /** @internal */
  readonly offset: number;

  /** @internal Use SharedArea. */
  constructor(mapping: Mapping, offset: number) {
    this.#mapping = mapping;
    this.offset = offset;
  }

  /** As a double: exact up to 2^53. */
  get value(): number {
    return this.#mapping.slots.count(this.offset, GUARDS.atomic, 0);
  }

  /**
   * Adds 1 in native code, on this thread.
   * @returns The value after it.
   * @throws SystemError EDEADLK with guard 'lock' if this thread holds a lock already.
   */
  add(guard: Guard = 'atomic', times = 1): number {
    requireOneOf('guard', guard, Object.keys(GUARDS) as Guard[]);
    requireInteger('times', times, 0, 2 ** 32);
    return this.#mapping.slots.count(this.offset, GUARDS[guard], times);
  }

  /**
   * Takes the lock for this thread, which waits, and with it everything else in its event loop.
   * @returns Whether the last owner died with it, so that what it guards may be half done.
   * @throws SystemError ETIMEDOUT; EDEADLK if this thread holds a lock already.
   */
  lock(milliseconds = 1000): boolean {
    requireInteger('milliseconds', milliseconds, 0, 2 ** 31);
    return this.#mapping.slots.lock(this.offset, milliseconds);
  }

  /** @throws SystemError EPERM if this thread does not hold it. */
  unlock(): void {
    this.#mapping.slots.unlock(this.offset);
  }
}

export interface Options {
  /** To be passed first. */
  gate?: Gate;
}

/** Shared memory that numbers and rings are made in. */
export class SharedArea {
  readonly #mapping: Mapping;
  #used = 0;

  /** @throws SystemError ENOMEM, from mmap. */
  constructor(bytes = 2 ** 20) {
    const page = native().pageSizeBytes;
    requireInteger('bytes', bytes, 1, 2 ** 40);
    this.#mapping = mmap({ pages: Math.ceil(bytes / page), sharing: 'shared' });
  }

  /** @throws RangeError when the area is full. */
  number(): SharedNumber {
    return new SharedNumber(this.#mapping, this.#take(LINE_BYTES));
  }

  gate(count: number): Gate {
    requireInteger('count', count, 1, 2 ** 31 - 1);
    return { offset: this.#take(LINE_BYTES), count };
  }

  /** Rings for one producer each and one consumer of all. @param capacity Messages of each, a power of two. */
  rings(count: number, capacity: number): Ring[] {
    requireInteger('count', count, 1, 1024);
    requireInteger('capacity', capacity, 1, 2 ** 20);
    if (!Number.isInteger(Math.log2(capacity))) throw new RangeError('capacity must be a power of two');
    // The bell of the consumer is before them.
    const bell = this.#take(LINE_BYTES);
    const bytes = ringBytes(capacity);
    const words = new Uint32Array(this.#mapping.buffer);
    return Array.from({ length: count }, () => {
      const offset = this.#take(bytes);
      words[(offset + RING_CAPACITY_AT) / 4] = capacity;
      return { offset, capacity, bell };
    });
  }

  /** Says that no more messages will come, or be read: who waits for either ends. */
  closeRing({ offset }: Ring): void {
    new Uint32Array(this.#mapping.buffer)[(offset + RING_CLOSED_AT) / 4] = 1;
  }

  /** 64-bit words from 0, which can be read and written here as well. */
  array(length: number): BigUint64Array {
    requireInteger('length', length, 1, 2 ** 37);
    return new BigUint64Array(this.#mapping.buffer, this.#take(length * 8), length);
  }

  /** Adds 1 to a number, so many times. */
  async count(process: ForkedProcess, number: SharedNumber, guard: Guard, times: number, options: Options = {}) {
    requireOneOf('guard', guard, Object.keys(GUARDS) as Guard[]);
    requireInteger('times', times, 0, Number.MAX_SAFE_INTEGER);
    const command = { op: Op.count, address: this.#address(process, number.offset) };
    return this.#perform(process, { ...command, argument: BigInt(GUARDS[guard]), value: BigInt(times) }, options);
  }

  /** Reads the words of an array one after the other, and again, `reads` in all; each under the lock if there is one. */
  async look(
    process: ForkedProcess,
    array: BigUint64Array,
    reads: number,
    lock?: SharedNumber,
    options: Options = {},
  ): Promise<SharingReport> {
    requireInteger('reads', reads, 0, Number.MAX_SAFE_INTEGER);
    if (array.buffer !== this.#mapping.buffer) throw new TypeError('array must be one of this area');
    const command = {
      op: Op.look,
      address: this.#address(process, array.byteOffset),
      length: BigInt(array.byteLength),
      argument: BigInt(lock ? GUARDS.lock : GUARDS.none),
      offset: this.#address(process, lock?.offset ?? 0),
      value: BigInt(reads),
    };
    return this.#perform(process, command, options);
  }

  /**
   * Has a process take the lock of a number, and keep it.
   * @returns Whether the last owner died with it.
   * @throws SystemError (rejects) ETIMEDOUT, EDEADLK.
   */
  async lock(process: ForkedProcess, number: SharedNumber, milliseconds = 1000): Promise<boolean> {
    requireInteger('milliseconds', milliseconds, 0, 2 ** 31);
    const length = BigInt(milliseconds) * 1_000_000n;
    const reply = await process.perform({ op: Op.lock, address: this.#address(process, number.offset), length });
    return reply.deadOwners > 0;
  }

  /** @throws SystemError (rejects) EPERM if the process does not hold it. */
  async unlock(process: ForkedProcess, number: SharedNumber): Promise<void> {
    await process.perform({ op: Op.unlock, address: this.#address(process, number.offset) });
  }

  /** Sends 1, 2, 3, ... @throws SystemError (rejects) EPIPE once the ring is closed. */
  async send(process: ForkedProcess, ring: Ring, messages: number, options: Options = {}): Promise<SharingReport> {
    requireInteger('messages', messages, 0, 2 ** 48);
    const addresses = { address: this.#address(process, ring.offset), offset: this.#bell(process, ring) };
    return this.#perform(process, { op: Op.send, ...addresses, value: BigInt(messages) }, options);
  }

  /**
   * Receives so many messages from each of the rings, which were made together. Ends early once one is closed and
   * all are empty.
   * @throws SystemError (rejects) EBADMSG if a message was lost, doubled or came too early.
   */
  async receive(
    process: ForkedProcess,
    rings: readonly Ring[],
    messages: number,
    options: Options = {},
  ): Promise<SharingReport> {
    requireInteger('messages', messages, 0, 2 ** 48);
    const [first] = rings;
    if (!first) throw new RangeError('rings must not be empty');
    const command = {
      op: Op.receive,
      address: this.#address(process, first.offset),
      offset: this.#bell(process, first),
      argument: BigInt(rings.length),
      length: BigInt(ringBytes(first.capacity)),
      value: BigInt(messages),
    };
    return this.#perform(process, command, options);
  }

  /** Sends 1, 2, 3, ... into a pipe. A reader that has gone ends the process by SIGPIPE. */
  async sendPipe(process: ForkedProcess, pipe: MessagePipe, messages: number, options: Options = {}) {
    requireInteger('messages', messages, 0, 2 ** 48);
    return this.#perform(process, { op: Op.send, value: BigInt(messages) }, options, pipe.end('writer'));
  }

  /** Receives so many messages in all. Ends early when the last writer is gone. */
  async receivePipe(process: ForkedProcess, pipe: MessagePipe, messages: number, options: Options = {}) {
    requireInteger('messages', messages, 0, 2 ** 48);
    return this.#perform(process, { op: Op.receive, value: BigInt(messages) }, options, pipe.end('reader'));
  }

  /** Unmaps it here. */
  close(): void {
    this.#mapping.unmap();
  }

  #take(bytes: number): number {
    const offset = this.#used;
    const end = offset + Math.ceil(bytes / LINE_BYTES) * LINE_BYTES;
    if (end > this.#mapping.length) {
      throw new RangeError(`the area has ${String(this.#mapping.length)} bytes, all in use: make a larger one`);
    }
    this.#used = end;
    return offset;
  }

  #address(process: ForkedProcess, offset: number): bigint {
    return process.placement(this.#mapping).address + BigInt(offset);
  }

  #bell(process: ForkedProcess, ring: Ring): bigint {
    return this.#address(process, ring.bell);
  }

  async #perform(process: ForkedProcess, command: Command, { gate }: Options, passedFd = -1): Promise<SharingReport> {
    const passed = gate ? { gate: this.#address(process, gate.offset), gateCount: BigInt(gate.count) } : {};
    return reportOf(await process.perform({ ...command, ...passed }, passedFd));
  }
}

function ringBytes(capacity: number): number {
  return Math.ceil((RING_HEADER_BYTES + capacity * MESSAGE_BYTES) / LINE_BYTES) * LINE_BYTES;
}
