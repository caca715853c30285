/** How programs get a Machine, and how a recorded program is run again. */
import type { HostFacts } from '../schema/facts.js';
import type { Trace } from '../schema/step.js';
import { openBackend } from './linux/session.js';
import type { OpenOptions } from './linux/session.js';
import type { Backend, Machine, SystemChange } from './machine.js';
import { ModelBackend } from './model/backend.js';
import type { ModelOptions } from './model/backend.js';
import { ProgramMachine } from './program.js';

export { openMachine } from './linux/session.js';
export type { OpenOptions, WatchedMachine } from './linux/session.js';
export type { RootKind } from './linux/backend.js';

/** A Machine that predicts instead of doing. It runs anywhere. @param facts Of the host to predict for. */
export function modelMachine(facts: HostFacts, options?: ModelOptions): Machine {
  return new ProgramMachine(new ModelBackend(facts, options));
}

/** What the steps of a recorded program change of the system. */
export function changesOf(trace: Trace): SystemChange[] {
  const changes = {
    overcommit: 'overcommit',
    hugetlb: 'hugetlb',
    cgroup: 'cgroup',
    merge: 'ksm',
    swap: 'swap',
  } as const;
  const ops = new Set(trace.map(({ step }) => step.op));
  return Object.entries(changes).flatMap(([op, change]) => (ops.has(op as keyof typeof changes) ? [change] : []));
}

/** A model that is told a program piece by piece, and what came of it so far. */
export interface ModelReplay {
  /** What the model says to the next steps. */
  replay(trace: Trace): Promise<Trace>;
}

export function startModelReplay(facts: HostFacts): ModelReplay {
  const model = new ModelBackend(facts);
  return { replay: (trace) => replayOn(model, trace) };
}

async function replayOn(backend: Backend, trace: Trace): Promise<Trace> {
  const replayed: Trace = [];
  for (const { step, outcome } of trace) {
    replayed.push({ step, outcome: await backend.execute(step, outcome) });
  }
  return replayed;
}

/** What the model says to each step of a recorded program. */
export async function replayOnModel(trace: Trace, facts: HostFacts, options?: ModelOptions): Promise<Trace> {
  return replayOn(new ModelBackend(facts, options), trace);
}

/** Runs a recorded program on this machine's kernel. @param options What it may change, if it changes anything. */
export async function replayOnLinux(trace: Trace, options?: OpenOptions): Promise<{ trace: Trace; facts: HostFacts }> {
  const backend = await openBackend(options);
  try {
    return { trace: await replayOn(backend, trace), facts: backend.facts };
  } finally {
    await backend.close();
  }
}
