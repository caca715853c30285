/** The measured things, as a user of the library would write them. */

/** @typedef {typeof import('../../lib/index.js')} Cowlab */

// The types are those of the sources, and what runs is what is shipped.
const { countPages, fork, mmap } = /** @type {Cowlab} */ (
  await import(new URL('../../dist/index.js', import.meta.url).href)
);

const PAGE_BYTES = 4096;

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

/**
 * The call of fork() alone, from Node, with that many pages dirty.
 * @param {number} pages
 * @returns {Runner}
 */
export function forkCall(pages) {
  const mapping = mmap({ length: pages * PAGE_BYTES, sharing: 'private' });
  return {
    async run() {
      mapping.write();
      const start = process.hrtime.bigint();
      const child = fork();
      const elapsedNs = sinceNs(start);
      await child.exit();
      return [elapsedNs];
    },
    close() {
      mapping.unmap();
      return Promise.resolve();
    },
  };
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
