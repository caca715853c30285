/**
 * What tsc leaves to do. The scripts of experiments in other languages go where those of ours are; the JSON Schemas are
 * written out; and `npx cowlab` runs the command line of this checkout: npm links a package's own command only where the
 * package is a dependency, and npx would install the checkout into its cache first.
 */
import fs from 'node:fs';

// A computed name: there is no dist/ when this is type-checked.
const { PUBLISHED_SCHEMAS } = /** @type {typeof import('../lib/schema/published.js')} */ (
  await import(new URL('../dist/schema/published.js', import.meta.url).href)
);

const command = 'dist/cli/main.js';
const link = 'node_modules/.bin/cowlab';

fs.cpSync('lib/experiments/python', 'dist/experiments/python', { recursive: true });

for (const [name, schema] of Object.entries(PUBLISHED_SCHEMAS)) {
  fs.writeFileSync(`dist/schema/${name}.json`, `${JSON.stringify(schema, null, 2)}\n`);
}

if (fs.existsSync(command)) {
  // tsc knows nothing of modes.
  fs.chmodSync(command, 0o755);
  fs.mkdirSync('node_modules/.bin', { recursive: true });
  fs.rmSync(link, { force: true });
  fs.symlinkSync(`../../${command}`, link);
}
