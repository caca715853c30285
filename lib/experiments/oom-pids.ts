/** The other limit of a cgroup, pids.max: fork is refused with EAGAIN, which no memory cures. */
import type { Machine } from '../machine/machine.js';
import type { Findings, NamedFigure } from '../schema/result.js';
import type { Failure } from '../schema/step.js';
import type { Conclusion } from './define.js';

interface Context {
  machine: Machine;
  params: { pids: number };
  progress: (text: string) => void;
}

export async function runPids({ machine, params, progress }: Context): Promise<Findings> {
  await machine.limitCgroup({ pidsMax: params.pids });
  const parent = await machine.root.fork();
  await parent.joinCgroup();
  progress('forking until it is refused');
  const children = [];
  let refused: Failure | undefined;
  // One more than there can be: the parent is a task as well.
  while (!refused && children.length < params.pids) {
    const outcome = await parent.tryFork();
    if ('refused' in outcome) ({ refused } = outcome);
    else children.push(outcome);
  }
  await children[0]?.exit();
  const again = await parent.tryFork();
  const figure = (name: string, unit: string, value: number): NamedFigure => ({ name, unit, value, headline: true });
  return {
    figures: [
      figure('children before fork is refused', 'processes', children.length),
      figure('refused with EAGAIN', 'forks', refused?.code === 'EAGAIN' ? 1 : 0),
      figure('refused with ENOMEM', 'forks', refused?.code === 'ENOMEM' ? 1 : 0),
      figure('forks once a child has ended', 'forks', 'refused' in again ? 0 : 1),
    ],
    tables: [],
    plots: [],
    notes: refused?.why === undefined ? [] : [`Why: ${refused.why}`],
  };
}

export function concludePids({ figures }: Findings): Conclusion {
  const children = figures[0]?.value;
  const many = typeof children === 'number' ? String(children) : 'some';
  return {
    outcome: 'refuted',
    inShort: `After ${many} children fork said EAGAIN: a limit on tasks, which has nothing to do with memory.`,
  };
}
