/** Builds what is missing or older than its sources: the addon, the library, or neither. */
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';

/**
 * The newest modification among files and everything below directories.
 * @param {string[]} roots
 */
function newestMs(roots) {
  let newest = 0;
  for (const root of roots) {
    const entries = fs.statSync(root).isDirectory() ? fs.readdirSync(root, { recursive: true, encoding: 'utf8' }) : [];
    for (const file of [root, ...entries.map((entry) => path.join(root, entry))]) {
      newest = Math.max(newest, fs.statSync(file).mtimeMs);
    }
  }
  return newest;
}

/**
 * @param {string} product
 * @param {string[]} sources
 */
function isStale(product, sources) {
  return !fs.existsSync(product) || fs.statSync(product).mtimeMs < newestMs(sources);
}

/** @param {string} script */
function npmRun(script) {
  // What npm prints would stand in front of what the user asked for.
  execFileSync('npm', ['run', '--silent', script], { stdio: ['ignore', 2, 2] });
}

const built = 'build/Release/cowlab.node';
const prebuilt = !fs.existsSync(built) && fs.existsSync('prebuilds');
if (!prebuilt && isStale(built, ['native', 'binding.gyp'])) npmRun('build:native');
if (isStale('dist/cli/main.js', ['lib', 'tsconfig.json', 'tsconfig.build.json'])) npmRun('build:ts');
