/**
 * `npm run prebuild`: the addon and the programs beside it, built for each architecture, into prebuilds/, where an install
 * finds them. `-- --only arm64` builds one, `-- --check` tries them, arm64 under qemu-user (test-prebuilds.js).
 * It is built in a copy, so that the build of this checkout stays as it is.
 */
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import prebuildify from 'prebuildify';

const ROOT = path.resolve(import.meta.dirname, '..');

/** The prefix of a compiler that makes programs for an architecture, as Debian names it. */
const TRIPLES = /** @type {const} */ ({ x64: 'x86_64-linux-gnu', arm64: 'aarch64-linux-gnu' });
/** @typedef {keyof typeof TRIPLES} Arch */
const ARCHS = /** @type {Arch[]} */ (Object.keys(TRIPLES));

/** @param {Arch} arch */
function requireCompiler(arch) {
  const compiler = `${TRIPLES[arch]}-g++`;
  try {
    execFileSync(compiler, ['--version'], { stdio: 'ignore' });
  } catch {
    throw new Error(`there is no ${compiler}: apt-get install g++-${TRIPLES[arch].replace('_', '-')}`);
  }
}

/** The newest glibc (or libstdc++) that a program asks for. @param {Arch} arch @param {string} file @param {string} library */
function newestNeeded(arch, file, library) {
  const symbols = execFileSync(`${TRIPLES[arch]}-objdump`, ['-T', file], { encoding: 'utf8' });
  const versions = [...symbols.matchAll(new RegExp(`\\(?${library}_([0-9.]+)`, 'g'))].map(
    ([, version = '']) => version,
  );
  return versions.sort((a, b) => a.localeCompare(b, 'en', { numeric: true })).at(-1) ?? 'none';
}

/** What node-gyp reads, without what it writes. @param {string} copy */
function copySources(copy) {
  for (const name of ['package.json', 'binding.gyp', 'native']) {
    fs.cpSync(path.join(ROOT, name), path.join(copy, name), { recursive: true });
  }
  fs.symlinkSync(path.join(ROOT, 'node_modules'), path.join(copy, 'node_modules'));
}

/** @param {Arch} arch @param {string} copy */
async function build(arch, copy) {
  const triple = TRIPLES[arch];
  Object.assign(process.env, { CC: `${triple}-gcc`, CXX: `${triple}-g++`, AR: `${triple}-ar` });
  const options = {
    cwd: copy,
    out: ROOT,
    arch,
    platform: 'linux',
    targets: [{ runtime: 'node', target: process.versions.node }],
    napi: true,
    // In the name of the file, so that musl does not take it.
    tagLibc: 'glibc',
    libc: 'glibc',
    strip: true,
    stripBin: `${triple}-strip`,
    quiet: true,
  };
  await new Promise((resolve, reject) => {
    prebuildify(options, (/** @type {Error | null} */ error) => {
      if (error) reject(error);
      else resolve(undefined);
    });
  });
  const folder = path.join(ROOT, 'prebuilds', `linux-${arch}`);
  // Every program of binding.gyp.
  const release = path.join(copy, 'build/Release');
  for (const name of fs.readdirSync(release).filter((file) => /^cowlab-[a-z]+$/.test(file))) {
    fs.copyFileSync(path.join(release, name), path.join(folder, name));
    execFileSync(`${triple}-strip`, [path.join(folder, name)]);
  }
  const addon = path.join(folder, 'cowlab.glibc.node');
  const needs = ['GLIBC', 'GLIBCXX'].map((library) => `${library} ${newestNeeded(arch, addon, library)}`);
  console.log(`${path.relative(ROOT, addon)}: needs ${needs.join(', ')}`);
}

const { values } = parseArgs({ options: { only: { type: 'string' }, check: { type: 'boolean', default: false } } });
const chosen = ARCHS.filter((arch) => values.only === undefined || arch === values.only);
if (chosen.length === 0) throw new Error(`there is no architecture ${String(values.only)}; one of ${ARCHS.join(', ')}`);
chosen.forEach(requireCompiler);
for (const arch of chosen) {
  const copy = fs.mkdtempSync(path.join(os.tmpdir(), 'cowlab-prebuild-'));
  try {
    copySources(copy);
    fs.rmSync(path.join(ROOT, 'prebuilds', `linux-${arch}`), { recursive: true, force: true });
    await build(arch, copy);
  } finally {
    fs.rmSync(copy, { recursive: true });
  }
}
if (values.check) {
  execFileSync(process.execPath, [path.join(import.meta.dirname, 'test-prebuilds.js')], { stdio: 'inherit' });
}
