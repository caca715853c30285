/**
 * Benchmarks of the model, each in a process of its own, so that every replay is as cold as a user's first:
 *
 *   model.js record cow-growth|full-random FILE    runs a program on the model and saves its trace
 *   model.js replay FILE                           replays the trace; prints {elapsedMs, peakRssGrowthMib}
 */
import fs from 'node:fs';

/** @typedef {typeof import('../../lib/index.js')} Cowlab */
/** @typedef {import('../../lib/machine/machine.js').Machine} Machine */

const { modelMachine, replayOnModel } = /** @type {Cowlab} */ (
  await import(new URL('../../dist/index.js', import.meta.url).href)
);

const PAGES_PER_MIB = 256;

/** A common machine, so that the figures are the same everywhere: 16 GiB, no swap.
 * @type {import('../../lib/schema/facts.js').HostFacts} */
const FACTS = {
  kernelRelease: '6.18.0',
  kernelVersion: [6, 18],
  arch: 'x64',
  pageSizeBytes: 4096,
  cpus: 2,
  memTotalPages: 16384 * PAGES_PER_MIB,
  swapTotalPages: 0,
  overcommitMode: 0,
  commitLimitPages: 8192 * PAGES_PER_MIB,
  hugetlbPages: 0,
  committedPages: 1024 * PAGES_PER_MIB,
  adminReservePages: 2048,
  userReservePages: 32768,
  capSysAdmin: false,
  faultAroundPages: 16,
  pagesPerTable: 512,
  thpEnabled: 'madvise',
  shmemThpEnabled: 'never',
  rootAccountedVmas: [33, 16, 4, 4, 1, 1, 2, 3],
  rootTotalPages: 200000,
  free: {
    freePages: 12288 * PAGES_PER_MIB,
    filePages: 2048 * PAGES_PER_MIB,
    shmemPages: 16 * PAGES_PER_MIB,
    swapFreePages: 0,
    reclaimableSlabPages: 64 * PAGES_PER_MIB,
  },
};

/**
 * Children write growing shares of what they inherited, with an observation after each step.
 * @param {Machine} machine
 * @param {{ pages: number, children: number, steps: number, pattern: 'sequential' | 'random' }} size
 */
async function grow(machine, { pages, children, steps, pattern }) {
  const region = await machine.root.map({ pages });
  await machine.root.write(region);
  const writers = [];
  for (let i = 0; i < children; i++) writers.push(await machine.root.fork());
  await machine.observe('forked');
  for (let step = 0; step < steps; step++) {
    const from = Math.floor((pages * step) / steps);
    const to = Math.floor((pages * (step + 1)) / steps);
    for (const [seed, writer] of writers.entries()) await writer.write(region, { pattern, seed, from, to });
    await machine.observe(`step ${step + 1}`);
  }
}

/** @type {Record<string, Parameters<typeof grow>[1]>} */
const PROGRAMS = {
  'cow-growth': { pages: 256 * PAGES_PER_MIB, children: 4, steps: 5, pattern: 'sequential' },
  'full-random': { pages: 2048 * PAGES_PER_MIB, children: 8, steps: 8, pattern: 'random' },
};

/**
 * @param {string} name
 * @param {string} file
 */
async function record(name, file) {
  const size = PROGRAMS[name];
  if (!size) throw new Error(`no program is named ${name}`);
  const machine = modelMachine(FACTS);
  await grow(machine, size);
  // The steps alone: what the model said to them would be most of the file.
  fs.writeFileSync(file, JSON.stringify(machine.trace.map(({ step }) => ({ step, outcome: {} }))));
  await machine.close();
}

/** @param {string} file */
async function timeReplay(file) {
  const trace = /** @type {Machine['trace']} */ (JSON.parse(fs.readFileSync(file, 'utf8')));
  const rssBefore = process.memoryUsage.rss();
  const start = performance.now();
  await replayOnModel(trace, FACTS);
  const elapsedMs = performance.now() - start;
  const peakRssGrowthMib = (process.resourceUsage().maxRSS * 1024 - rssBefore) / 2 ** 20;
  console.log(JSON.stringify({ elapsedMs, peakRssGrowthMib }));
}

const [command, first = '', second = ''] = process.argv.slice(2);
if (command === 'record') await record(first, second);
else await timeReplay(first);
