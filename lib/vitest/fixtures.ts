/** Fixtures that end, unmap and close what they give, whatever becomes of the test. */
import { test as base } from 'vitest';
import { fork, openMachine } from '../index.js';
import type { ForkedProcess, OpenOptions, WatchedMachine } from '../index.js';

/** What can be given back: memory, processes, files, marks, areas. */
export type Closable = { close(): unknown } | { unmap(): unknown };

export interface CowlabFixtures {
  /** A process forked from Node when the test begins. It is ended after the test, with all its descendants. */
  root: ForkedProcess;
  /** For openMachine(). Default: none. */
  machineOptions: OpenOptions;
  /** A Machine on the kernel, closed after the test. */
  machine: WatchedMachine;
  /** Takes over what you have made, `own(mmap({ pages: 10 }))`, gives it back after the test, the last first, and returns it. */
  own: <T extends Closable>(thing: T) => T;
}

async function closeAll(things: readonly Closable[]): Promise<void> {
  const failures: unknown[] = [];
  for (const thing of things.toReversed()) {
    try {
      await ('close' in thing ? thing.close() : thing.unmap());
    } catch (error) {
      failures.push(error);
    }
  }
  if (failures.length > 0) throw failures.length === 1 ? failures[0] : new AggregateError(failures);
}

/** Cleaning is left to onTestFinished: of the ends of fixtures, vitest skips those that come after one that throws. */
export const test = base.extend<CowlabFixtures>({
  root: async ({ onTestFinished }, use) => {
    const root = fork();
    onTestFinished(() => root.close());
    await use(root);
  },
  machineOptions: {},
  machine: async ({ machineOptions, onTestFinished }, use) => {
    const machine = await openMachine(machineOptions);
    onTestFinished(() => machine.close());
    await use(machine);
  },
  own: async ({ onTestFinished }, use) => {
    const things: Closable[] = [];
    onTestFinished(() => closeAll(things));
    await use((thing) => {
      things.push(thing);
      return thing;
    });
  },
});
