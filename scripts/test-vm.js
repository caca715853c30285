/**
 * The kernel tests on other kernels: boots each in a virtual machine and runs vitest there, as root. A kernel that is not
 * there is fetched as a Debian package. What the guests bring out is one line of counts for each, after their output.
 *
 *   npm run test:vm -- [--only 6.1]... [--accel kvm|tcg] [-- arguments of vitest, such as a file]
 */
import fs from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { RESULTS } from './vm-reporter.js';

const ROOT = path.resolve(import.meta.dirname, '..');

/** @param {string} file */
function built(file) {
  return new URL(`../dist/${file}`, import.meta.url).href;
}

// The types are those of the sources, and what runs is what is shipped.
const { addOwnPackage, addPython, bareSystem, guestPath, setCommand } =
  /** @type {typeof import('../lib/vm/contents.js')} */ (await import(built('vm/contents.js')));
const { GuestFailure, runGuest, writeImage } = /** @type {typeof import('../lib/vm/guest.js')} */ (
  await import(built('vm/guest.js'))
);
const { chooseKernel, fetchKernel } = /** @type {typeof import('../lib/vm/kernel.js')} */ (
  await import(built('vm/kernel.js'))
);
const { findPython } = /** @type {typeof import('../lib/api/foreign-program.js')} */ (
  await import(built('api/foreign-program.js'))
);
const { FeatureUnavailableError } = /** @type {typeof import('../lib/errors.js')} */ (await import(built('errors.js')));

/** @typedef {import('./vm-reporter.js').RunResult} RunResult */
/** @typedef {import('../lib/vm/image.js').Image} Image */

const VERSIONS = ['6.1', '6.12'];

/** What must have run and passed in every run of all tests: nowhere else may it change the host's overcommit. */
const REQUIRED = 'test/kernel/strict.test.ts';

/** Emulation is some ten times slower; so many programs notice every wrong rule (property.test.ts). */
const PROGRAMS = process.env['COWLAB_PROGRAMS'] ?? '64';

const MEMORY_BYTES = 4 * 2 ** 30;
/**
 * Emulated CPUs that wait for each other, and for a host that has fewer than all guests together, take a third of the
 * time. The second is there for what depends on it (strict.test.ts).
 */
const CPUS = { cpus: 2, cpusAtBoot: 1 };
const TIMEOUT_MS = 40 * 60_000;

/**
 * Tests whose outcome no kernel's rules decide: of JavaScript and the addon, and of what survives a killed Node, which
 * start Node hundreds of times. And experiments that take minutes here, and whose rules the others try.
 */
const ELSEWHERE = [
  ...['any-call', 'array-buffer', 'buffer-lives', 'death', 'fixtures', 'ksm', 'ksm-machine', 'misuse', 'restore'],
  ...['cpython', 'eighteen-gb', 'hugetlb-machine', 'multiprocessing', 'read-only', 'shared-memory', 'snapshot'],
  ...['start-methods', 'tree', 'vitest-matchers'],
];

/** Of node_modules, what only other jobs need. */
const UNNEEDED = [
  ...['.bin', '@eslint', '@eslint-community', '@types', '@typescript-eslint', 'clang-format', 'eslint', 'node-gyp'],
  ...['prebuildify', 'prettier', 'tar', 'typescript', 'typescript-eslint', 'undici'],
  ...['@observablehq', '@shikijs', 'axe-core', 'linkedom', 'playwright-core', 'publint', 'typedoc'],
];

/** Programs that tests start. */
const PROGRAMS_OF_HOST = [
  ...['cat', 'echo', 'env', 'ls', 'printf', 'pwd', 'readlink', 'sed', 'setpriv', 'setsid', 'sh', 'sleep', 'tr', 'true'],
];

/** @param {string} name */
function whereIs(name) {
  const folders = (process.env['PATH'] ?? '').split(path.delimiter);
  const found = folders.map((folder) => path.join(folder, name)).find((file) => fs.existsSync(file));
  if (found === undefined) throw new Error(`${name} is not in PATH`);
  return found;
}

