/** The records that Node and a forked process exchange: native/core/command.h holds the same layout in C++. */
import type { Selection } from '../schema/selection.js';

export const Op = {
  hello: 0n,
  map: 1n,
  unmap: 2n,
  unmapPart: 3n,
  write: 4n,
  read: 5n,
  protect: 6n,
  advise: 7n,
  grow: 8n,
  fork: 9n,
  wait: 10n,
  exit: 11n,
  restrict: 12n,
  trackWrites: 13n,
  stopTracking: 14n,
  count: 20n,
  look: 21n,
  lock: 22n,
  unlock: 23n,
  send: 24n,
  receive: 25n,
} as const;

export const MapFlag = { shared: 1n, noreserve: 2n, populate: 4n, object: 8n, hugePages: 16n, hugetlb: 32n } as const;

/** What a process reads around a fork, and gives up: ForkFlag and RestrictFlag of native/core/command.h. */
export const ForkFlag = { readCommit: 1n, foldCommit: 2n } as const;
export const RestrictFlag = { oneCpu: 1n, dropAdmin: 2n } as const;

/** PROT_ constants of mmap(2). */
export const PROTECTIONS = { none: 0n, r: 1n, rw: 3n } as const;

/** MADV_ constants of madvise(2), include/uapi/asm-generic/mman-common.h. */
export const ADVICE = {
  dontneed: 4,
  dontfork: 10,
  dofork: 11,
  mergeable: 12,
  unmergeable: 13,
  wipeonfork: 18,
  keeponfork: 19,
  pageout: 21,
  'populate-read': 22,
  'populate-write': 23,
} as const;

/** Of the plain API: what a Machine can be advised, and what no model predicts. */
export type RawAdvice = keyof typeof ADVICE;

export const ADVICE_NAMES = Object.keys(ADVICE) as RawAdvice[];

export const PATTERNS = { sequential: 0, random: 1, stride: 2 } as const;

export interface Command {
  op: bigint;
  address?: bigint;
  /** Bytes. */
  length?: bigint;
  argument?: bigint;
  flags?: bigint;
  /** Bytes. */
  offset?: bigint;
  value?: bigint;
  selection?: Selection;
  /** Address of a gate to pass first, and how many pass it together. */
  gate?: bigint;
  gateCount?: bigint;
}

export const RECORD_WORDS = 16;
export const RECORD_BYTES = RECORD_WORDS * 8;

/** What is written into a page, as an unsigned 64-bit word. */
export function requireWord(name: string, value: unknown): bigint {
  if (typeof value !== 'bigint') throw new TypeError(`${name} must be a bigint, not a ${typeof value}`);
  return BigInt.asUintN(64, value);
}

/** One for all: memory from malloc is what costs most right after a fork. */
const words = new BigUint64Array(RECORD_WORDS);

/** @returns The same array each time. */
export function encodeCommand(command: Command): BigUint64Array {
  words.fill(0n);
  words[0] = command.op;
  words[1] = command.address ?? 0n;
  words[2] = command.length ?? 0n;
  words[3] = command.argument ?? 0n;
  words[4] = command.flags ?? 0n;
  words[5] = command.offset ?? 0n;
  words[6] = command.value ?? 0n;
  words[14] = command.gate ?? 0n;
  words[15] = command.gateCount ?? 0n;
  const { selection } = command;
  if (selection) {
    const { first, pages, from, to, stride, pattern, seed } = selection;
    words.set([first, pages, from, to, stride, PATTERNS[pattern], seed].map(BigInt), 7);
  }
  return words;
}

export interface Reply {
  op: bigint;
  errno: number;
  value: bigint;
  minorFaults: number;
  majorFaults: number;
  elapsedNs: number;
  sum: bigint;
  maxRssBytes: number;
  userMicroseconds: number;
  systemMicroseconds: number;
  /** The system call that failed. */
  syscall: string;
  /** Committed_AS right before and after a fork that was to read it. */
  committedBeforeKb: number;
  committedAfterKb: number;
  /** How often the last owner of the lock had died with it. */
  deadOwners: number;
}

/** In the order of native/core/command.h's FailedCall. */
const FAILED_CALLS = [
  '',
  'mmap',
  'munmap',
  'mremap',
  'mprotect',
  'madvise',
  'fork',
  'wait4',
  'command',
  'sched_setaffinity',
  'capset',
  'futex',
  'message',
  'userfaultfd',
];

export function decodeReply(record: Buffer): Reply {
  const word = (index: number): bigint => record.readBigUInt64LE(index * 8);
  const number = (index: number): number => Number(word(index));
  return {
    op: word(0),
    errno: number(1),
    value: word(2),
    minorFaults: number(3),
    majorFaults: number(4),
    elapsedNs: number(5),
    sum: word(6),
    maxRssBytes: number(7) * 1024,
    userMicroseconds: number(8),
    systemMicroseconds: number(9),
    syscall: FAILED_CALLS[number(10)] ?? 'command',
    committedBeforeKb: number(11),
    committedAfterKb: number(12),
    deadOwners: number(13),
  };
}
