/** What `cowlab explain` says of each experiment, in the order of the catalogue. */
import { ADVICE } from './explanations/advice.js';
import { ARENAS } from './explanations/arenas.js';
import { COW_GROWTH } from './explanations/cow-growth.js';
import { EIGHTEEN_GB } from './explanations/eighteen-gb.js';
import { ENOMEM } from './explanations/enomem.js';
import type { Explanation } from './explanations/explanation.js';
import { GC } from './explanations/gc.js';
import { LATENCY } from './explanations/latency.js';
import { MULTIPROCESSING } from './explanations/multiprocessing.js';
import { NODE_SPAWN } from './explanations/node-spawn.js';
import { OOM } from './explanations/oom.js';
import { READ_ONLY } from './explanations/read-only.js';
import { REFCOUNT } from './explanations/refcount.js';
import { SHARED_MEMORY } from './explanations/shared-memory.js';
import { SNAPSHOT } from './explanations/snapshot.js';
import { START_METHODS } from './explanations/start-methods.js';
import { THP } from './explanations/thp.js';
import { TREE } from './explanations/tree.js';

export type { Explanation } from './explanations/explanation.js';

export const EXPLANATIONS: readonly Explanation[] = [
  ENOMEM,
  EIGHTEEN_GB,
  START_METHODS,
  NODE_SPAWN,
  MULTIPROCESSING,
  READ_ONLY,
  COW_GROWTH,
  TREE,
  SNAPSHOT,
  THP,
  LATENCY,
  ADVICE,
  SHARED_MEMORY,
  REFCOUNT,
  GC,
  ARENAS,
  OOM,
];
