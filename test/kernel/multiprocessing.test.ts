/** The program of the question in a real CPython. */
import { readdirSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { pythonOrWhyNot } from '../../lib/experiments/cpython.js';
import { parseParams } from '../../lib/experiments/define.js';
import { checkPrediction, multiprocessing } from '../../lib/experiments/multiprocessing.js';
import { QuestionProgram } from '../../lib/experiments/question-program.js';
import { runExperiment } from '../../lib/experiments/run.js';
import { readHostFacts } from '../../lib/proc/host.js';
import { readProcessTree, readTreeMemory } from '../../lib/proc/process-tree.js';
import { readSysctls } from '../../lib/proc/sysctl.js';

const MIB = 2 ** 20;
const SMALL = { size: 4 * MIB, children: 2 };
const python = pythonOrWhyNot();
const heuristic = readSysctls().overcommitMemory === 0;

const sharedNames = () => readdirSync('/dev/shm').sort();

const run = (given: Record<string, unknown> = {}, options = {}) =>
  runExperiment(multiprocessing, parseParams(multiprocessing, { ...SMALL, ...given }), options);

/** @param work Is given a Python with a list of 40 bytes for each element. */
async function withProgram(elements: number, work: (program: QuestionProgram) => Promise<void>): Promise<void> {
  if (typeof python === 'string') expect.unreachable();
  let close: () => Promise<void> = () => Promise.resolve();
  const program = await QuestionProgram.start(python, elements, (closing) => {
    close = closing;
  });
  try {
    await work(program);
  } finally {
    await close();
  }
}

describe.skipIf(typeof python === 'string')('multiprocessing', () => {
  test('each start method starts, and only fork inherits the list and is refused beyond RAM plus swap', async () => {
    const result = await run();
    expect(result.reason).toMatch(/checks agree/);
    expect(result.verdict).toBe('pass');
    const figures = Object.fromEntries((result.measurement?.figures ?? []).map(({ name, value }) => [name, value]));
    if (heuristic) {
      expect(figures).toMatchObject({
        'beyond RAM plus swap, fork: errno': 12,
        'beyond RAM plus swap, forkserver: errno': 0,
        'beyond RAM plus swap, spawn: errno': 0,
      });
    }
    const shown = JSON.stringify(result.measurement?.tables);
    expect(shown.includes('OSError: [Errno 12] Cannot allocate memory')).toBe(heuristic);
    expect(result.claim.outcome).toBe('holds only if');
  });

  test('leaves no process, no descriptor and no semaphore', async () => {
    await run();
    const left = () => [readProcessTree(process.pid).length, readdirSync('/proc/self/fd').length, sharedNames()];
    const before = left();
    // Python and its resource tracker end at the same time: it takes some runs to see who is first.
    for (let i = 0; i < 3; i++) await run();
    expect(left()).toEqual(before);
  });

  test.skipIf(!heuristic)('a prediction for another state of the parent is found wrong', async () => {
    await withProgram(1000, async (program) => {
      const before = program.predict();
      expect(before.outcome).toBe('succeeds');
      await program.growBeyond();
      const attempt = await program.startPool('fork', 2);
      expect(attempt.errno).toBe(12);
      expect(attempt.error).toBe('OSError: [Errno 12] Cannot allocate memory');
      expect(checkPrediction('', attempt).pass).toBe(true);
      expect(checkPrediction('', { ...attempt, predicted: before }).pass).toBe(false);
    });
  });

  test('it is the looking that copies, and only forked workers find something to look at', async () => {
    const elements = 200_000;
    // Floats of 24 bytes in blocks of 32 (24 since Python 3.8 on 16-byte alignment), of which pools hold a head too.
    const leastKb = (elements * 24) / 1024;
    await withProgram(elements, async (program) => {
      const pool = await program.startPool('fork', 3);
      expect(pool).toMatchObject({ errno: 0, workers: 3 });
      const idle = readTreeMemory(program.pid);
      // Had the workers not looked, the check of the experiment would be red.
      expect(readTreeMemory(program.pid).pssKb - idle.pssKb).toBeLessThan(leastKb);
      const { workers, elements: found } = await program.work();
      expect(found).toBe(elements);
      expect(readTreeMemory(program.pid).pssKb - idle.pssKb).toBeGreaterThanOrEqual(workers * leastKb);
      await program.closePool();
      await program.startPool('spawn', 2);
      expect((await program.work()).elements).toBe(0);
    });
  });

  test.skipIf(process.geteuid?.() !== 0)(
    'under strict overcommit the worker that does not fit is refused, memory is there, and settings are as before',
    async () => {
      const before = readSysctls();
      const result = await run({ mode: 'strict', size: 64 * MIB, children: 4 }, { allowSystemChanges: true });
      expect(result.reason).toMatch(/checks agree/);
      expect(result.verdict).toBe('pass');
      const figures = Object.fromEntries((result.measurement?.figures ?? []).map(({ name, value }) => [name, value]));
      expect(figures).toMatchObject({
        'strict: errno of Pool()': 12,
        'strict: workers before one was refused': 2,
      });
      expect(figures['strict: MemAvailable when one was refused']).toBeGreaterThan(64 * 1024);
      expect(result.claim).toMatchObject({ outcome: 'holds' });
      expect(readSysctls()).toEqual(before);
    },
  );

  test('strict mode is refused to who has not allowed it', async () => {
    const result = await run({ mode: 'strict', size: 64 * MIB });
    expect(result.verdict).toBe('skip');
    expect(result.reason).toMatch(/--allow-system-changes/);
  });
});

test('parameters that make no sense are refused', () => {
  const params = parseParams(multiprocessing, { mode: 'strict', size: MIB });
  expect(() => multiprocessing.needs(params, readHostFacts(process.pid))).toThrow(/size must be at least 64 MiB/);
  expect(() => parseParams(multiprocessing, { children: 1 })).toThrow(/children/);
});
