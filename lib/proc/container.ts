/** Which container, if any, this process runs in. There is no one place that tells, so each runtime's mark is tried. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { readIfThere } from './read.js';

export interface Container {
  /** 'docker', 'podman', 'lxc', 'systemd-nspawn', 'kubernetes', 'wsl' ...; 'none' when no mark was found. */
  runtime: string;
  /** The mark it was recognised by. */
  evidence: string;
  /** lxcfs is mounted over /proc/meminfo, which then shows the container's limits and not the kernel's figures. */
  meminfoFaked: boolean;
}

/**
 * Looks for the marks of container runtimes.
 * @param fsRoot Where /run, /.dockerenv and /proc are found; '/' but in tests.
 */
export function detectContainer(fsRoot = '/'): Container {
  const at = (path: string): string => join(fsRoot, path);
  const mounts = readIfThere(at('proc/self/mountinfo')) ?? '';
  const meminfoFaked = mounts.split('\n').some((line) => line.split(' ')[4] === '/proc/meminfo');
  const found = (runtime: string, evidence: string): Container => ({ runtime, evidence, meminfoFaked });

  // The container interface of systemd: the runtime puts its name there [systemd.io/CONTAINER_INTERFACE].
  const name = readIfThere(at('run/systemd/container'));
  if (name) return found(name, '/run/systemd/container');
  const environment = readIfThere(at('proc/1/environ'));
  const variable = environment?.split('\0').find((entry) => entry.startsWith('container='));
  if (variable) return found(variable.slice('container='.length), 'container= in the environment of process 1');
  if (existsSync(at('run/.containerenv'))) return found('podman', '/run/.containerenv');
  if (existsSync(at('var/run/secrets/kubernetes.io'))) return found('kubernetes', '/var/run/secrets/kubernetes.io');
  if (existsSync(at('.dockerenv'))) return found('docker', '/.dockerenv');

  const cgroup = readIfThere(at('proc/1/cgroup')) ?? '';
  for (const [mark, runtime] of [
    ['docker', 'docker'],
    ['libpod', 'podman'],
    ['kubepods', 'kubernetes'],
    ['lxc', 'lxc'],
    ['machine.slice', 'systemd-nspawn'],
  ] as const) {
    if (cgroup.includes(mark)) return found(runtime, `'${mark}' in /proc/1/cgroup`);
  }
  if (meminfoFaked) return found('lxc', 'lxcfs is mounted over /proc/meminfo');
  return found('none', 'no mark of a container');
}
