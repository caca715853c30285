/** Where psutil, smem and pmap are right about held fixtures, where they are not, and by how much. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import type { Figure } from '../../lib/schema/figure.js';
import type { HeldProcess, Truth } from '../../lib/schema/fixture.js';
import { formatCount } from '../../lib/schema/units.js';
import { MAIN, ROOT, run } from './command.js';
import { pythonWith, whyNoProgram } from './python.js';

const README = readFileSync(join(ROOT, 'README.md'), 'utf8');

/** Of the regions of all processes together, in kB, each worked out by hand. */
interface Sums {
  /** Page frames: what the processes really take. */
  taken: number;
  rss: number;
  uss: number;
  pss: number;
  /** What psutil calls shared, and what is (Shared_Clean and Shared_Dirty). */
  calledShared: number;
  shared: number;
}

const EXPECTED: Record<string, Sums> = {
  fresh: { taken: 0, rss: 0, uss: 0, pss: 0, calledShared: 0, shared: 0 },
  // 4 MiB, twice mapped.
  forked: { taken: 4096, rss: 8192, uss: 0, pss: 4096, calledShared: 0, shared: 8192 },
  // Half of it copied: both have half for themselves.
  'half-written': { taken: 6144, rss: 8192, uss: 4096, pss: 6144, calledShared: 0, shared: 4096 },
  // Each of four wrote 28 pages (a ninth of a quarter), 448 kB; Pss is rounded down once in each of five.
  'disjoint-writers': { taken: 4544, rss: 20_480, uss: 448, pss: 4541, calledShared: 0, shared: 20_032 },
  nested: { taken: 6144, rss: 12_288, uss: 2048, pss: 6142, calledShared: 0, shared: 10_240 },
  // The leak is the child's alone.
  leak: { taken: 5120, rss: 9216, uss: 1024, pss: 5120, calledShared: 0, shared: 8192 },
  // Shared on purpose: that it knows.
  shared: { taken: 2048, rss: 4096, uss: 0, pss: 2048, calledShared: 4096, shared: 4096 },
  // One page was written; the zero page is nobody's.
  'zero-page': { taken: 4, rss: 8, uss: 0, pss: 4, calledShared: 0, shared: 8 },
  'huge-pages': { taken: 8192, rss: 16_384, uss: 0, pss: 8192, calledShared: 0, shared: 16_384 },
  dontfork: { taken: 8192, rss: 10_240, uss: 6144, pss: 8192, calledShared: 0, shared: 4096 },
  'many-vmas': { taken: 20_000, rss: 40_000, uss: 0, pss: 20_000, calledShared: 0, shared: 40_000 },
  // 256 pages and 63 times 4 copies; of these only the first originals and the last copies have one owner. Pss of a process
  // is the sum of 4 floor(2^24 / n) over the 64 shares, each mapped n times, rounded down to kB.
  'deep-tree': { taken: 2032, rss: 65_536, uss: 32, pss: 2002, calledShared: 0, shared: 65_504 },
};

/** So many processes of a fixture, at most (ask_tools.py). */
const ASKED_OF_PMAP = 5;

type Answers = Record<string, number>;
type Held = { truth: Truth; answers: Answers[] } | { unavailable: string };

const lacking = ['smem', 'pmap'].map(whyNoProgram).find((why) => why !== undefined);
const python = pythonWith('psutil');
const whyNot = lacking ?? ('lacking' in python ? python.lacking : undefined);
const held = new Map<string, Held>();

beforeAll(async () => {
  if (whyNot !== undefined || 'lacking' in python) return;
  const names = Object.keys(EXPECTED);
  const script = join(import.meta.dirname, 'ask_tools.py');
  const { code, stdout, stderr } = await run(python.python, [script, process.execPath, MAIN, ...names]);
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  stdout
    .trim()
    .split('\n')
    .forEach((line, index) => held.set(names[index] ?? '', JSON.parse(line) as Held));
}, 120_000);

function number(figure: Figure | undefined): number {
  return typeof figure === 'number' ? figure : 0;
}

/** A figure of a whole process: what its regions have, and what it has beside them. */
function whole({ smapsKb, outside }: HeldProcess, ...fields: string[]): number {
  return fields.reduce((kb, field) => kb + number(smapsKb[field]) + (outside.smapsKb[field] ?? 0), 0);
}

/** psutil's rss and shared are of statm, which is exact by Linux 6.17 at the latest [task_statm, get_mm_counter_sum]. */
function hasExactStatm({ kernel }: Truth): boolean {
  const [major = 0, minor = 0] = kernel.split('.').map(Number);
  return major > 6 || (major === 6 && minor >= 17);
}

