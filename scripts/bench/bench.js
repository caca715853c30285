/**
 * Benchmarks beside C floors built here (floor.c), and beside what others take for the same. They take turns, run by run,
 * so that all see the same machine; medians and their ratio count, with the median absolute deviation as spread.
 *
 *   npm run bench -- [--json] [--runs N] [--only PART_OF_A_NAME]
 */
import { execFile } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs, promisify } from 'node:util';
import { Table } from 'console-table-printer';
import { median, medianAbsoluteDeviation } from 'simple-statistics';
import { COMPARISONS } from './comparisons.js';
import { compileFloor } from './floor.js';

const WARM_UP_RUNS = 3;

/** @typedef {import('./comparisons.js').Comparison} Comparison */

/**
 * @typedef {object} Side
 * @property {number} median
 * @property {number} mad
 */

/**
 * @typedef {object} Line
 * @property {string} name
 * @property {'ns' | 'ms' | 'MiB'} unit
 * @property {number} runs
 * @property {Side | null} ours Null if it was not measured, for want of memory.
 * @property {Side | null} floor Null where there is none.
 * @property {string} bar
 * @property {number | null} ratio
 * @property {boolean | null} met Null if it was not measured.
 * @property {PeerLine[]} [peers]
 */

/**
 * What others take for the same.
 * @typedef {object} PeerLine
 * @property {string} name
 * @property {Side | null} its Null if it is not there.
 * @property {number | null} ratio Ours to theirs.
 * @property {string} bar
 * @property {boolean | null} met Null if it was not measured.
 */

/** @param {number[]} values */
function side(values) {
  return { median: median(values), mad: medianAbsoluteDeviation(values) };
}

/**
 * One round: both sides are started anew, and take turns.
 * @param {Comparison} comparison
 * @param {string} program
 * @param {number} runs
 * @param {boolean} floorFirst Which side runs, and so takes its memory, first.
 */
async function round(comparison, program, runs, floorFirst) {
  const { ours, floor, others, peers = [] } = await comparison.start(program);
  const ourNs = [];
  const floorNs = [];
  const peerNs = peers.map(() => /** @type {number[]} */ ([]));
  /** @param {import('./ours.js').Runner} runner */
  const turnOf = async (runner) => {
    if (comparison.warm) await runner.run();
    return runner.run();
  };
  try {
    for (let i = -WARM_UP_RUNS; i < runs; i++) {
      const first = floorFirst ? await turnOf(floor) : [];
      const [our = NaN, ...ourCounts] = await turnOf(ours);
      const [its = NaN, ...itsCounts] = floorFirst ? first : await turnOf(floor);
      if (ourCounts.join() !== itsCounts.join()) {
        throw new Error(`${comparison.name}: we count ${ourCounts.join()}, C counts ${itsCounts.join()}`);
      }
      for (const [index, { runner, per, every = 1 }] of peers.entries()) {
        if (typeof runner === 'string' || i % every !== 0) continue;
        const [ns = NaN] = await turnOf(runner);
        if (i >= 0) peerNs[index]?.push(ns / per);
      }
      if (i < 0) continue;
      ourNs.push(our / comparison.per);
      floorNs.push(its / comparison.per);
    }
  } finally {
    const runners = peers.flatMap(({ runner }) => (typeof runner === 'string' ? [] : [runner]));
    await Promise.all([ours, floor, ...others, ...runners].map((one) => one.close()));
  }
  return { ourNs, floorNs, peers: peers.map((peer, index) => ({ ...peer, ns: peerNs[index] ?? [] })) };
}

/**
 * @param {Comparison} comparison
 * @param {string} program
 * @param {number} runs
 * @returns {Promise<Line>}
 */
