/**
 * Makes `npx cowlab` run the command line of this checkout. npm links a package's own command only where the package
 * is a dependency; without this, npx would install the checkout into its cache first.
 */
import fs from 'node:fs';

const command = 'dist/cli/main.js';
const link = 'node_modules/.bin/cowlab';

if (fs.existsSync(command)) {
  // tsc knows nothing of modes.
  fs.chmodSync(command, 0o755);
  fs.mkdirSync('node_modules/.bin', { recursive: true });
  fs.rmSync(link, { force: true });
  fs.symlinkSync(`../../${command}`, link);
}
