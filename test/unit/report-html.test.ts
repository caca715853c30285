/** Reports as HTML, without a browser: what must be in the text, and what must not. */
import { decode } from 'fast-png';
import { describe, expect, test } from 'vitest';
import { advice } from '../../lib/experiments/advice.js';
import { parseParams } from '../../lib/experiments/define.js';
import { predictExperiment } from '../../lib/experiments/run.js';
import { renderHtml } from '../../lib/report/html/document.js';
import { html } from '../../lib/report/html/markup.js';
import { legendImage, mapImage } from '../../lib/report/html/page-map-image.js';
import { cellsOf, mostTelling, pageMapsOf, pagesPerCellOf, spread } from '../../lib/report/page-map.js';
import type { StateRuns } from '../../lib/schema/step.js';
import { testFacts } from '../facts.js';
import { HOSTILE_TEXT, hostileResult, measuredResult, predictedResult } from '../results.js';

describe('a report', () => {
  test('fetches nothing: no address in it is one of a network, but for links', async () => {
    const text = renderHtml([await measuredResult()]);
    const addresses = [...text.matchAll(/(?:src|href)="([^"]*)"/g)].map(([, address = '']) => address);
    const others = addresses.filter((address) => !/^data:|^#/.test(address));
    expect(others).toEqual(['https://stackoverflow.com/questions/10721915']);
    expect(text).not.toMatch(/@import|url\(/);
  });

  test('lets no text of a result become markup', async () => {
    const text = renderHtml([await hostileResult(), await hostileResult()]);
    expect(text.match(/<script/g)).toHaveLength(1);
    expect(text).not.toContain('<img src=x');
    expect(text).not.toMatch(/href="javascript:/);
    expect(text).toContain('&lt;script&gt;');
    expect(HOSTILE_TEXT).toContain('<script>');
  });

  test('says whether the kernel or the model is shown', async () => {
    expect(renderHtml([await measuredResult()])).toContain('measured on the kernel, by pagemap');
    expect(renderHtml([await predictedResult()])).toContain('the prediction of the model; nothing was measured');
  });

  test('of a result that was skipped shows its reason', async () => {
    const result = await predictedResult();
    delete result.prediction;
    const skipped = {
      ...result,
      trace: [],
      samples: [],
      checks: [],
      verdict: 'skip' as const,
      reason: 'too little RAM',
    };
    const text = renderHtml([skipped]);
    expect(text).toContain('too little RAM');
    expect(text).not.toContain('Page maps');
  });

  test('shows the checks that differ first, with the difference', async () => {
    const result = await measuredResult(({ trace }) => {
      const region = trace.at(-1)?.outcome.observation?.processes[0]?.regions[0];
      if (region) region.smapsKb['Locked'] = 4;
    });
    const text = renderHtml([result]);
    const row = /<tr>(?:(?!<\/tr>)[^])*✗ differs(?:(?!<\/tr>)[^])*<\/tr>/.exec(text)?.[0] ?? '';
    expect(row.replace(/<[^>]*>/g, ' ').replace(/\s+/g, ' ')).toContain(
      'share 2: root r1: Locked ✗ differs 0 4 4 kB model',
    );
  });
});

test('what is put into markup is escaped, and markup is not', () => {
  const inner = html`<b>${'<&"\''}</b>`;
  expect(html`<p title="${'"'}">${inner}${[1, undefined]}</p>`.text).toBe(
    '<p title="&quot;"><b>&lt;&amp;&quot;&#39;</b>1</p>',
  );
});

describe('a page map', () => {
  test('has a cell for each page of a small region', () => {
    const states: StateRuns = [
      [2, 'exclusive'],
      [1, 'shared'],
    ];
    expect(cellsOf(states, 1)).toEqual([[['exclusive', 1]], [['exclusive', 1]], [['shared', 1]]]);
  });

  test('of a large region says of each cell how many pages are what, and loses none', () => {
    const states: StateRuns = [
      [5, 'exclusive'],
      [1, 'zero'],
      [6, 'shared'],
      [1, 'exclusive'],
    ];
    expect(cellsOf(states, 4)).toEqual([
      [['exclusive', 4]],
      [
        ['shared', 2],
        ['exclusive', 1],
        ['zero', 1],
      ],
      [['shared', 4]],
      [['exclusive', 1]],
    ]);
    expect([1, 1024, 1025, 65_536].map(pagesPerCellOf)).toEqual([1, 1, 2, 64]);
  });

  test('is of what was measured, and says how many pages the model has otherwise', async () => {
    const result = await measuredResult(({ trace }) => {
      const region = trace.at(-1)?.outcome.observation?.processes[1]?.regions[0];
      if (region) region.states = [[1, 'zero'], [region.pages - 1, 'exclusive']]; // prettier-ignore
    });
    const [map] = pageMapsOf(result);
    const last = map?.steps.at(-1)?.maps ?? [];
    expect(last.map(({ unlikeModel }) => unlikeModel)).toEqual([0, 1, 0]);
    expect(last[1]?.pagesBy.zero).toBe(1);
    expect(map?.steps[0]?.maps).toHaveLength(1);
  });

  test('tells huge pages where all or none are, and says so where only some are', async () => {
    const withHuge = (kb: number) =>
      measuredResult(({ trace }) => {
        const region = trace.at(-1)?.outcome.observation?.processes[0]?.regions[0];
        if (region) region.smapsKb['AnonHugePages'] = kb;
      });
    const seen = [];
    for (const kb of [0, 2048, 8192]) seen.push(pageMapsOf(await withHuge(kb))[0]?.steps.at(-1)?.maps[0]?.huge);
    expect(seen).toEqual(['none', 'some', 'all']);
  });

  test('every state has a picture of its own, in grey too', () => {
    const states = ['exclusive', 'shared', 'zero', 'swapped', 'not-present', 'unknown'] as const;
    const pictures = states.map((state) => {
      const { address } = legendImage([[state, 1]]);
      const { data } = decode(Buffer.from(address.split(',')[1] ?? '', 'base64'));
      // Where there is ink, and how much of it: no colour.
      return [...data].filter((_, index) => index % 4 === 3).join(' ');
    });
    expect(new Set(pictures).size).toBe(states.length);
  });

  test('is a PNG of 32 cells in a row', async () => {
    const map = pageMapsOf(await measuredResult())[0]?.steps[0]?.maps[0];
    if (!map) throw new Error('no map');
    expect(map.pagesPerCell).toBe(2);
    const { width, height, address } = mapImage(map);
    expect([width, height]).toEqual([256, 256]);
    const png = decode(Buffer.from(address.split(',')[1] ?? '', 'base64'));
    expect([png.width, png.height]).toEqual([256, 256]);
  });

  test('is drawn first of regions with kinds of pages that no other drawn one has, then with other pictures', async () => {
    const params = parseParams(advice, { size: '64KiB', swap: 'true' });
    const result = await predictExperiment(advice, params, { ...testFacts, kernelVersion: [6, 18], hasKsm: true });
    const maps = pageMapsOf(result);
    const drawn = (count: number): string[] => mostTelling(maps, count).map(({ region }) => region);
    // Without advice; WIPEONFORK, which has pages that are not present; swap; and DONTFORK, which no child has.
    expect([1, 2, 3, 4].map(drawn)).toEqual([['r1'], ['r1', 'r3'], ['r1', 'r3', 'r7'], ['r1', 'r2', 'r3', 'r7']]);
    expect(drawn(9)).toEqual(maps.map(({ region }) => region));
    const text = renderHtml([result]).replace(/\s+/g, ' ');
    expect([...text.matchAll(/<h4>Region (\w+):/g)].map(([, region]) => region)).toEqual(drawn(4));
    expect(text).toContain(
      'Of 7 regions those 4 are drawn whose pages have most to tell; 3 more are in the files below.',
    );
    expect(renderHtml([await measuredResult()])).not.toContain('are drawn whose');
  });

  test('of many steps shows some, the first and the last among them', () => {
    const all = Array.from({ length: 100 }, (_, index) => index);
    expect(spread(all, 4)).toEqual([0, 33, 66, 99]);
    expect(spread([1, 2], 4)).toEqual([1, 2]);
  });
});
