/** How a process ended, from the status word of wait4(2). */
import { constants } from 'node:os';
import type { ExitStatus } from '../schema/step.js';

/** Signals whose default action ends a process, signal(7): what `kill` may send. */
export const ENDING_SIGNALS = [
  'SIGKILL',
  'SIGTERM',
  'SIGINT',
  'SIGHUP',
  'SIGQUIT',
  'SIGABRT',
  'SIGSEGV',
  'SIGBUS',
  'SIGFPE',
  'SIGILL',
  'SIGTRAP',
  'SIGSYS',
  'SIGPIPE',
  'SIGALRM',
  'SIGUSR1',
  'SIGUSR2',
  'SIGXCPU',
  'SIGXFSZ',
  'SIGVTALRM',
  'SIGPROF',
  'SIGIO',
  'SIGPWR',
] as const;
export type EndingSignal = (typeof ENDING_SIGNALS)[number];

function signalName(number: number): string {
  // Two names may share a number (SIGIOT, SIGABRT); the one that can be sent by name is meant.
  const byChoice = ENDING_SIGNALS.find((name) => constants.signals[name] === number);
  const known = byChoice ?? Object.entries(constants.signals).find(([, value]) => value === number)?.[0];
  return known ?? `SIG${String(number)}`;
}

/** What waitProcess of the addon fills: the status word, and what wait4(2) says was used. */
export function exitStatusOf(figures: Float64Array): ExitStatus {
  const [status = 0, minorFaults = 0, majorFaults = 0, maxRssBytes = 0, user = 0, system = 0] = figures;
  const usage = { minorFaults, majorFaults, maxRssBytes, userMicroseconds: user, systemMicroseconds: system };
  return { ...decodeStatus(status), ...usage };
}

/** The bits are those of wait(2): WIFEXITED, WEXITSTATUS, WTERMSIG. */
export function decodeStatus(status: number): Pick<ExitStatus, 'code' | 'signal'> {
  const signal = status & 0x7f;
  return signal === 0 ? { code: (status >> 8) & 0xff } : { signal: signalName(signal) };
}