/** @param {Image} image */
async function addTests(image) {
  const modules = path.join(ROOT, 'node_modules');
  const unneeded = new Set(UNNEEDED.map((name) => path.join(modules, name)));
  image.tree(guestPath(modules), modules, (file) => !unneeded.has(file) && !file.endsWith('.map'));
  for (const name of ['lib', 'test', 'scripts', 'vitest.config.ts', 'tsconfig.json']) {
    image.tree(guestPath(path.join(ROOT, name)), path.join(ROOT, name));
  }
  const addons = fs
    .readdirSync(modules, { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.node'));
  for (const addon of addons) await image.libraries(path.join(modules, addon));
  for (const name of PROGRAMS_OF_HOST) await image.program(whereIs(name), `/usr/bin/${name}`);
  image.symlink('/bin/sh', '/usr/bin/sh');
  image.symlink('/usr/local/bin/node', process.execPath);
}

/**
 * @param {string[]} vitestArguments
 * @returns A descriptor of the image.
 */
async function buildImage(vitestArguments) {
  const image = await bareSystem();
  await addOwnPackage(image);
  await addPython(image, findPython());
  await addTests(image);
  const inGuest = guestPath(ROOT);
  const vitest = path.join(inGuest, 'node_modules/vitest/vitest.mjs');
  const exclude = vitestArguments.length > 0 ? [] : ELSEWHERE.map((name) => `--exclude=**/${name}.test.ts`);
  const reporters = ['--reporter=verbose', `--reporter=${path.join(inGuest, 'scripts/vm-reporter.js')}`];
  setCommand(image, {
    argv: [
      process.execPath,
      vitest,
      'run',
      '--project',
      'kernel',
      '--testTimeout=600000',
      // A worker for each file, which loads all modules anew, takes a fifth of the time where it is emulated.
      '--no-isolate',
      ...reporters,
      ...exclude,
      ...vitestArguments,
    ],
    folder: inGuest,
    environment: { CI: 'true', COWLAB_PROGRAMS: PROGRAMS, COWLAB_SHORT: '1', COWLAB_GUEST: '1' },
  });
  return writeImage(image);
}

/** Passes on whole lines, so that those of several guests do not mix. */
class Lines {
  #rest = '';
  #take;

  /** @param {(line: string) => void} take */
  constructor(take) {
    this.#take = take;
  }

  /** @param {Buffer} bytes */
  push(bytes) {
    const lines = (this.#rest + bytes.toString('latin1')).split('\n');
    this.#rest = lines.pop() ?? '';
    for (const line of lines) this.#take(Buffer.from(line, 'latin1').toString());
  }
}

/**
 * A guest that fell over, and took vitest with it, has judged nothing: it is tried once more.
 * @param {string} version
 * @param {number} imageFd
 * @param {'kvm' | 'tcg' | undefined} accelerator
 * @returns {Promise<RunResult | string>} A string says why vitest did not come to its end.
 */
async function testOn(version, imageFd, accelerator) {
  const first = await tryOn(version, imageFd, accelerator);
  if (typeof first !== 'string') return first;
  console.log(`[${version}] ${first}: once more`);
  const second = await tryOn(version, imageFd, accelerator);
  return typeof second === 'string' ? `${first}, and then ${second}` : second;
}

/**
 * @param {string} version
 * @param {number} imageFd
 * @param {'kvm' | 'tcg' | undefined} accelerator
 * @returns {Promise<RunResult | string>}
 */
async function tryOn(version, imageFd, accelerator) {
  const { release, path: kernel } = await kernelOf(version);
  /** @type {RunResult | undefined} */
  let result;
  /** @param {string} line */
  const say = (line) => {
    console.log(`[${version}] ${line}`);
  };
  const output = new Lines((line) => {
    if (line.startsWith(RESULTS)) result = /** @type {RunResult} */ (JSON.parse(line.slice(RESULTS.length)));
    else say(line);
  });
  const errors = new Lines(say);
  const machine = { kernel, memoryBytes: MEMORY_BYTES, ...CPUS };
  const options = { ...machine, imageFd, accelerator, timeoutMs: TIMEOUT_MS };
  try {
    const end = await runGuest({
      ...options,
      stdout: (bytes) => {
        output.push(bytes);
      },
      stderr: (bytes) => {
        errors.push(bytes);
      },
      note: say,
    });
    const seconds = Math.round(end.elapsedMs / 1000);
    const ended = `vitest ended with ${String(end.code ?? end.signal)} after ${seconds} s`;
    say(`Linux ${release} (${end.accelerator}): ${ended}`);
    return result ?? ended;
  } catch (error) {
    say(error instanceof Error ? error.message : String(error));
    return error instanceof GuestFailure ? error.reason : String(error);
  }
}

/** @param {string} version */
async function kernelOf(version) {
  try {
    return chooseKernel(version);
  } catch (error) {
    if (!(error instanceof FeatureUnavailableError)) throw error;
    return fetchKernel(version);
  }
}

/**
 * @param {RunResult} result
 * @param {'passed' | 'failed' | 'skipped'} which
 */
function sum(result, which) {
  return result.files.reduce((total, file) => total + file[which], 0);
}

/** @param {RunResult | string} result */
function isGood(result) {
  if (typeof result === 'string') return false;
  return result.otherErrors === 0 && sum(result, 'failed') === 0 && sum(result, 'passed') > 0;
}

/** @param {RunResult | string} result */
function passedRequired(result) {
  if (typeof result === 'string') return false;
  const required = result.files.find(({ file }) => file === REQUIRED);
  return (required?.passed ?? 0) > 0 && required?.failed === 0;
}

const { values, positionals } = parseArgs({
  options: { only: { type: 'string', multiple: true }, accel: { type: 'string' } },
  allowPositionals: true,
});
const accelerator = values.accel === 'kvm' || values.accel === 'tcg' ? values.accel : undefined;
const versions = values.only ?? VERSIONS;
const imageFd = await buildImage(positionals);
const results = await Promise.all(versions.map((version) => testOn(version, imageFd, accelerator)));

let good = results.every(isGood);
for (const [index, version] of versions.entries()) {
  const result = results[index];
  if (result === undefined || typeof result === 'string') {
    console.log(`Linux ${version}: did not come to its end: ${String(result)}`);
    continue;
  }
  const [passed, failed, skipped] = [sum(result, 'passed'), sum(result, 'failed'), sum(result, 'skipped')];
  console.log(`Linux ${version}: ${passed} passed, ${failed} failed, ${skipped} skipped`);
}
if (positionals.length > 0) console.log(`Not all tests were asked for, so ${REQUIRED} is not required.`);
else if (!results.some(passedRequired)) {
  console.log(`${REQUIRED} passed on no kernel: the strict scenario was not run.`);
  good = false;
}
process.exitCode = good ? 0 : 1;
