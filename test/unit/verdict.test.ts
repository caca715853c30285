import { describe, expect, test } from 'vitest';
import { enomem } from '../../lib/experiments/enomem.js';
import { defineExperiment, parseParams } from '../../lib/experiments/define.js';
import { experiments, findExperiment } from '../../lib/experiments/catalogue.js';
import { cowGrowth } from '../../lib/experiments/cow-growth.js';
import { judge, predictExperiment, whyNot } from '../../lib/experiments/run.js';
import { compareTraces, repeatable } from '../../lib/machine/compare.js';
import { modelMachine, replayOnModel } from '../../lib/machine/open.js';
import type { SystemChange } from '../../lib/machine/machine.js';
import { disturbances } from '../../lib/proc/disturbance.js';
import { renderText } from '../../lib/report/text.js';
import type { Check, ResultDocument } from '../../lib/schema/result.js';
import type { Trace } from '../../lib/schema/step.js';
import { testFacts } from '../facts.js';

describe('what wants leave to change the system', () => {
  const reason = (changes: SystemChange[], leave = {}): string => whyNot({ memoryBytes: 0, changes }, leave) ?? '';

  test.each(['overcommit', 'hugetlb', 'ksm', 'cgroup'] as const)('%s can be had in a guest instead', (change) => {
    expect(reason([change])).toMatch(/allow that with --allow-system-changes, as root, or .* with `cowlab vm run`$/);
  });

  test('swap cannot: no guest has a disk', () => {
    for (const changes of [['swap'], ['overcommit', 'swap']] as SystemChange[][]) {
      expect(reason(changes)).toMatch(/, as root \(guests of `cowlab vm run` have no disk for it\)$/);
    }
  });

  test('a fixture cannot: a guest runs experiments', () => {
    expect(reason(['overcommit'], { isExperiment: false })).toMatch(/--allow-system-changes, as root$/);
    expect(reason(['swap'], { isExperiment: false })).toMatch(/--allow-system-changes, as root$/);
  });

  test('with leave is not refused for it', () => {
    expect(whyNot({ memoryBytes: 0, changes: ['swap'] }, { allowSystemChanges: true })).toBeUndefined();
  });
});

function check(pass: boolean | null): Check {
  return { name: 'a figure', unit: 'pages', basis: 'model', expected: 1, measured: pass ? 1 : 2, tolerance: 0, pass };
}

describe('the verdict', () => {
  test('is pass only if every check that could be made agrees', () => {
    expect(judge([check(true), check(null)], []).verdict).toBe('pass');
    expect(judge([check(true), check(false)], []).verdict).toBe('fail');
    expect(judge([check(true), check(false)], []).reason).toBe('a figure: expected 1 pages, measured 2');
  });

  test('is inconclusive on a disturbed machine, whether the checks agree or not', () => {
    for (const pass of [true, false]) {
      const { verdict, reason } = judge([check(pass)], ['pages were swapped out (pswpout +3)']);
      expect(verdict).toBe('inconclusive');
      expect(reason).toMatch(/swapped out/);
    }
  });

  test('is inconclusive if nothing could be checked', () => {
    expect(judge([check(null)], []).verdict).toBe('inconclusive');
    expect(judge([], []).verdict).toBe('inconclusive');
  });

  test('swapping disturbs, and other activity does not', () => {
    expect(disturbances({ pswpout: 5, pgfault: 1 }, { pswpout: 5, pgfault: 900 })).toEqual([]);
    expect(disturbances({ pswpout: 5 }, { pswpout: 8 })).toEqual(['pages were swapped out (pswpout +3)']);
    expect(disturbances({}, { thp_collapse_alloc: 1 })).toEqual([]);
    expect(disturbances({}, { thp_collapse_alloc: 1 }, { hasHugePages: true })).toEqual([
      'khugepaged made base pages a huge page (thp_collapse_alloc +1)',
    ]);
    expect(disturbances({ oom_kill: 1 }, { oom_kill: 2 }, { meant: { oom_kill: 1 } })).toEqual([]);
  });

  test('what KSM does disturbs whoever has mergeable memory, and nobody else', () => {
    const before = { ksm_pages_sharing: 7, ksm_zero_pages: 1, ksm_full_scans: 3, cow_ksm: 2 };
    const after = { ksm_pages_sharing: 9, ksm_zero_pages: 2, ksm_full_scans: 4, cow_ksm: 3 };
    expect(disturbances(before, after)).toEqual([]);
    expect(disturbances(before, after, { hasMergeable: true })).toEqual([
      'KSM merged pages (ksm_pages_sharing +2)',
      'KSM put the zero page in place of pages (ksm_zero_pages +1)',
      'KSM went through all mergeable memory (ksm_full_scans +1)',
      'pages that KSM had merged were copied (cow_ksm +1)',
    ]);
    expect(disturbances(after, before, { hasMergeable: true }), 'what others give up').toEqual([]);
  });

  test('file pages that were reclaimed disturb whoever has read them again, and nobody else', () => {
    const [before, after] = [{ workingset_refault_file: 5 }, { workingset_refault_file: 9 }];
    expect(disturbances(before, after, { majorFaults: 1 })).toEqual([
      'pages of a file were reclaimed and read again (major faults: 1)',
    ]);
    expect(disturbances(before, after)).toEqual([]);
    // A major fault without them is a finding.
    expect(disturbances(before, before, { majorFaults: 1 })).toEqual([]);
  });
});

