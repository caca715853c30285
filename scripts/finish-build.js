/**
 * What tsc leaves to do. The scripts of experiments in other languages go where those of ours are; and `npx cowlab` runs
 * the command line of this checkout: npm links a package's own command only where the package is a dependency, and npx
 * would install the checkout into its cache first.
 */
import fs from 'node:fs';

const command = 'dist/cli/main.js';
const link = 'node_modules/.bin/cowlab';

fs.cpSync('lib/experiments/python', 'dist/experiments/python', { recursive: true });

if (fs.existsSync(command)) {
  // tsc knows nothing of modes.
  fs.chmodSync(command, 0o755);
  fs.mkdirSync('node_modules/.bin', { recursive: true });
  fs.rmSync(link, { force: true });
  fs.symlinkSync(`../../${command}`, link);
}
