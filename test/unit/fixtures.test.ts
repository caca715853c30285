import { describe, expect, test } from 'vitest';
import { fixtures, findFixture } from '../../lib/fixtures/catalogue.js';
import { namePages, parts } from '../../lib/fixtures/define.js';
import { recordedFixture } from '../../lib/fixtures/recorded.js';
import { totalFrames } from '../../lib/fixtures/truth.js';
import { parseParams } from '../../lib/experiments/define.js';
import { listFixtures } from '../../lib/cli/hold.js';
import type { Trace } from '../../lib/schema/step.js';
import { testFacts } from '../facts.js';

describe('the catalogue', () => {
  test('holds each kind of memory once, under a name of its own', () => {
    expect(fixtures.map(({ name }) => name)).toEqual([
      ...['fresh', 'forked', 'half-written', 'disjoint-writers', 'parent-writer', 'nested', 'leak'],
      ...['shared', 'memfd', 'zero-page', 'huge-pages', 'dontfork', 'wipeonfork'],
      ...['many-vmas', 'deep-tree', 'enomem'],
    ]);
  });

  test('fits 80 columns when it is listed', () => {
    for (const line of listFixtures().text.split('\n')) expect(line.length).toBeLessThanOrEqual(80);
  });

  test('names what there is when asked for something else', () => {
    expect(() => findFixture('half')).toThrow(/there is no fixture half; fixtures: fresh, forked, half-written/);
  });

  test('refuses a size that is no whole number of pages, or of huge pages', () => {
    for (const name of ['forked', 'huge-pages']) {
      const fixture = findFixture(name);
      expect(() => fixture.needs(parseParams(fixture, { size: 5000 }), testFacts)).toThrow(/size must be a multiple/);
    }
  });

  test('enomem needs the heuristic mode of a kernel that judges by one VMA', () => {
    const enomem = findFixture('enomem');
    expect(enomem.needs({}, { ...testFacts, overcommitMode: 0, kernelVersion: [5, 2] }).lacking).toBeUndefined();
    expect(enomem.needs({}, { ...testFacts, overcommitMode: 1 }).lacking).toMatch(/vm.overcommit_memory is 1/);
    expect(enomem.needs({}, { ...testFacts, overcommitMode: 0, kernelVersion: [5, 1] }).lacking).toMatch(/before 5.2/);
  });
});

describe('shares', () => {
  test('cover a range without gap or overlap, also where there are more of them than pages', () => {
    for (const [pages, count] of [
      [10, 3],
      [3, 10],
      [0, 2],
    ] as const) {
      let next = 5;
      for (const part of parts({ first: 5, pages }, count)) {
        expect(part.first).toBe(next);
        next += part.pages;
      }
      expect(next).toBe(5 + pages);
    }
  });

  test('are called by their pages', () => {
    const names = [0, 1, 2].map((pages) => namePages({ first: 7, pages }));
    expect(names).toEqual(['no page', 'page 7', 'pages 7 to 8']);
  });
});

describe('frames in total', () => {
  test('are the sum where no two regions map one object', () => {
    expect(totalFrames({ r1: 5, r2: 7 }, new Map([['r2', 'o1']]))).toBe(12);
  });

  test('are bounded where two do: they may have all pages in common, or none', () => {
    const objectOf = new Map([
      ['r2', 'o1'],
      ['r3', 'o1'],
    ]);
    expect(totalFrames({ r1: 5, r2: 7, r3: 2 }, objectOf)).toMatchObject({ min: 12, max: 14 });
  });
});

describe('a saved trace', () => {
  const trace: Trace = [
    { step: { op: 'fork', process: 'root', child: 'root.1' }, outcome: {} },
    { step: { op: 'observe', label: 'forked' }, outcome: {} },
    { step: { op: 'exit', process: 'root.1', code: 0 }, outcome: {} },
  ];

  test('is held at each observation, and at its end', () => {
    const fixture = recordedFixture({ experiment: 'tree', trace });
    expect(parseParams(fixture, { moment: 2 })).toEqual({ moment: 2 });
    expect(() => parseParams(fixture, { moment: 3 })).toThrow(/moment must be a whole number from 1 to 2/);
  });

  test('without steps, and what is none, is refused', () => {
    expect(() => recordedFixture({ experiment: 'oom', trace: [] })).toThrow(/oom holds no steps/);
    expect(() => recordedFixture({} as never)).toThrow(TypeError);
  });

  test('that changes the system says so', () => {
    const changing: Trace = [{ step: { op: 'hugetlb', pages: 1 }, outcome: {} }];
    expect(recordedFixture({ experiment: 'x', trace: changing }).needs({}, testFacts).changes).toEqual(['hugetlb']);
  });
});