async function compare(comparison, program, runs) {
  const { rounds = 1 } = comparison;
  const ourNs = [];
  const floorNs = [];
  /** @type {Map<string, PeerRuns>} */
  const peers = new Map();
  for (let i = 0; i < rounds; i++) {
    const figures = await round(comparison, program, Math.ceil(runs / rounds), i % 2 === 1);
    ourNs.push(...figures.ourNs);
    floorNs.push(...figures.floorNs);
    for (const peer of figures.peers) {
      peers.set(peer.name, { ...peer, ns: [...(peers.get(peer.name)?.ns ?? []), ...peer.ns] });
    }
  }
  const [our, its] = [side(ourNs), side(floorNs)];
  const { bar } = comparison;
  return {
    name: comparison.name,
    unit: 'ns',
    runs,
    ours: our,
    floor: its,
    ratio: our.median / its.median,
    ...judge(bar, our.median, its.median),
    peers: [...peers.values()].map((peer) => peerLine(peer, our)),
  };
}

/**
 * @param {Comparison['bar']} bar
 * @param {number} ourNs
 * @param {number} itsNs
 */
function judge(bar, ourNs, itsNs) {
  if ('mostNs' in bar) return { bar: `at most ${bar.mostNs / 1e6} ms`, met: ourNs <= bar.mostNs };
  if ('addedNs' in bar) return { bar: `at most C + ${bar.addedNs / 1000} us`, met: ourNs <= itsNs + bar.addedNs };
  const limited = Number.isFinite(bar.ratio);
  return { bar: limited ? `at most ${bar.ratio.toFixed(2)} of C` : 'none', met: ourNs <= itsNs * bar.ratio };
}

/**
 * @param {Comparison} comparison
 * @returns {Line | undefined} If the memory that it needs is not available.
 */
function withoutMemory({ name, needsMib = 0 }) {
  const [, availableKb = '0'] = /^MemAvailable: +([0-9]+) kB$/m.exec(fs.readFileSync('/proc/meminfo', 'utf8')) ?? [];
  // A GiB is left to others.
  if (needsMib === 0 || Number(availableKb) / 1024 > needsMib + 1024) return undefined;
  const bar = `not measured: needs ${needsMib + 1024} MiB available`;
  return { name, unit: 'ns', runs: 0, ours: null, floor: null, ratio: null, bar, met: null };
}

/** @typedef {import('./comparisons.js').Peer & { ns: number[] }} PeerRuns */

/**
 * @param {PeerRuns} peer
 * @param {Side} our
 * @returns {PeerLine}
 */
function peerLine({ name, bar = Infinity, runner, ns }, our) {
  const limit = Number.isFinite(bar) ? `at most ${bar.toFixed(2)} of it` : 'none';
  if (typeof runner === 'string') {
    return { name, its: null, ratio: null, bar: `not measured: needs ${runner}`, met: null };
  }
  const its = side(ns);
  const ratio = our.median / its.median;
  return { name, its, ratio, bar: limit, met: ratio <= bar };
}

/**
 * @param {string} program Name of a program in model.js.
 * @param {{ elapsedMs: number, peakRssGrowthMib?: number }} bars
 * @param {number} runs
 * @returns {Promise<Line[]>}
 */
async function measureModel(program, bars, runs) {
  const model = path.join(import.meta.dirname, 'model.js');
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'cowlab-bench-'));
  const trace = path.join(directory, 'trace.json');
  const run = promisify(execFile);
  /** @type {Record<'elapsedMs' | 'peakRssGrowthMib', number>[]} */
  const results = [];
  try {
    await run(process.execPath, [model, 'record', program, trace]);
    for (let i = 0; i < runs; i++) {
      const { stdout } = await run(process.execPath, [model, 'replay', trace]);
      results.push(/** @type {typeof results[number]} */ (JSON.parse(stdout)));
    }
  } finally {
    fs.rmSync(directory, { recursive: true, force: true });
  }
  /** @type {(name: string, unit: 'ms' | 'MiB', values: number[], bar: number) => Line} */
  const line = (name, unit, values, bar) => {
    const ours = side(values);
    const met = ours.median <= bar;
    return { name, unit, runs, ours, floor: null, ratio: null, bar: `at most ${bar} ${unit}`, met };
  };
  const time = results.map((one) => one.elapsedMs);
  const lines = [line(`model: replay of ${program}`, 'ms', time, bars.elapsedMs)];
  if (bars.peakRssGrowthMib !== undefined) {
    const growth = results.map((one) => one.peakRssGrowthMib);
    lines.push(line(`model: memory of ${program}`, 'MiB', growth, bars.peakRssGrowthMib));
  }
  return lines;
}

