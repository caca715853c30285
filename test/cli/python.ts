/** Pythons that tests start, and what they lack. */
import { spawnSync } from 'node:child_process';

/** Programs of others are there in CI; elsewhere a test without them is skipped, and says why. */
const MUST_BE_THERE = process.env['CI'] === 'true';

/**
 * A python3 that has a module, or why there is none. The first in PATH may not be the system's.
 * @param uid Who is to run it; default ourselves.
 */
export function pythonWith(module: string, uid?: number): { python: string } | { lacking: string } {
  const identity = uid === undefined ? {} : { uid, gid: uid };
  const has = (path: string): boolean => spawnSync(path, ['-c', `import ${module}`], identity).status === 0;
  const python = ['python3', '/usr/bin/python3'].find(has);
  return python === undefined ? lack(`no python3 has ${module}`) : { python };
}

/** Why a program cannot be asked; undefined if it can. */
export function whyNoProgram(name: string): string | undefined {
  return spawnSync(name, ['--help']).error ? lack(`there is no ${name}`).lacking : undefined;
}

function lack(lacking: string): { lacking: string } {
  if (MUST_BE_THERE) throw new Error(`${lacking}, and CI must have it`);
  return { lacking };
}
