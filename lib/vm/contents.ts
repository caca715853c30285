/**
 * What the guest of `cowlab vm` has of this host: Node, the package with what it depends on, and PID 1. Programs and
 * libraries lie where they lie here; packages and users' files lie below /host, at their paths of here, so that every
 * import finds there what it finds here.
 */
import { existsSync, readFileSync, realpathSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { FeatureUnavailableError } from '../errors.js';
import { PACKAGE_ROOT, ownProgram } from '../own-program.js';
import { Image } from './image.js';

/** Where the guest has a file of the host that is no program and no library. @param hostPath A real path. */
export function guestPath(hostPath: string): string {
  return join('/host', hostPath);
}

/** The folder of a package as Node finds it for a file of `folder`, which must be a real path. */
function findPackage(name: string, folder: string): string | undefined {
  const candidate = join(folder, 'node_modules', name);
  if (existsSync(candidate)) return candidate;
  const parent = dirname(folder);
  return parent === folder ? undefined : findPackage(name, parent);
}

/** A package that files of `folder` import, if they find it. @param seen The packages that the image has already. */
function addImported(image: Image, name: string, folder: string, seen: Set<string>): boolean {
  const found = findPackage(name, folder);
  if (found === undefined) return false;
  const real = realpathSync(found);
  if (real !== found) image.symlink(guestPath(found), guestPath(real));
  if (seen.has(real)) return true;
  image.tree(guestPath(real), real, (path) => basename(path) !== 'node_modules');
  addDependencies(image, real, seen);
  return true;
}

function addDependencies(image: Image, packageFolder: string, seen: Set<string>): void {
  seen.add(packageFolder);
  const manifest: unknown = JSON.parse(readFileSync(join(packageFolder, 'package.json'), 'utf8'));
  const { dependencies = {} } = manifest as { dependencies?: Record<string, string> };
  for (const name of Object.keys(dependencies)) {
    if (addImported(image, name, packageFolder, seen)) continue;
    throw new FeatureUnavailableError(`The package ${name}`, `${packageFolder} needs it`, 'Install it: npm install.');
  }
}

/** This package, built, with all that it needs at run time, and the files of users that import it. */
export async function addOwnPackage(image: Image, usersFiles: readonly string[] = []): Promise<void> {
  for (const part of ['package.json', 'dist', 'prebuilds']) {
    const path = join(PACKAGE_ROOT, part);
    if (existsSync(path)) image.tree(guestPath(path), path);
  }
  const addon = join(PACKAGE_ROOT, 'build/Release/cowlab.node');
  if (existsSync(addon)) {
    image.file(guestPath(addon), addon, true);
    await image.libraries(addon);
  }
  const keeper = ownProgram('cowlab-keeper');
  await image.program(keeper, guestPath(keeper));
  const seen = new Set<string>();
  addDependencies(image, PACKAGE_ROOT, seen);
  for (const file of usersFiles) {
    const real = realpathSync(file);
    image.file(guestPath(real), real);
    // Where it is not found, the file is of the package itself, which may import itself by name.
    addImported(image, 'cowlab', dirname(real), seen);
  }
}

/** Parts of Python's standard library that no program of ours runs, and that are most of it. */
const UNUSED_PYTHON =
  /^(__pycache__|test|tests|site-packages|dist-packages|idlelib|tkinter|turtledemo|ensurepip|lib2to3|config-.*)$/;

/** The host's Python with its standard library, where the host has it. */
export async function addPython(
  image: Image,
  { executable, standardLibrary }: { executable: string; standardLibrary: string },
): Promise<void> {
  await image.program(executable);
  if (executable !== '/usr/bin/python3') image.symlink('/usr/bin/python3', executable);
  const modules: string[] = [];
  image.tree(standardLibrary, standardLibrary, (path) => {
    if (UNUSED_PYTHON.test(basename(path))) return false;
    if (path.endsWith('.so')) modules.push(path);
    return true;
  });
  for (const module of modules) {
    try {
      await image.libraries(module);
    } catch (error) {
      // A module for a library that this host has not got cannot be used here either.
      if (!(error instanceof FeatureUnavailableError)) throw error;
    }
  }
}

export interface GuestCommand {
  /** The program first, by its path in the guest. */
  argv: readonly string[];
  /** Where it runs: a path of the guest. */
  folder: string;
  /** Beside PATH, HOME and the like. */
  environment?: Record<string, string>;
}

const ENVIRONMENT = {
  PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
  HOME: '/root',
  TMPDIR: '/tmp',
  LANG: 'C.UTF-8',
  NO_COLOR: '1',
};

/** As in /proc/PID/cmdline: every string ends with a NUL. */
function nulTerminated(strings: readonly string[]): Buffer {
  return Buffer.from(strings.map((text) => `${text}\0`).join(''));
}

/** Says what PID 1 shall run. */
export function setCommand(image: Image, { argv, folder, environment = {} }: GuestCommand): void {
  const variables = Object.entries({ ...ENVIRONMENT, ...environment, PWD: folder });
  image.file('/cowlab/argv', nulTerminated(argv));
  image.file('/cowlab/environ', nulTerminated(variables.map(([name, value]) => `${name}=${value}`)));
}

/** A system without anything to run: PID 1, Node, and the directories that a system has. */
export async function bareSystem(): Promise<Image> {
  const image = new Image();
  for (const path of ['/dev', '/etc', '/proc', '/run', '/sys']) image.directory(path);
  image.directory('/root', 0o700);
  for (const path of ['/tmp', '/var/tmp']) image.directory(path, 0o1777);
  image.characterDevice('/dev/console', 5, 1);
  const users = 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n';
  image.file('/etc/passwd', Buffer.from(users));
  await image.program(ownProgram('cowlab-init'), '/init');
  await image.program(process.execPath);
  return image;
}
