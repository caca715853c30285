/** What `cowlab explain` says of each experiment, in the order of the catalogue. */
import { COW_GROWTH } from './explanations/cow-growth.js';
import { ENOMEM } from './explanations/enomem.js';
import type { Explanation } from './explanations/explanation.js';
import { OOM } from './explanations/oom.js';

export type { Explanation } from './explanations/explanation.js';

export const EXPLANATIONS: readonly Explanation[] = [ENOMEM, COW_GROWTH, OOM];
