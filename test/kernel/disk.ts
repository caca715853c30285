/** Whether this host has a disk. */
import { createTemporaryFile } from '../../lib/api/file-object.js';
import { FeatureUnavailableError } from '../../lib/errors.js';

/** Why this host has no file to map: in an initramfs nothing is on a disk. */
export async function whyNoFile(): Promise<string | undefined> {
  try {
    (await createTemporaryFile(1)).close();
    return undefined;
  } catch (error) {
    if (error instanceof FeatureUnavailableError) return error.message;
    throw error;
  }
}
