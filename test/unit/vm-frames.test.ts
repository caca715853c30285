import { crc32 } from 'node:zlib';
import { describe, expect, test } from 'vitest';
import { FrameDecoder, HELLO, ProtocolError } from '../../lib/vm/frames.js';
import type { Frame } from '../../lib/vm/frames.js';
import { parseWaitStatus } from '../../lib/vm/guest.js';

function frame(type: string, payload: Uint8Array): Buffer {
  const head = Buffer.alloc(9);
  head.write(type, 'latin1');
  head.writeUInt32LE(payload.length, 1);
  head.writeUInt32LE(crc32(payload), 5);
  return Buffer.concat([head, payload]);
}

function end(status: number, stdoutBytes: number, stderrBytes: number): Buffer {
  const payload = Buffer.alloc(20);
  payload.writeUInt32LE(status, 0);
  payload.writeBigUInt64LE(BigInt(stdoutBytes), 4);
  payload.writeBigUInt64LE(BigInt(stderrBytes), 12);
  return frame('x', payload);
}

const OUT = Buffer.from('{"a":\n1}\r\0\u00ff');
const ERR = Buffer.from('cowlab: running\n');
const WHOLE = Buffer.concat([HELLO, frame('o', OUT), frame('e', ERR), frame('o', OUT), end(256, 24, 16)]);

function decode(bytes: Buffer, pieceBytes = bytes.length): { frames: Frame[]; decoder: FrameDecoder } {
  const decoder = new FrameDecoder();
  const frames: Frame[] = [];
  for (let at = 0; at < bytes.length; at += pieceBytes)
    frames.push(...decoder.push(bytes.subarray(at, at + pieceBytes)));
  return { frames, decoder };
}

test.each([1, 2, 3, 7, 16, 1000])('output and end come through in pieces of %d bytes', (pieceBytes) => {
  const { frames, decoder } = decode(WHOLE, pieceBytes);
  expect(frames).toEqual([
    { type: 'stdout', bytes: OUT },
    { type: 'stderr', bytes: ERR },
    { type: 'stdout', bytes: OUT },
    { type: 'end', status: 256, stdoutBytes: 24, stderrBytes: 16 },
  ]);
  expect(decoder.greeted && decoder.ended).toBe(true);
});

test.each([1, 5, 1000])(
  'what the firmware writes before the hello is passed over (pieces of %d bytes)',
  (pieceBytes) => {
    const noise = Buffer.from('\u001bc SeaBIOS\r\n\ncowlab guest \n');
    expect(decode(Buffer.concat([noise, WHOLE]), pieceBytes).frames).toHaveLength(4);
  },
);

describe('a result that is not whole is no result', () => {
  test('cut off anywhere, it has no end', () => {
    for (let length = 0; length < WHOLE.length; length++) {
      expect(decode(WHOLE.subarray(0, length)).decoder.ended).toBe(false);
    }
  });

  test('with any one bit changed after the hello, it is refused, or never ends', () => {
    for (let bit = HELLO.length * 8; bit < WHOLE.length * 8; bit++) {
      const changed = Buffer.from(WHOLE);
      changed[bit >> 3] = (changed[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      let ended: boolean;
      try {
        const { frames, decoder } = decode(changed);
        ended = decoder.ended;
        expect(frames.length).toBeLessThan(4);
      } catch (error) {
        if (!(error instanceof ProtocolError)) throw error;
        ended = false;
      }
      expect(ended).toBe(false);
    }
  });

  test.each([
    ['a frame that was lost', [HELLO, frame('e', ERR), end(0, 12, 16)], /16 bytes of output arrived.*wrote 28/],
    ['a frame of an unknown type', [HELLO, frame('z', ERR)], /unknown type "z"/],
    ['a frame that is too long', [HELLO, frame('o', Buffer.alloc(4097))], /4097 bytes/],
    ['an end of another length', [HELLO, frame('x', ERR)], /an end of 16 bytes/],
    ['something after the end', [WHOLE, frame('o', OUT)], /after the end/],
  ])('%s', (_what, pieces, message) => {
    expect(() => decode(Buffer.concat(pieces))).toThrow(message);
  });
});

test('a wait status is an exit code or a signal', () => {
  expect(parseWaitStatus(0)).toEqual({ code: 0, signal: undefined });
  expect(parseWaitStatus(3 << 8)).toEqual({ code: 3, signal: undefined });
  expect(parseWaitStatus(9)).toEqual({ code: undefined, signal: 'SIGKILL' });
  expect(parseWaitStatus(11 | 0x80)).toEqual({ code: undefined, signal: 'SIGSEGV' });
});
