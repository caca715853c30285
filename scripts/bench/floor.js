/** Builds and drives floor.c, and what else runs as it does: once for each line that it is given. */
import { execFileSync, spawn } from 'node:child_process';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import os from 'node:os';
import path from 'node:path';
import readline from 'node:readline';

/** Compiles floor.c and returns the program, and what removes it. */
export function compileFloor() {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'cowlab-bench-'));
  const program = path.join(directory, 'floor');
  const remove = () => {
    fs.rmSync(directory, { recursive: true, force: true });
  };
  try {
    const sources = ['floor.c', 'floor-reading.c', 'floor-sharing.c', 'floor-written.c'].map((name) =>
      path.join(import.meta.dirname, name),
    );
    execFileSync('gcc', ['-O2', '-Wall', '-pthread', '-o', program, ...sources]);
  } catch (error) {
    remove();
    throw error;
  }
  return { program, remove };
}

/**
 * Compiles floor-node.c, and loads it into this Node.
 * @returns {(() => number) | string} A fork() from C, in nanoseconds; or what is not there.
 */
export function loadForkInNode() {
  const headers = path.resolve(process.execPath, '../../include/node');
  if (!fs.existsSync(path.join(headers, 'node_api.h'))) return "Node's headers beside it";
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'cowlab-bench-'));
  try {
    const file = path.join(directory, 'floor.node');
    const source = path.join(import.meta.dirname, 'floor-node.c');
    execFileSync('gcc', ['-O2', '-Wall', '-shared', '-fPIC', `-I${headers}`, '-o', file, source]);
    const loaded = /** @type {{ forkCall: () => number }} */ (createRequire(import.meta.url)(file));
    return loaded.forkCall;
  } finally {
    fs.rmSync(directory, { recursive: true, force: true });
  }
}

export const PEERS = path.join(import.meta.dirname, 'peers.py');
export const PEERS_MEMORY = path.join(import.meta.dirname, 'peers-memory.py');
export const REGEX_SMAPS = path.join(import.meta.dirname, 'regex-smaps.js');
export const NODE_SPAWN = path.join(import.meta.dirname, 'node-spawn.js');

/** A running floor or peer, which makes one run each time it is asked. */
export class Floor {
  #child;
  #lines;

  /**
   * @param {string} program
   * @param {(string | number)[]} args
   */
  constructor(program, args) {
    this.#child = spawn(program, args.map(String), { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#lines = readline.createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]();
  }

  /** The numbers of the next line that it says by itself. */
  async read() {
    const { value, done } = await this.#lines.next();
    if (done) throw new Error(`${this.#child.spawnargs.join(' ')} ended early`);
    return value.split(' ').map(Number);
  }

  async run() {
    this.#child.stdin.write('\n');
    return await this.read();
  }

  close() {
    this.#child.stdin.end();
    return Promise.resolve();
  }
}