async function recorded(): Promise<Trace> {
  const machine = modelMachine(testFacts);
  const region = await machine.root.map({ pages: 20 });
  await machine.root.write(region);
  await machine.root.fork();
  await machine.observe('forked');
  return machine.trace;
}

/** The first region of the second process of the last observation. */
function childRegion(trace: Trace) {
  const region = trace.at(-1)?.outcome.observation?.processes[1]?.regions[0];
  if (!region) throw new Error('there is an observation');
  return region;
}

describe('a comparison of traces', () => {
  test('of the same program finds no difference, and leaves what is unknown unjudged', async () => {
    const checks = compareTraces(await recorded(), await recorded());
    expect(checks.filter(({ pass }) => pass === false)).toEqual([]);
    expect(checks.filter(({ pass }) => pass === null).map(({ name }) => name)).toEqual([
      'forked: root r1: Referenced',
      'forked: root.1 r1: Referenced',
    ]);
  });

  test.each<[string, (trace: Trace) => void]>([
    ['pages in another state', (trace) => (childRegion(trace).states = [[20, 'exclusive']])],
    ['pages in another state', (trace) => (childRegion(trace).states = [[19, 'shared']])],
    ['Pss', (trace) => (childRegion(trace).smapsKb['Pss'] = 41)],
    ['shared', (trace) => (childRegion(trace).counts['shared'] = 19)],
    ['length', (trace) => (childRegion(trace).pages = 21)],
    [
      'VMAs unlike the predicted',
      (trace) => {
        const [vma] = childRegion(trace).vmas;
        if (vma) vma.accounted = false;
      },
    ],
    ['is alive', (trace) => trace.at(-1)?.outcome.observation?.processes.pop()],
    ['minor faults', (trace) => trace[1] && (trace[1].outcome.minorFaults = 21)],
    ['fork ENOMEM seen', (trace) => trace[2] && (trace[2].outcome = { failure: { code: 'ENOMEM', syscall: 'fork' } })],
    ['the programs went the same way', (trace) => trace.splice(2, 1)],
  ])('notices another figure: %s', async (name, change) => {
    const changed = structuredClone(await recorded());
    change(changed);
    const failed = compareTraces(await recorded(), changed).filter(({ pass }) => pass === false);
    expect(failed).toHaveLength(1);
    expect(failed[0]?.name).toContain(name);
  });

  test('of two measured runs does not ask accessed bits to repeat', async () => {
    const [first, second] = [structuredClone(await recorded()), structuredClone(await recorded())];
    childRegion(first).smapsKb['Referenced'] = 4;
    childRegion(second).smapsKb['Referenced'] = 8;
    const expected = repeatable(first, await replayOnModel(first, testFacts));
    const failed = compareTraces(expected, second, 'comparison').filter(({ pass }) => pass === false);
    expect(failed).toEqual([]);
  });
});

