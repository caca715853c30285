/** Why regions of transparent huge pages, or their exact figures, are not to be had here; undefined where they are. */
import { FeatureUnavailableError } from '../../lib/errors.js';
import { requireExactHugePages, requireHugePages } from '../../lib/proc/huge-pages.js';

export function whyNoHugePages(): string | undefined {
  try {
    requireHugePages();
    requireExactHugePages();
    return undefined;
  } catch (error) {
    if (error instanceof FeatureUnavailableError) return error.message;
    throw error;
  }
}