/** Sums over the processes, less what they have beside their regions. */
function sumsOf({ truth, answers }: { truth: Truth; answers: Answers[] }): Sums {
  const total = (answer: string, beside: (process: HeldProcess) => number): number =>
    truth.processes.reduce((kb, process, index) => kb + (answers[index]?.[answer] ?? NaN) - beside(process), 0);
  const outside = (...fields: string[]) => {
    return ({ outside: { smapsKb } }: HeldProcess): number =>
      fields.reduce((kb, field) => kb + (smapsKb[field] ?? 0), 0);
  };
  const kb = truth.pageSizeBytes / 1024;
  return {
    taken: number(truth.totals.frames) * kb,
    rss: total('smem rss', outside('Rss')),
    uss: total('smem uss', ({ outside: { ussKb } }) => ussKb),
    pss: total('smem pss', outside('Pss')),
    calledShared: total('psutil shared', ({ outside: { smapsKb } }) => {
      return (smapsKb['Rss'] ?? 0) - (smapsKb['Anonymous'] ?? 0);
    }),
    shared: truth.processes.reduce(
      (sum, { smapsKb }) => sum + number(smapsKb['Shared_Clean']) + number(smapsKb['Shared_Dirty']),
      0,
    ),
  };
}

describe.skipIf(whyNot !== undefined)(`tools that others use${whyNot === undefined ? '' : ` (${whyNot})`}`, () => {
  describe.each(Object.entries(EXPECTED))('%s', (name, expected) => {
    test('each figure of a process is right, but for what psutil calls shared', (context) => {
      const found = held.get(name);
      if (!found || 'unavailable' in found) return context.skip(found?.unavailable);
      const { truth, answers } = found;
      for (const [index, process] of truth.processes.entries()) {
        const { outside, regions } = process;
        const uss = number(process.ussKb) + outside.ussKb;
        const [rss, pss] = [whole(process, 'Rss'), whole(process, 'Pss')];
        const vmas = outside.vmas + regions.reduce((count, region) => count + region.vmas.length, 0);
        const {
          'psutil pss': byRollup = NaN,
          'psutil rss': byStatm,
          'psutil shared': shared,
          ...others
        } = answers[index] ?? {};
        expect(others).toMatchObject({
          ...{ 'psutil uss': uss, 'psutil maps': vmas, 'psutil maps rss': rss, 'psutil maps pss': pss },
          ...{ 'psutil maps private': uss, 'psutil grouped pss': pss },
          ...{ 'smem uss': uss, 'smem pss': pss, 'smem rss': rss },
        });
        if (index < ASKED_OF_PMAP) {
          expect(others).toMatchObject({
            ...{ 'pmap -x Kbytes': whole(process, 'Size'), 'pmap -x RSS': rss, 'pmap -X Pss': pss },
            'pmap -x Dirty': whole(process, 'Private_Dirty', 'Shared_Dirty'),
          });
        }
        // smaps rounds down once for each VMA, smaps_rollup once for all of them.
        expect(byRollup).toBeGreaterThanOrEqual(pss);
        expect(byRollup - pss).toBeLessThan(vmas);
        if (!hasExactStatm(truth)) continue;
        expect(byStatm).toBe(rss);
        // Pages of files and of shared memory, whoever has them.
        expect(shared).toBe(rss - whole(process, 'Anonymous'));
      }
    });

    test('in sum it comes to what the README says', (context) => {
      const found = held.get(name);
      if (!found || 'unavailable' in found) return context.skip(found?.unavailable);
      const sums = sumsOf(found);
      expect(hasExactStatm(found.truth) ? sums : { ...sums, calledShared: expected.calledShared }).toEqual(expected);
      const { taken, rss, uss, pss, calledShared, shared } = expected;
      const row = [taken, rss, uss, pss, calledShared, shared].map((kb) => formatCount(kb));
      const line = README.split('\n').find((one) => one.startsWith(`| \`${name}\` `)) ?? '';
      expect(line.split('|').map((cell) => cell.trim())).toEqual(['', `\`${name}\``, ...row, '']);
    });
  });

  test('pmap -d counts the length of MAP_SHARED mappings as shared, touched or not, and nothing else', () => {
    const answers = ['forked', 'shared'].map((name) => {
      const found = held.get(name);
      return found && 'answers' in found ? found.answers.map((one) => one['pmap -d shared']) : [];
    });
    expect(answers).toEqual([
      [0, 0],
      [4096, 4096],
    ]);
  });
});