/**
 * @param {Side | null} measured
 * @param {Line['unit']} unit
 */
function show(measured, unit) {
  if (!measured) return '';
  const [divisor, shownUnit] =
    unit !== 'ns' ? [1, unit] : measured.median >= 1e6 ? [1e6, 'ms'] : measured.median >= 1e4 ? [1e3, 'us'] : [1, 'ns'];
  return `${(measured.median / divisor).toFixed(2)} ± ${(measured.mad / divisor).toFixed(2)} ${shownUnit}`;
}

/**
 * @param {string} bar
 * @param {boolean | null} met
 */
function showMet(bar, met) {
  if (bar === 'none' || met === null) return '';
  return met ? 'yes' : 'NO';
}

/** @param {Line[]} lines */
function printTable(lines) {
  const table = new Table({
    shouldDisableColors: true,
    columns: [
      { name: 'benchmark', alignment: 'left' },
      { name: 'ours', alignment: 'right' },
      { name: 'C, or peer', alignment: 'right' },
      { name: 'ratio', alignment: 'right' },
      { name: 'bar', alignment: 'left' },
      { name: 'met', alignment: 'left' },
    ],
  });
  for (const { name, unit, ours, floor, ratio, bar, met, peers = [] } of lines) {
    table.addRow({
      benchmark: name,
      ours: show(ours, unit),
      'C, or peer': show(floor, unit),
      ratio: ratio?.toFixed(3) ?? '',
      bar,
      met: showMet(bar, met),
    });
    for (const peer of peers) {
      table.addRow({
        benchmark: `  ${peer.name}`,
        'C, or peer': show(peer.its, unit),
        ratio: peer.ratio?.toFixed(3) ?? '',
        bar: peer.bar,
        met: showMet(peer.bar, peer.met),
      });
    }
  }
  table.printTable();
  console.log('Medians ± median absolute deviations; ours, C and peers took turns.');
}

/** @param {string | undefined} text */
function parseRuns(text) {
  if (text === undefined) return undefined;
  const runs = Number(text);
  if (!Number.isInteger(runs) || runs < 1) throw new RangeError(`--runs must be a positive integer, not ${text}`);
  return runs;
}

async function main() {
  const { values } = parseArgs({
    options: { json: { type: 'boolean' }, runs: { type: 'string' }, only: { type: 'string' } },
  });
  const runs = parseRuns(values.runs);
  /** @param {string} name */
  const wanted = (name) => name.includes(values.only ?? '');
  const { program, remove } = compileFloor();
  /** @type {Line[]} */
  const lines = [];
  try {
    for (const comparison of COMPARISONS) {
      if (!wanted(comparison.name)) continue;
      console.error(`${comparison.name} ...`);
      lines.push(withoutMemory(comparison) ?? (await compare(comparison, program, runs ?? comparison.runs)));
    }
  } finally {
    remove();
  }
  if (wanted('model')) {
    console.error('model ...');
    lines.push(...(await measureModel('cow-growth', { elapsedMs: 50 }, runs ?? 7)));
    lines.push(...(await measureModel('full-random', { elapsedMs: 2000, peakRssGrowthMib: 300 }, runs ?? 3)));
  }
  if (values.json) {
    const environment = {
      kernel: os.release(),
      arch: process.arch,
      node: process.version,
      cpu: os.cpus()[0]?.model ?? 'unknown',
      cpus: os.availableParallelism(),
      memTotalBytes: os.totalmem(),
    };
    console.log(JSON.stringify({ environment, benchmarks: lines }, null, 2));
  } else {
    printTable(lines);
  }
  const all = lines.flatMap((line) => [line, ...(line.peers ?? [])]);
  if (all.some(({ met }) => met === false)) process.exitCode = 1;
}

await main();
