/** What native/vm/init.c sends out of the guest: the output of the command, and how it ended. */
import { crc32 } from 'node:zlib';

export type Frame =
  | { type: 'stdout' | 'stderr'; bytes: Buffer }
  /** `status` is as waitpid(2) gives it. */
  | { type: 'end'; status: number; stdoutBytes: number; stderrBytes: number };

/** The first bytes of a guest that is up; before them the firmware or the kernel may have written others. */
export const HELLO = Buffer.from('\ncowlab guest 1\n');

export const MAX_PAYLOAD_BYTES = 4096;

const HEADER_BYTES = 9;
const END_BYTES = 20;

/** What came out of the guest is not what went in. */
export class ProtocolError extends Error {
  override readonly name = 'ProtocolError';
}

function parseEnd(payload: Buffer): Frame {
  if (payload.length !== END_BYTES) throw new ProtocolError(`an end of ${String(payload.length)} bytes`);
  return {
    type: 'end',
    status: payload.readUInt32LE(0),
    stdoutBytes: Number(payload.readBigUInt64LE(4)),
    stderrBytes: Number(payload.readBigUInt64LE(12)),
  };
}

function parseFrame(type: string, payload: Buffer): Frame {
  if (type === 'o') return { type: 'stdout', bytes: payload };
  if (type === 'e') return { type: 'stderr', bytes: payload };
  if (type === 'x') return parseEnd(payload);
  throw new ProtocolError(`a frame of the unknown type ${JSON.stringify(type)}`);
}

/** Takes the bytes of the port in whatever pieces they come. */
export class FrameDecoder {
  #pending = Buffer.alloc(0);
  #greeted = false;
  #ended = false;
  #received = { stdout: 0, stderr: 0 };

  /** Whether the guest has said hello. */
  get greeted(): boolean {
    return this.#greeted;
  }

  /** Whether the end has come. */
  get ended(): boolean {
    return this.#ended;
  }

  /**
   * @returns The frames that are complete now.
   * @throws ProtocolError for bytes that were changed, lost or added.
   */
  push(chunk: Uint8Array): Frame[] {
    this.#pending = Buffer.concat([this.#pending, chunk]);
    if (!this.#greeted && !this.#greet()) return [];
    const frames: Frame[] = [];
    for (let frame = this.#next(); frame; frame = this.#next()) {
      this.#account(frame);
      frames.push(frame);
    }
    return frames;
  }

  #greet(): boolean {
    const at = this.#pending.indexOf(HELLO);
    this.#greeted = at >= 0;
    // What could be the beginning of the hello is kept.
    const keepFrom = this.#greeted ? at + HELLO.length : Math.max(0, this.#pending.length - HELLO.length + 1);
    this.#pending = this.#pending.subarray(keepFrom);
    return this.#greeted;
  }

  #next(): Frame | undefined {
    const pending = this.#pending;
    if (pending.length < HEADER_BYTES) return undefined;
    const length = pending.readUInt32LE(1);
    // Looked at before the payload is waited for: a changed length would be waited for until the time is up.
    if (length > MAX_PAYLOAD_BYTES) throw new ProtocolError(`a frame of ${String(length)} bytes`);
    if (pending.length < HEADER_BYTES + length) return undefined;
    const payload = pending.subarray(HEADER_BYTES, HEADER_BYTES + length);
    if (crc32(payload) !== pending.readUInt32LE(5)) throw new ProtocolError('a frame whose checksum is wrong');
    this.#pending = pending.subarray(HEADER_BYTES + length);
    return parseFrame(pending.toString('latin1', 0, 1), payload);
  }

  #account(frame: Frame): void {
    if (this.#ended) throw new ProtocolError('a frame after the end');
    if (frame.type !== 'end') {
      this.#received[frame.type] += frame.bytes.length;
      return;
    }
    this.#ended = true;
    const { stdout, stderr } = this.#received;
    if (stdout !== frame.stdoutBytes || stderr !== frame.stderrBytes) {
      const [got, sent] = [String(stdout + stderr), String(frame.stdoutBytes + frame.stderrBytes)];
      throw new ProtocolError(`${got} bytes of output arrived, and the command wrote ${sent}`);
    }
  }
}
