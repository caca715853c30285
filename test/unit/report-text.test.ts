/** Reports for programs and for pull requests: CSV and Markdown. */
import { describe, expect, test } from 'vitest';
import { checksCsv, renderCsv, samplesCsv } from '../../lib/report/csv.js';
import { compareAll } from '../../lib/report/comparison.js';
import { renderMarkdown } from '../../lib/report/markdown.js';
import { differenceText } from '../../lib/report/wording.js';
import { HOSTILE_TEXT, hostileResult, measuredResult, predictedResult } from '../results.js';

describe('CSV', () => {
  test('has a row for each sample, and says of which result it is', async () => {
    const results = [await measuredResult(), await predictedResult({ children: '1' })];
    const [head = '', ...rows] = renderCsv(results).trimEnd().split('\n');
    const columns = head.split(',');
    expect(columns.slice(0, 5)).toEqual(['result number', 'experiment', 'kernel', 'started', 'source']);
    expect(rows).toHaveLength(results.reduce((total, { samples }) => total + samples.length, 0));
    const last = rows.at(-1)?.split(',') ?? [];
    expect(last[columns.indexOf('result number')]).toBe('2');
    expect(last[columns.indexOf('source')]).toBe('predicted');
    expect(last[columns.indexOf('param children')]).toBe('1');
  });

  test('of an experiment without samples has a row for each region that was observed', async () => {
    const result = await measuredResult();
    const regions = result.trace.flatMap(
      ({ outcome }) => outcome.observation?.processes.flatMap((one) => one.regions) ?? [],
    );
    const rows = samplesCsv({ ...result, samples: [] })
      .trimEnd()
      .split('\n');
    expect(rows[0]).toMatch(/^step,process,region,exclusive \(pages\)/);
    expect(rows).toHaveLength(1 + regions.length);
  });

  test('keeps commas, quotes and line ends inside of a cell, and a name that is taken beside ours', async () => {
    const result = { ...(await measuredResult()), samples: [{ kernel: 'a,"b"\nc' }] };
    const text = renderCsv([result]);
    expect(text).toContain(',sample kernel\n');
    expect(text).toContain(',"a,""b""\nc"\n');
  });

  test('of checks gives the limits of ranges, and nothing for what is not known', () => {
    const shared = { unit: 'kB', basis: 'model' as const, tolerance: 0 as const };
    const expected = { min: 1, max: 3, why: 'it depends' };
    const text = checksCsv([{ ...shared, name: 'x', expected, measured: { unknown: 'who knows' }, pass: null }]);
    expect(text.split('\n')[1]).toBe('x,kB,model,1,3,,,unknown');
  });
});

describe('Markdown', () => {
  test('says the claim, the outcome, the verdict and the tables', async () => {
    const result = await measuredResult();
    const text = renderMarkdown([result]);
    expect(text).toContain(`# cow-growth: ${result.title}`);
    expect(text).toContain('<https://stackoverflow.com/questions/10721915>');
    expect(text).toContain('The claim **holds**.');
    expect(text).toContain('**PASS**: ');
    expect(text).toContain('| forked | 0 |');
  });

  test('names the checks that failed, with the difference', async () => {
    const result = await measuredResult(({ trace }) => {
      const observation = trace.at(-1)?.outcome.observation;
      const region = observation?.processes[0]?.regions[0];
      if (region) region.smapsKb['Pss'] = 5;
    });
    const predicted = (await predictedResult()).trace.at(-1)?.outcome.observation?.processes[0]?.regions[0]?.smapsKb[
      'Pss'
    ];
    const difference = (5 - (predicted as number)).toLocaleString('en-US');
    expect(renderMarkdown([result])).toMatch(
      new RegExp(`\\| share 2: root r1: Pss \\| [\\d,]+ \\| 5 \\| ${difference} \\| kB \\| model \\|`),
    );
  });

  test('lets no text of a result become markup, a link or a mention', async () => {
    const text = renderMarkdown([await hostileResult()]);
    expect(text).not.toMatch(/<(script|img)/);
    expect(text).not.toMatch(/\(?<?javascript:[^&]*>/);
    expect(text).not.toContain('@someone');
    expect(text).toContain('&lt;script&gt;');
    for (const line of text.split('\n').filter((one) => one.startsWith('| ') && one.includes('harmed'))) {
      expect(line.replace(/\\\|/g, '').match(/\|/g)?.length).toBeLessThan(10);
    }
    expect(HOSTILE_TEXT).toContain('@someone');
  });
});

describe('a comparison', () => {
  test('shows what differs among results of one experiment, and counts what is the same', async () => {
    const results = [await measuredResult(), await measuredResult(undefined, { children: '1' })];
    const [comparison] = compareAll(results);
    expect(comparison?.conditions).toEqual([{ name: 'children', unit: '', values: ['2', '1'] }]);
    expect(comparison?.figures).toContainEqual({
      name: '100%: growth of the sum of Pss',
      unit: 'kB',
      values: ['16,384', '8,192'],
    });
    expect(comparison?.sameFigures).toBeGreaterThan(0);
    expect(renderMarkdown(results)).toContain('| children | 2 | 1 |');
  });

  test('is of results of the same experiment only', async () => {
    const result = await measuredResult();
    expect(compareAll([result, { ...result, experiment: 'another' }])).toEqual([]);
  });
});

test('a difference from a range is how far a figure lies outside of it', () => {
  const range = { min: 10, max: 20, why: 'it depends' };
  expect([5, 15, 21].map((measured) => differenceText(range, measured))).toEqual(['-5', '0', '1']);
  expect(differenceText({ unknown: 'who knows' }, 5)).toBe('-');
  expect(differenceText(5, 3)).toBe('-2');
});
