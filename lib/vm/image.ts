/** An initramfs, put together from files of the host. */
import { execFile } from 'node:child_process';
import { lstatSync, readFileSync, readdirSync, readlinkSync, realpathSync, writevSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { FeatureUnavailableError } from '../errors.js';
import { encodeEntry, encodeTrailer } from './newc.js';
import type { CpioEntry } from './newc.js';

const execute = promisify(execFile);

/** An entry whose file, if it is one, is read when the image is written. */
type Planned =
  Exclude<CpioEntry, { kind: 'file' }> | { path: string; mode: number; kind: 'file'; from: string | Buffer };

/**
 * The shared libraries in the output of ldd(1), the dynamic loader among them.
 * @throws FeatureUnavailableError when one was not found.
 */
export function parseLdd(program: string, output: string): string[] {
  const paths: string[] = [];
  for (const line of output.split('\n')) {
    const missing = /^\s*(\S+) => not found/.exec(line);
    if (missing) {
      const remedy = 'Install the package that has it.';
      throw new FeatureUnavailableError(
        `The library ${missing[1] ?? ''} of ${program}`,
        'ldd does not find it',
        remedy,
      );
    }
    const found = /^\s*(?:\S+ => )?(\/.+) \(0x[0-9a-f]+\)$/.exec(line);
    if (found?.[1] !== undefined) paths.push(found[1]);
  }
  return paths;
}

async function librariesOf(program: string): Promise<string[]> {
  try {
    const { stdout } = await execute('ldd', [program], { env: { ...process.env, LC_ALL: 'C' } });
    return parseLdd(program, stdout);
  } catch (error) {
    // What is linked statically has no libraries, which ldd calls a failure.
    const said = error as { code?: unknown; stderr?: string; stdout?: string };
    if (/not a dynamic executable|Not a valid dynamic program/.test(`${said.stdout ?? ''}${said.stderr ?? ''}`))
      return [];
    throw error;
  }
}

export class Image {
  readonly #entries = new Map<string, Planned>();

  /** Makes a directory, and those above it. @param mode Of itself; those above get 0755. */
  directory(path: string, mode = 0o755): void {
    const relative = path.replace(/^\/+/, '');
    if (relative === '' || relative === '.' || (this.#entries.has(relative) && mode === 0o755)) return;
    this.directory(dirname(relative));
    this.#entries.set(relative, { path: relative, kind: 'directory', mode });
  }

  #add(path: string, entry: Planned): void {
    this.directory(dirname(path));
    this.#entries.set(entry.path, entry);
  }

  /** @param from A file of the host, or the content itself. Everybody in the guest may read it. */
  file(path: string, from: string | Buffer, executable = false): void {
    const relative = path.replace(/^\/+/, '');
    this.#add(relative, { path: relative, kind: 'file', mode: executable ? 0o755 : 0o644, from });
  }

  symlink(path: string, target: string): void {
    const relative = path.replace(/^\/+/, '');
    this.#add(relative, { path: relative, kind: 'symlink', mode: 0o777, target });
  }

  characterDevice(path: string, major: number, minor: number): void {
    const relative = path.replace(/^\/+/, '');
    this.#add(relative, { path: relative, kind: 'character device', mode: 0o600, major, minor });
  }

  /**
   * A file of the host or a directory with all that is in it; symbolic links stay links.
   * @param keep Told the host's path of each; what it refuses is left out.
   */
  tree(path: string, from: string, keep: (hostPath: string) => boolean = () => true): void {
    const status = lstatSync(from);
    if (status.isSymbolicLink()) this.symlink(path, readlinkSync(from));
    if (status.isFile()) this.file(path, from, (status.mode & 0o111) !== 0);
    if (!status.isDirectory()) return;
    this.directory(path);
    for (const name of readdirSync(from)) {
      const child = join(from, name);
      if (keep(child)) this.tree(join(path, name), child, keep);
    }
  }

  /**
   * The shared libraries of a program or an addon, where the host has them.
   * @throws FeatureUnavailableError when one is missing.
   */
  async libraries(program: string): Promise<void> {
    for (const library of await librariesOf(program)) this.file(library, realpathSync(library), true);
  }

  /** A program of the host with its libraries. @param path Where the guest has it: by default where the host has. */
  async program(from: string, path = from): Promise<void> {
    const real = realpathSync(from);
    this.file(path, real, true);
    await this.libraries(real);
  }

  /** Writes the archive. @returns Its length in bytes. */
  write(fd: number): number {
    let [inode, length] = [0, 0];
    for (const planned of this.#entries.values()) {
      inode++;
      const entry = planned.kind === 'file' ? { ...planned, content: contentOf(planned.from) } : planned;
      length += writeAll(fd, encodeEntry(inode, entry));
    }
    return length + writeAll(fd, [encodeTrailer()]);
  }
}

function contentOf(from: string | Buffer): Buffer {
  return typeof from === 'string' ? readFileSync(from) : from;
}

function writeAll(fd: number, pieces: readonly Uint8Array[]): number {
  const whole = pieces.reduce((sum, { length }) => sum + length, 0);
  let written = writevSync(fd, pieces);
  // A disk that is full gives a short write first, and the error with the next.
  while (written < whole) written += writevSync(fd, [Buffer.concat(pieces).subarray(written)]);
  return whole;
}
