/** Which kernels there are to boot, and how to get one. */
import { execFile } from 'node:child_process';
import { accessSync, constants, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, statSync } from 'node:fs';
import { homedir } from 'node:os';
import { basename, join } from 'node:path';
import { promisify } from 'node:util';
import { FeatureUnavailableError } from '../errors.js';

const execute = promisify(execFile);

export interface Kernel {
  /** As uname -r: what follows vmlinuz- in the name of the file. */
  release: string;
  path: string;
}

/** Where `cowlab vm fetch` puts kernels. */
export function kernelCache(environment: NodeJS.ProcessEnv = process.env): string {
  const cache = environment['XDG_CACHE_HOME'];
  // A path that is not absolute is to be ignored [XDG Base Directory Specification].
  return join(cache?.startsWith('/') ? cache : join(homedir(), '.cache'), 'cowlab/kernels');
}

/** The cache before the host's own: of one release, the first is taken. */
export function kernelFolders(): string[] {
  return [kernelCache(), '/boot'];
}

function compareReleases(a: string, b: string): number {
  const [left, right] = [a, b].map((release) => release.match(/\d+/g)?.map(Number) ?? []);
  const length = Math.max(left?.length ?? 0, right?.length ?? 0);
  for (let i = 0; i < length; i++) {
    const difference = (left?.[i] ?? -1) - (right?.[i] ?? -1);
    if (difference !== 0) return difference;
  }
  return 0;
}

function isReadable(path: string): boolean {
  try {
    accessSync(path, constants.R_OK);
    return true;
  } catch {
    return false;
  }
}

function isReadableFile(path: string): boolean {
  return isReadable(path) && statSync(path).isFile();
}

/** The kernels in these folders that this user may read, the newest first. */
export function findKernels(folders: readonly string[] = kernelFolders()): Kernel[] {
  return folders
    .flatMap((folder) => (isReadable(folder) ? readdirSync(folder).map((name) => join(folder, name)) : []))
    .filter((path) => /^vmlinuz-\d/.test(basename(path)) && isReadableFile(path))
    .map((path) => ({ release: basename(path).slice('vmlinuz-'.length), path }))
    .sort((a, b) => compareReleases(b.release, a.release));
}

/** Whether a release is of a version: '6.1.0-56-cloud-amd64' is of 6.1 and of 6, and not of 6.10. */
function isOf(release: string, version: string): boolean {
  return release === version || (release.startsWith(version) && !/^\d/.test(release.slice(version.length)));
}

const GET_ONE =
  '`cowlab vm fetch 6.12` gets one on Debian, without root. Elsewhere name any kernel by its path: --kernel PATH ' +
  '(a bzImage; `apt-get download` and `dpkg-deb -x`, or `rpm2cpio` and `cpio -i`, take one out of a package).';

/**
 * The kernel that was asked for: a path (it has a slash, or names a file here), a version, or undefined for the newest.
 * @throws FeatureUnavailableError that says how to get one.
 */
export function chooseKernel(wanted: string | undefined, folders: readonly string[] = kernelFolders()): Kernel {
  if (wanted?.includes('/') || (wanted !== undefined && isReadableFile(wanted))) {
    if (isReadableFile(wanted)) return { release: basename(wanted).replace(/^vmlinuz-/, ''), path: wanted };
    throw new FeatureUnavailableError(`The kernel ${wanted}`, 'there is no such file that you may read', GET_ONE);
  }
  const found = findKernels(folders).find(({ release }) => wanted === undefined || isOf(release, wanted));
  if (found) return found;
  const what = wanted === undefined ? 'A kernel to boot' : `A kernel ${wanted}`;
  const remedy = wanted === undefined ? GET_ONE : GET_ONE.replace('6.12', wanted);
  throw new FeatureUnavailableError(what, `there is none in ${folders.join(' or ')} that you may read`, remedy);
}

const DEBIAN_ARCHITECTURE: Record<string, string> = { x64: 'amd64', arm64: 'arm64' };

/** The newest of Debian's kernels for virtual machines of a version, among names of packages. */
export function newestPackage(version: string, names: readonly string[], arch: string): string | undefined {
  const suffix = `-cloud-${DEBIAN_ARCHITECTURE[arch] ?? arch}`;
  const prefix = 'linux-image-';
  // What has no third number is a package without a kernel, which only depends on the newest.
  const releases = names
    .filter((name) => name.startsWith(prefix) && name.endsWith(suffix))
    .map((name) => name.slice(prefix.length))
    .filter((release) => isOf(release, version) && /^\d+\.\d+\.\d/.test(release))
    .sort(compareReleases);
  const newest = releases.at(-1);
  return newest === undefined ? undefined : prefix + newest;
}

async function tool(file: string, args: string[], cwd: string): Promise<string> {
  try {
    const { stdout } = await execute(file, args, { cwd, maxBuffer: 2 ** 26 });
    return stdout;
  } catch (error) {
    const { code, stderr } = error as { code?: unknown; stderr?: string };
    const said = code === 'ENOENT' ? 'there is no such program' : (stderr?.trim().split('\n').at(-1) ?? String(error));
    const remedy = 'Where there is no apt, get a kernel in another way and name it by its path: --kernel PATH.';
    throw new FeatureUnavailableError(`${file} ${args[0] ?? ''}`, said, remedy);
  }
}

/**
 * Gets Debian's newest kernel of a version into the cache. It needs apt and no root.
 * @param version Such as '6.1'.
 * @throws FeatureUnavailableError when apt does not know one, or cannot get it.
 */
export async function fetchKernel(
  version: string,
  cache = kernelCache(),
  arch: string = process.arch,
): Promise<Kernel> {
  mkdirSync(cache, { recursive: true });
  const names = (await tool('apt-cache', ['pkgnames', `linux-image-${version}`], cache)).split('\n');
  const wanted = newestPackage(version, names, arch);
  if (wanted === undefined) {
    const remedy = 'Run `apt-get update`, or name another kernel by its path: --kernel PATH.';
    throw new FeatureUnavailableError(`Debian's kernel ${version}`, 'apt knows no package of it', remedy);
  }
  const folder = mkdtempSync(join(cache, 'fetch-'));
  try {
    await tool('apt-get', ['download', wanted], folder);
    const [archive = ''] = readdirSync(folder);
    await tool('dpkg-deb', ['--extract', archive, '.'], folder);
    const release = wanted.slice('linux-image-'.length);
    const path = join(cache, `vmlinuz-${release}`);
    renameSync(join(folder, 'boot', `vmlinuz-${release}`), path);
    return { release, path };
  } finally {
    rmSync(folder, { recursive: true });
  }
}
