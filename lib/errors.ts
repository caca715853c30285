/** The errors cowlab throws. Misuse is a TypeError or RangeError, as in Node core; these are for the rest. */
import type { ExitStatus, Failure } from './schema/step.js';

/** A system call failed. `code`, `errno` (negative) and `syscall` as in Node core. */
export class SystemError extends Error {
  override readonly name = 'SystemError';
  readonly code: string;
  readonly errno: number;
  readonly syscall: string;
  /** What is known beyond the errno: for a fork, which rule refused which VMA. */
  readonly detail: Failure | undefined;

  constructor(
    failure: { code: string; errno: number; syscall: string; message?: string | undefined },
    detail?: Failure,
  ) {
    const said = failure.message ? `: ${failure.message}` : '';
    super(`${failure.syscall} failed with ${failure.code}${said}`);
    this.code = failure.code;
    this.errno = failure.errno;
    this.syscall = failure.syscall;
    this.detail = detail;
  }
}

/** This kernel, platform or privilege lacks something. `remedy` says what would help. */
export class FeatureUnavailableError extends Error {
  override readonly name = 'FeatureUnavailableError';
  readonly code = 'COWLAB_FEATURE_UNAVAILABLE';
  readonly feature: string;
  readonly remedy: string;

  constructor(feature: string, reason: string, remedy: string) {
    super(`${feature} is not available: ${reason}. ${remedy}`);
    this.feature = feature;
    this.remedy = remedy;
  }
}

/** On anything but Linux every real call gives this one. */
export function notLinux(): FeatureUnavailableError {
  return new FeatureUnavailableError(
    'The Linux kernel',
    `this is ${process.platform}`,
    'Here the model works (modelMachine, cowlab run --model); run the real thing on Linux.',
  );
}

function howItEnded({ signal, code }: ExitStatus): string {
  if (signal !== undefined) return `was ended by ${signal}`;
  return code === undefined ? 'has ended, how is not known' : `has exited with code ${String(code)}`;
}

/** A command was given to a process that has ended, or that ended while it carried the command out. */
export class ProcessEndedError extends Error {
  override readonly name = 'ProcessEndedError';
  readonly code = 'COWLAB_PROCESS_ENDED';
  readonly process: string;
  readonly status: ExitStatus;

  constructor(process: string, status: ExitStatus) {
    super(`${process} ${howItEnded(status)}`);
    this.process = process;
    this.status = status;
  }
}
