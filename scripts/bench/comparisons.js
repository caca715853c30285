/** What is compared: ours, the floor in C, and what others take for the same. */
import { Floor, NODE_SPAWN, PEERS, loadForkInNode } from './floor.js';
import {
  addToNumber,
  copyOnWrite,
  forkCall,
  forkCallsOfHugePages,
  forkExitWait,
  forkOfSmallRoot,
  readMark,
  sendMessages,
  spawnCall,
} from './ours.js';
import { READING } from './reading.js';

const PAGES_PER_MIB = 256;

/** @typedef {import('./ours.js').Runner} Runner */

/**
 * @typedef {object} Peer
 * @property {string} name
 * @property {number} per
 * @property {number | undefined} [bar] The most that ours may be of it.
 * @property {Runner | string} runner The package that would have to be there, if it is not.
 * @property {number} [every] Of so many runs it makes one, as it takes long. Default 1.
 */

/**
 * @typedef {object} Comparison
 * @property {string} name
 * @property {number} runs
 * @property {number} per What one run is divided by: its pages, or 1.
 * @property {number} [rounds] How often both sides get new memory, each side first in turn: whether its pages lie
 *   together makes a fork up to twice as fast, and that is luck.
 * @property {boolean} [warm] Each run comes after one that is not counted: what waited for the others finds caches and the
 *   clock of its processor cold, which counts for more where a run of one side takes ten times as long as that of another.
 * @property {number} [needsMib] Memory that must be available.
 * @property {{ ratio: number } | { addedNs: number } | { mostNs: number }} bar
 * @property {(program: string) => Promise<{ ours: Runner, floor: Floor, others: Floor[], peers?: Peer[] }>} start
 */

/**
 * @param {string} kind
 * @param {number} times Few enough that a run takes as long as one of ours.
 * @param {number} [workers]
 * @returns {Peer}
 */
function python(kind, times, workers) {
  const args = workers === undefined ? [kind, times] : [kind, times, workers];
  return { name: PYTHON[kind] ?? kind, per: times, runner: new Floor('python3', [PEERS, ...args]) };
}

/** @type {Record<string, string>} */
const PYTHON = {
  value: "Python's Value, under its lock",
  unlocked: "Python's Value, lock=False, which loses some",
  array: "Python's Array, under its lock",
  queue: "Python's Queue",
};

const ADDITIONS = 1_000_000;
const MESSAGES = 1_000_000;
const RING_CAPACITY = 1024;

/**
 * @param {'atomic' | 'lock'} guard
 * @param {number} workers
 * @param {number} most Of C's, which is a pthread_mutex_t for a lock.
 * @returns {Comparison}
 */
function adding(guard, workers, most) {
  const how = guard === 'atomic' ? 'atomic add' : 'add under a lock';
  return {
    name: `${how}, ${workers === 1 ? 'alone' : `${workers} processes`}`,
    runs: 40,
    rounds: 4,
    per: ADDITIONS,
    bar: { ratio: most },
    start: (program) => {
      const mode = guard === 'atomic' ? 'atomic' : 'mutex';
      const kinds = guard === 'atomic' ? ['unlocked'] : ['value', 'array'];
      return Promise.resolve({
        ours: addToNumber(guard, ADDITIONS, workers),
        floor: new Floor(program, [mode, ADDITIONS, workers]),
        others: [],
        peers: kinds.map((kind) => python(kind, 20_000, workers)),
      });
    },
  };
}

/** @type {Comparison[]} */
export const COMPARISONS = [
  {
    name: 'fork, exit and wait, nothing mapped',
    runs: 200,
    rounds: 4,
    per: 1,
    bar: { addedNs: 400_000 },
    start: (program) => Promise.resolve({ ours: forkExitWait(), floor: new Floor(program, ['fork-wait']), others: [] }),
  },
  {
    name: 'fork() call, 1 GiB of dirty 4K pages',
    runs: 40,
    rounds: 10,
    per: 1,
    bar: { ratio: 1.1 },
    start: (program) => {
      const pages = 1024 * PAGES_PER_MIB;
      return Promise.resolve({ ours: forkCall(pages), floor: new Floor(program, ['fork', pages]), others: [] });
    },
  },
  {
    name: 'fork() call, 1 GiB of huge pages',
    runs: 60,
    rounds: 6,
    per: 1,
    bar: { ratio: 1.25 },
    start: (program) => {
      const pages = 1024 * PAGES_PER_MIB;
      const floor = new Floor(program, ['fork-huge', pages]);
      const { ours, inC } = forkCallsOfHugePages(pages, loadForkInNode());
      const peer = { name: 'C, in the same Node', per: 1, runner: inC };
      return Promise.resolve({ ours, floor, others: [], peers: [peer] });
    },
  },
  {
    name: 'fork() call, 1 GiB of huge pages, from the small root',
    runs: 60,
    rounds: 6,
    per: 1,
    bar: { ratio: 1.25 },
    start: async (program) => {
      const pages = 1024 * PAGES_PER_MIB;
      return { ours: await forkOfSmallRoot(pages), floor: new Floor(program, ['fork-huge', pages]), others: [] };
    },
  },
  {
    name: 'spawn() call, 1 GiB of dirty 4K pages',
    runs: 30,
    rounds: 3,
    per: 1,
    bar: { ratio: Infinity },
    start: (program) => {
      const pages = 1024 * PAGES_PER_MIB;
      const floor = new Floor(program, ['spawn', pages]);
      const node = new Floor(process.execPath, [NODE_SPAWN, pages]);
      const peer = { name: 'child_process.spawn', per: 1, bar: 0.1, runner: node };
      return Promise.resolve({ ours: spawnCall(pages), floor, others: [], peers: [peer] });
    },
  },
  adding('atomic', 1, 2),
  adding('atomic', 2, 2),
  adding('lock', 1, 1.5),
  adding('lock', 2, 1.5),
  {
    name: 'message of 8 bytes through a ring',
    runs: 40,
    rounds: 4,
    per: MESSAGES,
    bar: { ratio: 5 },
    start: (program) =>
      Promise.resolve({
        ours: sendMessages(MESSAGES, RING_CAPACITY),
        floor: new Floor(program, ['ring', MESSAGES]),
        others: [],
        peers: [python('queue', 10_000)],
      }),
  },
  {
    name: 'write to shared pages in a child, 256 MiB, per page',
    runs: 30,
    rounds: 6,
    per: 256 * PAGES_PER_MIB,
    bar: { ratio: 1.05 },
    start: async (program) => {
      const pages = 256 * PAGES_PER_MIB;
      return { ours: await copyOnWrite(pages), floor: new Floor(program, ['cow', pages]), others: [] };
    },
  },
  ...READING,
  {
    name: 'pages written since a mark, 1% of 1 GiB',
    runs: 120,
    rounds: 4,
    per: 1,
    bar: { ratio: 2 },
    start: async (program) => {
      const pages = 1024 * PAGES_PER_MIB;
      const ours = await readMark(pages, Math.floor(pages / 100));
      const where = [ours.pid, Number(ours.address), pages];
      const bits = new Floor(program, ['count', ...where]);
      const peer = { name: 'reading bit 56 of each page, in C', per: 1, bar: 0.2, runner: bits };
      return { ours, floor: new Floor(program, ['written', ...where]), others: [], peers: [peer] };
    },
  },
];
