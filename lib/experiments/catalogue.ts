/** The experiments that come with cowlab, in the order in which they are listed. */
import { advice } from './advice.js';
import { arenas } from './arenas.js';
import { cowGrowth } from './cow-growth.js';
import type { AnyExperiment } from './define.js';
import { eighteenGb } from './eighteen-gb.js';
import { enomem } from './enomem.js';
import { gc } from './gc.js';
import { latency } from './latency.js';
import { multiprocessing } from './multiprocessing.js';
import { nodeSpawn } from './node-spawn.js';
import { oom } from './oom.js';
import { readOnly } from './read-only.js';
import { refcount } from './refcount.js';
import { sharedMemory } from './shared-memory.js';
import { snapshot } from './snapshot.js';
import { startMethods } from './start-methods.js';
import { thp } from './thp.js';
import { tree } from './tree.js';

export const experiments: readonly AnyExperiment[] = [
  enomem,
  eighteenGb,
  startMethods,
  nodeSpawn,
  multiprocessing,
  readOnly,
  cowGrowth,
  tree,
  snapshot,
  thp,
  latency,
  advice,
  sharedMemory,
  refcount,
  gc,
  arenas,
  oom,
];

export function findExperiment(name: string): AnyExperiment | undefined {
  return experiments.find((experiment) => experiment.name === name);
}
