/** How qemu is called, and where it and KVM are found. */
import { accessSync, closeSync, constants, openSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { FeatureUnavailableError } from '../errors.js';

export type Accelerator = 'kvm' | 'tcg';

export const ACCELERATORS: readonly Accelerator[] = ['kvm', 'tcg'];

/** The descriptors that qemu inherits. */
export const QEMU_FD = { image: 3, console: 4, port: 5 } as const;

/** The guest's processor is the host's. */
interface Platform {
  program: string;
  machine: string[];
  /** What TCG emulates. */
  cpu: string;
  console: string;
  /** The serial port of the results, and how the guest names it. */
  port: string[];
  portName: string;
  packages: string;
}

const PLATFORMS: Record<string, Platform> = {
  x64: {
    program: 'qemu-system-x86_64',
    machine: ['-machine', 'pc'],
    // With `rep stosb` for what is fast (erms), each byte of a page that the kernel clears is emulated by itself: touching
    // memory takes four times as long. Page tables have four levels, as on most machines: to walk a fifth takes time.
    cpu: 'max,la57=off,erms=off',
    console: 'ttyS0',
    port: ['-serial', 'chardev:port'],
    portName: 'ttyS1',
    packages:
      '`apt-get install qemu-system-x86` (Debian, Ubuntu), `dnf install qemu-system-x86-core` (Fedora) or ' +
      '`pacman -S qemu-system-x86` (Arch)',
  },
  arm64: {
    program: 'qemu-system-aarch64',
    machine: ['-machine', 'virt,gic-version=max'],
    cpu: 'max',
    console: 'ttyAMA0',
    // The board has one serial port; the driver of the second is built into kernels as that of the PC's is.
    port: ['-device', 'pci-serial,chardev=port'],
    portName: 'ttyS0',
    packages:
      '`apt-get install qemu-system-arm` (Debian, Ubuntu), `dnf install qemu-system-aarch64-core` (Fedora) or ' +
      '`pacman -S qemu-system-aarch64` (Arch)',
  },
};

function platform(arch: string): Platform {
  const found = PLATFORMS[arch];
  if (found) return found;
  const known = Object.keys(PLATFORMS).join(' and ');
  throw new FeatureUnavailableError(
    'cowlab vm',
    `it knows the machines of ${known}, and this is ${arch}`,
    'Run there.',
  );
}

/** @throws FeatureUnavailableError that says how to install it. */
export function findQemu(path = process.env['PATH'] ?? '', arch: string = process.arch): string {
  const { program, packages } = platform(arch);
  const found = path
    .split(delimiter)
    .filter((folder) => folder !== '')
    .map((folder) => join(folder, program))
    .find((file) => {
      try {
        accessSync(file, constants.X_OK);
        return true;
      } catch {
        return false;
      }
    });
  if (found !== undefined) return found;
  throw new FeatureUnavailableError(program, 'it is not in PATH', `Install qemu: ${packages}.`);
}

/** Whether /dev/kvm can be opened; KVM may fail all the same, where a virtual machine has none to give on. */
export function kvmOpens(path = '/dev/kvm'): boolean {
  try {
    closeSync(openSync(path, 'r+'));
    return true;
  } catch {
    return false;
  }
}

export interface QemuOptions {
  /** The path of a kernel image that can be booted: bzImage, or Image on arm64. */
  kernel: string;
  /** A multiple of 1 MiB. */
  memoryBytes: number;
  cpus: number;
  /** How many of `cpus` run; the guest may switch on the others. Default: all. */
  cpusAtBoot?: number;
  /** Which hierarchies of cgroups the guest mounts. Default 'v2'. */
  cgroup?: 'v1' | 'v2';
}

/** The arguments of qemu. The image, the console and the port are descriptors that it inherits. */
export function qemuArguments(options: QemuOptions, accelerator: Accelerator, arch: string = process.arch): string[] {
  const { machine, cpu, console, port, portName } = platform(arch);
  const words = [
    `console=${console}`,
    'quiet',
    // With -no-reboot a panic ends qemu at once.
    'panic=-1',
    // Not tmpfs, which holds half of the memory at most.
    'rootfstype=ramfs',
    // Under emulation they cost a seventh of the time; which pages are copied does not depend on them.
    'mitigations=off',
    // A host that is short of time may give the timer no chance, and the kernel then panics at boot (IO-APIC + timer).
    ...(accelerator === 'tcg' ? ['no_timer_check'] : []),
    `COWLAB_PORT=${portName}`,
    ...(options.cpusAtBoot === undefined ? [] : [`maxcpus=${String(options.cpusAtBoot)}`]),
    ...(options.cgroup === 'v1' ? ['COWLAB_CGROUP=v1'] : []),
  ];
  return [
    ...machine,
    ...(accelerator === 'kvm' ? ['-accel', 'kvm', '-cpu', 'host'] : ['-accel', 'tcg,thread=multi', '-cpu', cpu]),
    ...['-m', `${String(options.memoryBytes / 2 ** 20)}M`, '-smp', String(options.cpus)],
    ...['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot'],
    ...['-kernel', options.kernel, '-initrd', `/dev/fd/${String(QEMU_FD.image)}`, '-append', words.join(' ')],
    ...['-chardev', `socket,id=console,fd=${String(QEMU_FD.console)}`, '-serial', 'chardev:console'],
    ...['-chardev', `socket,id=port,fd=${String(QEMU_FD.port)}`, ...port],
  ];
}
