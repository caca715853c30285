/** Which anchors notice that a model is not the right one. */
import { modelMachine } from '../lib/machine/open.js';
import type { HostFacts } from '../lib/schema/facts.js';
import type { ModelOptions } from '../lib/machine/model/backend.js';
import type { Anchor } from './anchor.js';

/** @returns Their names. */
export async function noticing(
  anchors: readonly Anchor[],
  facts: HostFacts,
  options?: ModelOptions,
): Promise<string[]> {
  const noticed: string[] = [];
  for (const { name, run } of anchors) {
    await using machine = modelMachine(facts, options);
    await run(machine).catch(() => noticed.push(name));
  }
  return noticed;
}