describe('a report', () => {
  async function result(changes: Partial<ResultDocument> = {}): Promise<ResultDocument> {
    const params = parseParams(cowGrowth, { size: 4096 * 100 });
    return { ...(await predictExperiment(cowGrowth, params, testFacts)), ...changes };
  }

  test('shows each failed check with what was expected and measured', async () => {
    const text = renderText(await result({ verdict: 'fail', reason: 'a reason', checks: [check(false)] }));
    expect(text).toContain('  - a figure: expected 1 pages, measured 2');
    expect(text).toContain('FAIL: a reason');
  });

  test('has escape codes only where colour is asked for', async () => {
    expect(renderText(await result())).not.toContain('\u001b');
    expect(renderText(await result(), { color: true })).toContain('\u001b');
  });

  test.each(experiments)('of $name fits into 80 columns', async (experiment) => {
    const document = await predictExperiment(experiment, parseParams(experiment, {}), testFacts);
    const lines = renderText(document).split('\n');
    expect(lines.filter((line) => line.length > 80)).toEqual([]);
  });

  test.each(['eighteen-gb', 'read-only', 'cow-growth'])('of %s fits into 80 columns at 2 GiB too', async (name) => {
    const experiment = findExperiment(name);
    if (!experiment) expect.unreachable('it is in the catalogue');
    const rounds = name === 'read-only' ? { rounds: 1 } : {};
    const params = parseParams(experiment, { size: 2 ** 31, children: 8, ...rounds });
    const lines = renderText(await predictExperiment(experiment, params, testFacts)).split('\n');
    expect(lines.filter((line) => line.length > 80)).toEqual([]);
  });

  test('has the names of lines that end together beside them, in as many rows as it takes', async () => {
    const document = await result();
    const names = ['ends there', 'ends there too', 'and so does this', 'below', 'below all', 'at the very bottom'];
    const y = (end: number) => [0, end];
    const series = names.map((name, index) => ({ name, y: y(index < 3 ? 8 : 0) }));
    const plots = [{ title: 'Chart', xLabel: 'x', yLabel: 'y', x: [0, 1], series }];
    const [, chart = ''] = renderText({ ...document, prediction: { figures: [], tables: [], notes: [], plots } }).split(
      'Chart\n',
    );
    const [shown = ''] = chart.split('\n\n');
    const beside = shown.split('\n').map((line) => line.slice(55));
    expect(beside).toEqual([
      'ends there =',
      'ends there too =',
      'and so does this',
      ...['', '', '', '', ''],
      'below = below all =',
      'at the very bottom',
    ]);
  });

  test('shows both tables where prediction and measurement differ', async () => {
    const document = await result();
    const { prediction } = document;
    if (!prediction) expect.unreachable('there is a prediction');
    const measurement = structuredClone(prediction);
    expect(renderText({ ...document, measurement })).toContain('measured, exactly as predicted');
    measurement.tables[0]?.rows[0]?.splice(0, 1, 'other');
    const text = renderText({ ...document, measurement });
    expect(text).toContain('Share by share: measured\n');
    expect(text).toContain('Share by share: predicted\n');
  });
});

describe('experiments', () => {
  test('say which part of a definition is missing or wrong', () => {
    const whole = {
      name: 'mine',
      title: 'mine',
      claim: { text: 'a', source: 'b' },
      params: {},
      needs: () => ({ memoryBytes: 0 }),
      run: () => Promise.resolve({ figures: [], tables: [], plots: [], notes: [] }),
      conclude: () => ({ outcome: 'holds' as const, inShort: '' }),
    };
    expect(() => defineExperiment(whole)).not.toThrow();
    for (const part of ['name', 'title', 'claim', 'params', 'needs', 'run', 'conclude']) {
      expect(() => defineExperiment({ ...whole, [part]: undefined })).toThrow(new RegExp(`^${part} must`));
    }
  });

  test('predict for any host: with half of the memory, half of the threshold', async () => {
    const facts = { ...testFacts, memTotalPages: testFacts.memTotalPages / 2 };
    const { prediction } = await predictExperiment(enomem, parseParams(enomem, {}), facts);
    expect(prediction?.figures[0]?.value).toBe(facts.memTotalPages + facts.swapTotalPages);
  });
});
