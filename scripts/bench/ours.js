/** The measured things, as a user of the library would write them. */
import { setTimeout as delay } from 'node:timers/promises';

/** @typedef {typeof import('../../lib/index.js')} Cowlab */

// The types are those of the sources, and what runs is what is shipped.
const { SharedArea, TreeWatch, countPages, fork, mmap, openMachine, readSmapsTable, spawn } = /** @type {Cowlab} */ (
  await import(new URL('../../dist/index.js', import.meta.url).href)
);

const PAGE_BYTES = 4096;
const LOOKS_A_SECOND = 10;
const LOOKS = 100;

/**
 * One run gives nanoseconds, and after them counts if there are any.
 * @typedef {object} Runner
 * @property {() => Promise<number[]>} run
 * @property {() => Promise<void>} close
 */

/** @param {bigint} startNs */
function sinceNs(startNs) {
  return Number(process.hrtime.bigint() - startNs);
}

/** @typedef {import('../../lib/index.js').Mapping} Mapping */

/** @param {number} pages @param {boolean} [hugePages] */
function mapDirty(pages, hugePages = false) {
  return mmap({ length: pages * PAGE_BYTES, sharing: 'private', hugePages });
}

/**
 * A call alone, from Node, whose pages are all dirty.
 * @param {Mapping} mapping
 * @param {() => () => Promise<unknown>} call Gives what ends it, or waits for that.
 * @returns {Runner}
 */
function callWithDirtyPages(mapping, call) {
  return {
    async run() {
      mapping.write();
      const start = process.hrtime.bigint();
      const end = call();
      const elapsedNs = sinceNs(start);
      await end();
      return [elapsedNs];
    },
    close() {
      mapping.unmap();
      return Promise.resolve();
    },
  };
}

function callFork() {
  const child = fork();
  return () => child.exit();
}

/** @param {number} pages */
export function forkCall(pages) {
  return callWithDirtyPages(mapDirty(pages), callFork);
}

/**
 * With huge pages: ours, and C's fork() from the same Node with the same memory.
 * @param {number} pages
 * @param {(() => number) | string} forkInNode
 */
export function forkCallsOfHugePages(pages, forkInNode) {
  const mapping = mapDirty(pages, true);
  /** @type {Runner | string} */
  const inC =
    typeof forkInNode === 'string'
      ? forkInNode
      : {
          run() {
            mapping.write();
            return Promise.resolve([forkInNode()]);
          },
          close: () => Promise.resolve(),
        };
  return { ours: callWithDirtyPages(mapping, callFork), inC };
}

/**
 * The same with huge pages, from the small root of a Machine, as it measures it.
 * @param {number} pages
 * @returns {Promise<Runner>}
 */
export async function forkOfSmallRoot(pages) {
  const machine = await openMachine({ root: 'bare' });
  const region = await machine.root.map({ pages, hugePages: true });
  return {
    async run() {
      await machine.root.write(region);
      const child = await machine.root.fork();
      const { elapsedNs } = machine.trace.at(-1)?.outcome ?? {};
      await child.exit();
      if (elapsedNs === undefined) throw new Error('the fork was not timed');
      return [elapsedNs];
    },
    close: () => machine.close(),
  };
}

/** @param {number} pages */
export function spawnCall(pages) {
  return callWithDirtyPages(mapDirty(pages), () => {
    const program = spawn('true', [], { stdio: ['ignore', 'ignore', 'ignore'] });
    return () => program.ended;
  });
}

/** @returns {Runner} */
export function forkExitWait() {
  return {
    async run() {
      const start = process.hrtime.bigint();
      await fork().exit();
      return [sinceNs(start)];
    },
    close: () => Promise.resolve(),
  };
}

/**
 * A child's writes to pages it shares with its parent, both of them native processes.
 * @param {number} pages
 * @returns {Promise<Runner>}
 */
export async function copyOnWrite(pages) {
  const parent = fork();
  const region = await parent.map({ pages });
  await parent.write(region);
  return {
    async run() {
      const child = await parent.fork();
      const { elapsedNs, minorFaults } = await child.write(region);
      await child.exit();
      if (minorFaults !== pages) throw new Error(`${pages} writes took ${minorFaults} faults`);
      return [elapsedNs];
    },
    async close() {
      await parent.exit();
    },
  };
}

