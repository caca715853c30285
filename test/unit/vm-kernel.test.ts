import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { FeatureUnavailableError } from '../../lib/errors.js';
import { chooseKernel, findKernels, kernelCache, newestPackage } from '../../lib/vm/kernel.js';
import { findQemu, kvmOpens, qemuArguments } from '../../lib/vm/qemu.js';

let folder: string;
let folders: string[];

function kernelFile(where: string, name: string): void {
  writeFileSync(join(folder, where, name), '');
}

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'cowlab-kernels-'));
  folders = [join(folder, 'cache'), join(folder, 'boot'), join(folder, 'missing')];
  for (const name of ['cache', 'boot', 'bin']) mkdirSync(join(folder, name));
  kernelFile('cache', 'vmlinuz-6.1.0-9-cloud-amd64');
  kernelFile('cache', 'vmlinuz-6.1.0-56-cloud-amd64');
  kernelFile('cache', 'fetch-Xy12');
  kernelFile('boot', 'vmlinuz-6.12.117+deb12-amd64');
  kernelFile('boot', 'vmlinuz-6.1.0-56-cloud-amd64');
  kernelFile('boot', 'vmlinuz-5.10.0-1-amd64');
  kernelFile('boot', 'vmlinuz.old');
  kernelFile('boot', 'initrd.img-6.12.117+deb12-amd64');
});
afterAll(() => {
  rmSync(folder, { recursive: true });
});

describe('kernels', () => {
  test('are found in all folders, the newest first, numbers compared as numbers', () => {
    expect(findKernels(folders).map(({ path }) => path.slice(folder.length + 1))).toEqual([
      'boot/vmlinuz-6.12.117+deb12-amd64',
      'cache/vmlinuz-6.1.0-56-cloud-amd64',
      'boot/vmlinuz-6.1.0-56-cloud-amd64',
      'cache/vmlinuz-6.1.0-9-cloud-amd64',
      'boot/vmlinuz-5.10.0-1-amd64',
    ]);
  });

  test.each([
    [undefined, '6.12.117+deb12-amd64'],
    ['6.1', '6.1.0-56-cloud-amd64'],
    ['6.12', '6.12.117+deb12-amd64'],
    ['6', '6.12.117+deb12-amd64'],
    ['5.10', '5.10.0-1-amd64'],
    ['6.1.0-9', '6.1.0-9-cloud-amd64'],
    ['6.1.0-56-cloud-amd64', '6.1.0-56-cloud-amd64'],
  ])('the version %s is the newest of it: %s', (wanted, release) => {
    expect(chooseKernel(wanted, folders).release).toBe(release);
  });

  test('a path is taken as it is', () => {
    const path = join(folder, 'boot/vmlinuz-5.10.0-1-amd64');
    expect(chooseKernel(path, [])).toEqual({ release: '5.10.0-1-amd64', path });
  });

  test.each(['6.10', '5.1', '7', '6.1.0-5'])(
    'a version that is not there, %s, is an error that says how to get it',
    (wanted) => {
      expect(() => chooseKernel(wanted, folders)).toThrow(FeatureUnavailableError);
      expect(() => chooseKernel(wanted, folders)).toThrow(`cowlab vm fetch ${wanted}`);
    },
  );

  test('a path that is not there, and no kernel at all, are errors that say how to get one', () => {
    expect(() => chooseKernel('/no/such', folders)).toThrow(/no such file that you may read.*cowlab vm fetch/);
    expect(() => chooseKernel(folders[0] ?? '', folders)).toThrow(/no such file that you may read/);
    expect(() => chooseKernel(undefined, [])).toThrow(/A kernel to boot.*cowlab vm fetch.*--kernel PATH/);
  });

  test('the cache is in XDG_CACHE_HOME, or else in ~/.cache', () => {
    expect(kernelCache({ XDG_CACHE_HOME: '/x' })).toBe('/x/cowlab/kernels');
    expect(kernelCache({ XDG_CACHE_HOME: 'relative' })).toMatch(/^\/.*\/\.cache\/cowlab\/kernels$/);
    expect(kernelCache({})).toMatch(/^\/.*\/\.cache\/cowlab\/kernels$/);
  });
});

describe("among the names of Debian's packages", () => {
  const names = [
    'linux-image-6.1.0-9-cloud-amd64',
    'linux-image-6.1.0-56-cloud-amd64',
    'linux-image-6.1.0-57-cloud-amd64-unsigned',
    'linux-image-6.1.0-58-cloud-amd64-dbg',
    'linux-image-6.1.0-59-amd64',
    'linux-image-6.1.0-60-cloud-arm64',
    'linux-image-6.12-cloud-amd64',
    'linux-image-6.12.99+deb12-cloud-amd64',
    'linux-image-6.12.117+deb12-cloud-amd64',
  ];
  test.each([
    ['6.1', 'x64', 'linux-image-6.1.0-56-cloud-amd64'],
    ['6.1', 'arm64', 'linux-image-6.1.0-60-cloud-arm64'],
    ['6.12', 'x64', 'linux-image-6.12.117+deb12-cloud-amd64'],
    ['6.12', 'arm64', undefined],
    ['5.10', 'x64', undefined],
  ])('the newest signed kernel for %s on %s is %s', (version, arch, expected) => {
    expect(newestPackage(version, names, arch)).toBe(expected);
  });
});

describe('qemu', () => {
  test('that is not in PATH is an error that says how to install it', () => {
    expect(() => findQemu(join(folder, 'bin'), 'x64')).toThrow(/apt-get install qemu-system-x86.*dnf.*pacman/);
    expect(() => findQemu(join(folder, 'bin'), 'arm64')).toThrow(/apt-get install qemu-system-arm/);
    expect(() => findQemu(join(folder, 'bin'), 's390x')).toThrow(/this is s390x/);
  });

  test('is found in PATH if it can be executed', () => {
    const program = join(folder, 'bin', 'qemu-system-x86_64');
    writeFileSync(program, '');
    chmodSync(program, 0o644);
    expect(() => findQemu(join(folder, 'bin'), 'x64')).toThrow(FeatureUnavailableError);
    chmodSync(program, 0o755);
    expect(findQemu(`/nowhere::${join(folder, 'bin')}`, 'x64')).toBe(program);
  });

  test('is told the accelerator, the memory, and by words for PID 1 the port and the cgroups', () => {
    const options = { kernel: '/k', memoryBytes: 2 ** 30, cpus: 3, cgroup: 'v1' as const };
    const text = qemuArguments(options, 'tcg', 'x64').join(' ');
    expect(text).toMatch(/-accel tcg,thread=multi -cpu max,la57=off,erms=off -m 1024M -smp 3 .*-no-reboot -kernel \/k/);
    expect(text).toMatch(/console=ttyS0 .*COWLAB_PORT=ttyS1 COWLAB_CGROUP=v1/);
    const arm = qemuArguments({ ...options, cgroup: 'v2' }, 'kvm', 'arm64').join(' ');
    expect(arm).toMatch(/-machine virt.* -accel kvm -cpu host/);
    expect(arm).toMatch(/console=ttyAMA0 .*COWLAB_PORT=ttyS0 /);
    expect(arm).not.toMatch(/COWLAB_CGROUP|maxcpus/);
    expect(qemuArguments({ ...options, cpusAtBoot: 1 }, 'tcg', 'x64').join(' ')).toMatch(/-smp 3 .* maxcpus=1 /);
  });

  test('KVM opens if its device does', () => {
    expect(kvmOpens('/dev/null')).toBe(true);
    expect(kvmOpens('/no/such')).toBe(false);
  });
});
