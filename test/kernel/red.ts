/** How tests see that the checks of an experiment can fail. */
import { expect } from 'vitest';
import { compareTraces } from '../../lib/machine/compare.js';
import { replayOnModel } from '../../lib/machine/open.js';
import type { Mutation } from '../../lib/machine/model/mutation.js';
import type { AnyExperiment } from '../../lib/experiments/define.js';
import type { Process } from '../../lib/machine/machine.js';
import type { ResultDocument } from '../../lib/schema/result.js';

/** Whether a model with a wrong rule contradicts what was measured. */
export async function isRedWith(mutation: Mutation, { trace, facts }: ResultDocument): Promise<boolean> {
  if (!facts) expect.unreachable('it ran');
  const checks = compareTraces(await replayOnModel(trace, facts, { mutation }), trace);
  return checks.some(({ pass }) => pass === false);
}

/** What the checks that failed rest on, each once. */
export function failedBases({ checks }: ResultDocument): string[] {
  return [...new Set(checks.filter(({ pass }) => pass === false).map(({ basis }) => basis))];
}

/** The same program on a machine whose root does something else than it is told. */
export function withRoot(experiment: AnyExperiment, change: (root: Process) => void): AnyExperiment {
  return {
    ...experiment,
    run: (context) => {
      change(context.machine.root);
      return experiment.run(context);
    },
  };
}

/** The same program, by children of the root that do something else than they are told. */
export function withChildren(experiment: AnyExperiment, change: (child: Process) => void): AnyExperiment {
  return withRoot(experiment, (root) => {
    const fork = root.fork.bind(root);
    root.fork = async () => {
      const child = await fork();
      change(child);
      return child;
    };
  });
}
