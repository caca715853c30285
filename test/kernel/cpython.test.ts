/** refcount, gc and arenas: the layout on the kernel as on the model, and a real CPython beside it. */
import { readdirSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { arenas } from '../../lib/experiments/arenas.js';
import { CpythonObjects, pythonOrWhyNot } from '../../lib/experiments/cpython.js';
import { parseParams } from '../../lib/experiments/define.js';
import type { AnyExperiment } from '../../lib/experiments/define.js';
import { gc } from '../../lib/experiments/gc.js';
import { pagesIn } from '../../lib/experiments/python-layout.js';
import { refcount } from '../../lib/experiments/refcount.js';
import { predictExperiment, runExperiment } from '../../lib/experiments/run.js';
import { compareTraces } from '../../lib/machine/compare.js';
import { replayOnModel } from '../../lib/machine/open.js';
import { readHostFacts } from '../../lib/proc/host.js';
import { readProcessTree } from '../../lib/proc/process-tree.js';

const python = pythonOrWhyNot();
const withPython = test.skipIf(typeof python === 'string');
const SMALL = { objects: 20_000 };

const run = (experiment: AnyExperiment, given: Record<string, unknown> = {}) =>
  runExperiment(experiment, parseParams(experiment, { ...SMALL, ...given }));

describe.each([refcount, gc, arenas])('$name', (experiment) => {
  test.each([{}, { layout: '3.9' }, { objects: 1000 }])(
    'each figure of the layout equals the model, and CPython does as it must, with %o',
    async (given) => {
      const result = await run(experiment, given);
      expect(result.reason).toMatch(/checks agree/);
      expect(result.verdict).toBe('pass');
    },
  );

  withPython('a real CPython was there, and was judged', async () => {
    const { checks, measurement } = await run(experiment);
    expect(checks.filter(({ basis }) => basis !== 'model').length).toBeGreaterThanOrEqual(3);
    expect(measurement?.figures.filter(({ name }) => name.startsWith('CPython')).length).toBeGreaterThan(0);
  });

  test('goes red when a page is copied, or an arena kept, that should not be', async () => {
    const { trace, facts } = await run(experiment);
    if (!facts) expect.unreachable('it ran');
    if (experiment !== arenas) {
      const wrong = await replayOnModel(trace, facts, { mutation: 'reuse-of-shared-pages' });
      expect(compareTraces(wrong, trace).some(({ pass }) => pass === false)).toBe(true);
      return;
    }
    // As if the first arena that is returned had been kept.
    const kept = trace.findIndex(({ step }) => step.op === 'unmap');
    const wrong = await replayOnModel(
      trace.filter((_, index) => index !== kept),
      facts,
    );
    const unmapped = trace[kept];
    if (!unmapped) expect.unreachable('an arena is returned');
    wrong.splice(kept, 0, unmapped);
    expect(compareTraces(wrong, trace).some(({ pass }) => pass === false)).toBe(true);
  });

  test('leaves no process and no descriptor', async () => {
    await run(experiment);
    const before = [readProcessTree(process.pid).length, readdirSync('/proc/self/fd').length];
    await run(experiment);
    expect([readProcessTree(process.pid).length, readdirSync('/proc/self/fd').length]).toEqual(before);
  });

  test('can be predicted alone', async () => {
    const params = parseParams(experiment, SMALL);
    const { claim, prediction } = await predictExperiment(experiment, params, readHostFacts(process.pid));
    expect(claim.inShort).not.toContain('CPython copied');
    expect(prediction?.figures.length).toBeGreaterThan(4);
  });
});

describe('a real CPython', () => {
  async function start(freeze: boolean): Promise<{ objects: CpythonObjects; close: () => Promise<void> }> {
    if (typeof python === 'string') expect.unreachable();
    let close: () => Promise<void> = () => Promise.resolve();
    const objects = await CpythonObjects.start(python, 20_000, freeze, (closing) => {
      close = async () => {
        await closing();
      };
      return close;
    });
    return { objects, close };
  }

  withPython('copies every page with a count by looking, and few by doing nothing or reading an array', async () => {
    const { objects, close } = await start(false);
    try {
      const all = pagesIn(objects.pages.counts);
      // 20,000 lists of 64 bytes are on at least 313 pages.
      expect(all).toBeGreaterThanOrEqual(313);
      expect((await objects.childThat('read')).counts).toBe(all);
      // Had the script not looked at its objects, the check of refcount would be red.
      expect((await objects.childThat('nothing')).counts).toBeLessThan(all / 4);
      expect(await objects.childThat('array')).toMatchObject({ array: 0 });
      expect(pagesIn(objects.array)).toBeGreaterThan(30);
    } finally {
      await close();
    }
  });

  withPython('keeps the collector from frozen objects', async () => {
    const [plain, frozen] = [await start(false), await start(true)];
    try {
      expect((await plain.objects.childThat('collect')).heads).toBe(pagesIn(plain.objects.pages.heads));
      expect((await frozen.objects.childThat('collect')).heads).toBeLessThan(pagesIn(frozen.objects.pages.heads) / 4);
    } finally {
      await plain.close();
      await frozen.close();
    }
  });
});

test('parameters that make no sense are refused', () => {
  const params = parseParams(arenas, { objects: 1000, survivors: 1001 });
  expect(() => arenas.needs(params, readHostFacts(process.pid))).toThrow(/survivors \(1001\) must not be more/);
});
