/** Checks of the limits of a cgroup, and of who may move into it. */
import type { HostFacts } from '../schema/facts.js';
import { requireInteger, requireObject } from '../schema/arguments.js';
import type { StepOf } from '../schema/step.js';
import type { CgroupSpec } from './machine.js';

/** @throws TypeError or RangeError that names the argument. */
export function requireCgroup(spec: CgroupSpec, facts: HostFacts): Omit<StepOf<'cgroup'>, 'op'> {
  requireObject('spec', spec);
  const { memoryMaxBytes, pidsMax } = spec;
  if (memoryMaxBytes === undefined && pidsMax === undefined) throw new TypeError('give memoryMaxBytes or pidsMax');
  const limits: Omit<StepOf<'cgroup'>, 'op'> = {};
  if (memoryMaxBytes !== undefined) {
    requireInteger('memoryMaxBytes', memoryMaxBytes, facts.pageSizeBytes, Number.MAX_SAFE_INTEGER);
    if (memoryMaxBytes % facts.pageSizeBytes !== 0) {
      // The kernel would round it, and the limit that is meant must be the limit that is.
      throw new RangeError(`memoryMaxBytes must be a multiple of the page size, not ${String(memoryMaxBytes)}`);
    }
    limits.memoryMaxBytes = memoryMaxBytes;
  }
  if (pidsMax !== undefined) limits.pidsMax = requireInteger('pidsMax', pidsMax, 1, 2 ** 22);
  return limits;
}

/** What a program has done to its cgroup so far. */
export class CgroupProgress {
  #limited = false;
  readonly #members = new Set<string>();

  /** @throws TypeError */
  requireUnlimited(refusal = 'the cgroup of this machine has its limits already'): void {
    if (this.#limited) throw new TypeError(refusal);
  }

  limit(): void {
    this.#limited = true;
  }

  /**
   * What a process had before it came would stay charged to the cgroup that it came from, and the OOM killer must not
   * be able to take the root, which waits for all others.
   * @throws TypeError
   */
  requireMayJoin(process: { name: string; regions: ReadonlyMap<unknown, number> }): void {
    if (!this.#limited) throw new TypeError('set the limits of the cgroup first: machine.limitCgroup');
    if (process.name === 'root') throw new TypeError('the root stays outside the cgroup: fork, and let the child join');
    if (this.#members.has(process.name)) throw new TypeError(`${process.name} is in the cgroup already`);
    if (process.regions.size > 0) throw new TypeError(`${process.name} must join before it has memory of its own`);
  }

  join(name: string): void {
    this.#members.add(name);
  }

  /** A huge page stays charged as long as one page of it is mapped, which the model does not follow. @throws TypeError */
  requireOutside(name: string): void {
    if (this.#members.has(name)) throw new TypeError('hugePages are not for processes in the cgroup of the machine');
  }

  /** A child is born in the cgroup of its parent. */
  forked(parent: string, child: string): void {
    if (this.#members.has(parent)) this.#members.add(child);
  }
}