/**
 * @param {number} pid
 * @param {bigint} address
 * @param {number} pages
 * @param {boolean} exact Whether zero and huge pages are looked for, which the floor cannot tell from others.
 * @returns {Runner}
 */
export function countExclusiveShared(pid, address, pages, exact) {
  return {
    run() {
      const start = process.hrtime.bigint();
      const { exclusive, shared } = countPages(pid, { address, pages }, { checkHuge: exact, checkZero: exact });
      return Promise.resolve([sinceNs(start), exclusive, shared]);
    },
    close: () => Promise.resolve(),
  };
}

/**
 * @param {number} pid
 * @returns {Runner}
 */
export function readTable(pid) {
  return {
    run() {
      const start = process.hrtime.bigint();
      const pssKb = readSmapsTable(pid).sumKb('Pss');
      const elapsedNs = sinceNs(start);
      if (pssKb === 0) throw new Error(`process ${pid} has no memory`);
      return Promise.resolve([elapsedNs]);
    },
    close: () => Promise.resolve(),
  };
}

/**
 * Processor time, in nanoseconds, of a look at a tree, ten times a second, on the average of ten seconds.
 * @param {number} root
 * @returns {Runner}
 */
export function sampleTree(root) {
  const watch = new TreeWatch(root);
  return {
    async run() {
      const before = process.cpuUsage();
      for (let look = 0; look < LOOKS; look++) {
        const { processes } = watch.sample();
        if (processes.length < 50) throw new Error(`only ${processes.length} processes were seen`);
        await delay(1000 / LOOKS_A_SECOND);
      }
      const { user, system } = process.cpuUsage(before);
      return [((user + system) * 1000) / LOOKS];
    },
    close: () => Promise.resolve(),
  };
}

/**
 * A look that reads nobody's memory.
 * @param {number} root
 * @returns {Runner}
 */
export function lookAtTree(root) {
  const watch = new TreeWatch(root, { maxLoad: 1e-9 });
  watch.sample();
  return {
    run() {
      const start = process.hrtime.bigint();
      const { longestReadMs } = watch.sample();
      const elapsedNs = sinceNs(start);
      if (longestReadMs > 0) throw new Error('memory was read');
      return Promise.resolve([elapsedNs]);
    },
    close: () => Promise.resolve(),
  };
}

/**
 * Reads which pages a process has written since a mark. Gives how many as well.
 * @param {number} pages
 * @param {number} written
 */
export async function readMark(pages, written) {
  const child = fork();
  const region = await child.map({ pages });
  await child.write(region);
  const mark = await child.markWritten(region);
  await child.write(region, { pattern: 'random', to: written });
  return {
    pid: child.pid,
    ...child.placement(region),
    async run() {
      const start = process.hrtime.bigint();
      const found = await mark.read();
      return [sinceNs(start), found.written];
    },
    async close() {
      await child.exit();
    },
  };
}

/**
 * Additions to one number by workers that begin together; the longest counts. Gives the total as well.
 * @param {'atomic' | 'lock'} guard
 * @param {number} times
 * @param {number} workers
 * @returns {Runner}
 */
export function addToNumber(guard, times, workers) {
  const area = new SharedArea();
  const processes = Array.from({ length: workers }, () => fork());
  return {
    async run() {
      const number = area.number();
      const gate = area.gate(workers);
      const reports = await Promise.all(processes.map((one) => area.count(one, number, guard, times, { gate })));
      return [Math.max(...reports.map(({ elapsedNs }) => elapsedNs)), number.value];
    },
    async close() {
      for (const one of processes) await one.exit();
      area.close();
    },
  };
}

/**
 * Messages from one process to another. Gives the sum of what was received as well.
 * @param {number} messages
 * @param {number} capacity
 * @returns {Runner}
 */
export function sendMessages(messages, capacity) {
  const area = new SharedArea(8 * 2 ** 20);
  const [sender, receiver] = [fork(), fork()];
  return {
    async run() {
      const rings = area.rings(1, capacity);
      const [ring] = rings;
      if (!ring) throw new Error('one ring was asked for');
      const gate = area.gate(2);
      const [sent, received] = await Promise.all([
        area.send(sender, ring, messages, { gate }),
        area.receive(receiver, rings, messages, { gate }),
      ]);
      return [Math.max(sent.elapsedNs, received.elapsedNs), Number(received.sum)];
    },
    async close() {
      for (const one of [sender, receiver]) await one.exit();
      area.close();
    },
  };
}
