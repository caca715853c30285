/**
 * Matchers that judge by what the kernel says. What it does not say passes neither an assertion nor its `.not`. Each is
 * a plain function of what it judges, and gives vitest its verdict and a message that shows the pages.
 */
import { CopyMark } from '../api/copy-mark.js';
import { SystemError } from '../errors.js';
import { chargesOf } from '../machine/linux/predict.js';
import { pageSizeBytes } from '../proc/host.js';
import { readSmaps } from '../proc/smaps.js';
import { requireInteger, requireOneOf } from '../schema/arguments.js';
import { agrees, isUnknown, showFigure } from '../schema/figure.js';
import type { Figure } from '../schema/figure.js';
import { judge, judged, runsOf, showPages } from './pages.js';
import type { JudgedPages } from './pages.js';

/** What fork() of a process that may not fork can say [man 2 fork]. */
const FORK_CODES = ['ENOMEM', 'EAGAIN'] as const;
export type ForkCode = (typeof FORK_CODES)[number];

interface Verdict {
  pass: boolean;
  message: () => string;
}

/** The part of vitest's `this` that matters here. */
interface Asked {
  isNot?: boolean;
}

/** @param holds Undefined where it cannot be told: then the assertion fails, and so does its `.not`. */
function verdict(isNot: boolean | undefined, holds: boolean | undefined, wanted: string, found: string): Verdict {
  const doubt = holds === undefined ? ', which cannot be told' : '';
  return { pass: holds ?? isNot === true, message: () => `expected ${wanted}${doubt}\n${found}` };
}

const not = (isNot: boolean | undefined): string => (isNot ? 'not ' : '');

/** Pure. */
function sharesAll({ counts, pages }: JudgedPages): boolean | undefined {
  if (counts.shared + counts.unknown < pages) return false;
  return counts.unknown === 0 ? true : undefined;
}

/** Pure. */
function exclusivePages({ counts }: JudgedPages): Figure {
  const { exclusive: min, unknown } = counts;
  return unknown === 0 ? min : { min, max: min + unknown, why: 'the kernel does not tell all states' };
}

export function toShareAllPages(this: Asked, received: unknown): Verdict {
  const pages = judge(received);
  const wanted = `${pages.owner} ${not(this.isNot)}to share all of ${pages.pages} pages`;
  return verdict(this.isNot, sharesAll(pages), wanted, showPages(pages));
}

export function toHaveExclusivePages(this: Asked, received: unknown, expected: number): Verdict {
  requireInteger('expected', expected, 0, Number.MAX_SAFE_INTEGER);
  const pages = judge(received);
  const found = exclusivePages(pages);
  const wanted = `${pages.owner} ${not(this.isNot)}to have ${expected} exclusive pages of ${pages.pages}`;
  return verdict(this.isNot, agrees(expected, found), wanted, `it has ${showFigure(found)}: ${showPages(pages)}`);
}

export function toHaveCopied(this: Asked, received: unknown, expectedBytes: number): Verdict {
  if (!(received instanceof CopyMark)) throw new TypeError('received must be a mark of markCopies()');
  requireInteger('expectedBytes', expectedBytes, 0, Number.MAX_SAFE_INTEGER);
  const expected = expectedBytes / pageSizeBytes();
  if (!Number.isInteger(expected)) {
    throw new RangeError(`expectedBytes must be a multiple of the page size, ${pageSizeBytes()}, not ${expectedBytes}`);
  }
  const { copiedPages, holders } = received.look();
  const wanted = `${expected} pages (${expectedBytes} bytes) ${not(this.isNot)}to have been copied since the mark`;
  const found = isUnknown(copiedPages) ? copiedPages.unknown : `${showFigure(copiedPages)} pages were copied`;
  const lines = holders.map(({ pid, states }) => `process ${pid}: ${showPages(judged('', runsOf(states)))}`);
  return verdict(this.isNot, agrees(expected, copiedPages), wanted, [found, ...lines].join('\n'));
}

interface Forking {
  pid?: number;
  name?: string;
  fork(): unknown;
}

function isForking(received: unknown): received is Forking {
  return typeof received === 'object' && received !== null && 'fork' in received && typeof received.fork === 'function';
}

/** Ends what a fork has made after all: a forked process, or one of a Machine. */
async function end(child: unknown): Promise<void> {
  const { close, kill } = Object(child) as { close?: () => unknown; kill?: () => unknown };
  await (close ?? kill)?.call(child);
}

/** What a fork of a process asks for. */
function showCharge(pid: number | undefined): string {
  if (pid === undefined) return '';
  const charged = chargesOf(readSmaps(pid), pageSizeBytes()).map(({ chargedPages }) => chargedPages);
  const sum = charged.reduce((total, pages) => total + pages, 0);
  return `: it asks for ${sum} pages, at most ${Math.max(0, ...charged)} of them in one VMA`;
}

/** Which rule refused, as far as it is known. */
function showRefusal({ code, detail }: SystemError): string {
  const { why, vmaPages, allowedPages } = detail ?? {};
  const figures = Object.entries({ 'pages asked': vmaPages, 'pages allowed': allowedPages }).flatMap(
    ([name, figure]) => (figure === undefined ? [] : [`${showFigure(figure)} ${name}`]),
  );
  return [`fork failed with ${code}`, ...(why === undefined ? [] : [why]), ...figures].join(', ');
}

export async function toFailToFork(this: Asked, received: unknown, code: ForkCode): Promise<Verdict> {
  if (!isForking(received)) throw new TypeError('received must be a process');
  requireOneOf('code', code, FORK_CODES);
  const { pid, name = `process ${pid ?? '?'}` } = received;
  const wanted = `${name} ${not(this.isNot)}to fail to fork with ${code}`;
  try {
    await end(await received.fork());
  } catch (error) {
    if (!(error instanceof SystemError) || error.syscall !== 'fork') throw error;
    return verdict(this.isNot, error.code === code, wanted, showRefusal(error) + showCharge(pid));
  }
  return verdict(this.isNot, false, wanted, `it forked, and the child has been ended${showCharge(pid)}`);
}
