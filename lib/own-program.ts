/** Where the programs of this package lie: native/vm and native/programs, built by node-gyp. */
import { existsSync, realpathSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { FeatureUnavailableError } from './errors.js';

/** Of this package: lib and dist stand equally deep in it. */
export const PACKAGE_ROOT = realpathSync(fileURLToPath(new URL('..', import.meta.url)));

/** @throws FeatureUnavailableError when it was not built. */
export function ownProgram(name: string): string {
  const folders = ['build/Release', `prebuilds/${process.platform}-${process.arch}`];
  const found = folders.map((folder) => join(PACKAGE_ROOT, folder, name)).find((path) => existsSync(path));
  if (found !== undefined) return found;
  const reason = `it is neither in ${folders.join(' nor in ')} of ${PACKAGE_ROOT}`;
  throw new FeatureUnavailableError(name, reason, 'Build it with `npm run build:native`.');
}
