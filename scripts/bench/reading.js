/** Reading the memory of other processes: what is compared, and with whom. */
import { execFile, execFileSync } from 'node:child_process';
import { promisify } from 'node:util';
import { Floor, PEERS_MEMORY, REGEX_SMAPS } from './floor.js';
import { countExclusiveShared, lookAtTree, readTable, sampleTree } from './ours.js';

const PAGES_PER_MIB = 256;

/** @typedef {import('./comparisons.js').Comparison} Comparison */
/** @typedef {import('./comparisons.js').Peer} Peer */
/** @typedef {import('./ours.js').Runner} Runner */

/** @param {string} program @param {string[]} args */
function works(program, args) {
  try {
    execFileSync(program, args, { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

/** Debian's packages are for Debian's Python, which need not be the first in the PATH. */
const PYTHON = ['python3', '/usr/bin/python3'].find((python) => works(python, ['-c', 'import psutil']));

/**
 * @param {'full-info' | 'maps'} kind
 * @param {number} pid
 * @param {number} [bar]
 * @returns {Peer}
 */
function psutil(kind, pid, bar) {
  const name = kind === 'maps' ? "psutil's memory_maps" : "psutil's memory_full_info";
  const runner = PYTHON ? new Floor(PYTHON, [PEERS_MEMORY, kind, pid]) : 'python3-psutil';
  return { name, per: 1, bar, runner, every: kind === 'maps' ? 4 : 1 };
}

/**
 * A program that is started anew for each run, and ends.
 * @param {string} program Also the name of its package, but for pmap.
 * @param {string[]} args
 * @returns {Peer}
 */
function command(program, args) {
  const run = promisify(execFile);
  /** @type {Runner} */
  const runner = {
    async run() {
      const start = process.hrtime.bigint();
      await run(program, args, { maxBuffer: 2 ** 26 });
      return [Number(process.hrtime.bigint() - start)];
    },
    close: () => Promise.resolve(),
  };
  const missing = program === 'pmap' ? 'procps' : program;
  return { name: program, per: 1, runner: works(program, ['--help']) ? runner : missing, every: 20 };
}

/**
 * @param {number} pages
 * @param {number} vmas
 * @param {{ exact?: boolean, fullInfo?: number, maps?: number, commands?: boolean }} options
 * @returns {Comparison['start']}
 */
function startCount(pages, vmas, { exact = false, fullInfo, maps, commands = false }) {
  return async (program) => {
    const target = new Floor(program, ['target', pages, vmas]);
    const [pid = 0, address = 0] = await target.read();
    const peers = [
      ...(fullInfo === undefined ? [] : [psutil('full-info', pid, fullInfo)]),
      ...(maps === undefined ? [] : [psutil('maps', pid, maps)]),
      // smem takes no pid: it looks for the name, which the parent of the one that is counted has as well.
      ...(commands ? [command('pmap', ['-x', String(pid)]), command('smem', ['-P', `^${program} target`])] : []),
    ];
    return {
      ours: countExclusiveShared(pid, BigInt(address), pages, exact),
      floor: new Floor(program, ['count', pid, address, pages]),
      others: [target],
      peers,
    };
  };
}

/** @type {Comparison[]} */
export const READING = [
  {
    name: 'exclusive and shared pages of 256 MiB',
    runs: 240,
    rounds: 6,
    per: 1,
    bar: { ratio: 1.05 },
    start: startCount(256 * PAGES_PER_MIB, 0, { fullInfo: 0.9, maps: Infinity, commands: true }),
  },
  {
    name: 'the same, beside 5,000 other VMAs',
    runs: 240,
    rounds: 6,
    per: 1,
    bar: { ratio: 1.05 },
    start: startCount(256 * PAGES_PER_MIB, 5000, { fullInfo: 0.9, maps: 0.12, commands: true }),
  },
  {
    name: 'the same, zero and huge pages told apart',
    runs: 240,
    rounds: 6,
    per: 1,
    bar: { ratio: Infinity },
    start: startCount(256 * PAGES_PER_MIB, 0, { exact: true }),
  },
  {
    name: 'exclusive and shared pages of 2 GiB',
    runs: 60,
    rounds: 3,
    per: 1,
    needsMib: 3 * 1024,
    bar: { ratio: 1.05 },
    start: startCount(2048 * PAGES_PER_MIB, 0, { fullInfo: 0.9, maps: Infinity, commands: true }),
  },
  {
    name: 'smaps, one VMA of 1 GiB, across two buffers',
    runs: 60,
    rounds: 3,
    per: 1,
    needsMib: 1536,
    bar: { ratio: 0.55 },
    start: async (program) => {
      const target = new Floor(program, ['across', 1024 * PAGES_PER_MIB]);
      const [pid = 0] = await target.read();
      return { ours: readTable(pid), floor: new Floor(program, ['smaps', pid]), others: [target] };
    },
  },
  {
    name: 'smaps, 5,000 VMAs, in columns, and the sum of one',
    runs: 60,
    rounds: 3,
    warm: true,
    per: 1,
    bar: { ratio: Infinity },
    start: async (program) => {
      const target = new Floor(program, ['target', 1, 5000]);
      const [pid = 0] = await target.read();
      const regex = new Floor(process.execPath, [REGEX_SMAPS, pid]);
      const peers = [
        { ...psutil('maps', pid, 0.15), every: 1 },
        { name: 'regular expressions, in Node', per: 1, bar: 0.15, runner: regex },
      ];
      return { ours: readTable(pid), floor: new Floor(program, ['smaps', pid]), others: [target], peers };
    },
  },
  ...[
    { name: 'sample of a tree with faults, 50 processes of 64 MiB, CPU', faultsASecond: 20 },
    { name: 'the same while it rests', faultsASecond: 0 },
  ].map((kind) => ({
    name: kind.name,
    runs: 3,
    per: 1,
    needsMib: 50 * 64,
    // 5% of a core, ten times a second.
    bar: { mostNs: 5_000_000 },
    /** @param {string} program */
    start: async (program) => {
      const target = new Floor(program, ['tree', 50, 64 * PAGES_PER_MIB, kind.faultsASecond]);
      const pids = await target.read();
      const [root = 0] = pids;
      return { ours: sampleTree(root), floor: new Floor(program, ['rollups', ...pids]), others: [target] };
    },
  })),
  {
    name: 'a look between two readings of it',
    runs: 101,
    per: 1,
    needsMib: 64,
    bar: { ratio: Infinity },
    start: async (program) => {
      const target = new Floor(program, ['tree', 50, PAGES_PER_MIB, 0]);
      const [root = 0] = await target.read();
      return { ours: lookAtTree(root), floor: new Floor(program, ['stats']), others: [target] };
    },
  },
];
