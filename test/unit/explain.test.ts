import { stripVTControlCharacters } from 'node:util';
import { describe, expect, it } from 'vitest';
import { explainReport, runExplain } from '../../lib/cli/explain.js';
import { UsageError } from '../../lib/cli/output.js';
import { wrap } from '../../lib/report/paragraph.js';
import { experiments } from '../../lib/experiments/catalogue.js';
import { EXPLANATIONS } from '../../lib/experiments/explanations.js';

describe('explanations', () => {
  it('are there for each experiment, in the order of the list', () => {
    expect(EXPLANATIONS.map(({ name }) => name)).toEqual(experiments.map(({ name }) => name));
  });

  it.each(EXPLANATIONS.map((explanation) => [explanation.name, explanation] as const))(
    '%s has every part, is 80 columns wide and names its source',
    (name, explanation) => {
      const report = explainReport(explanation);
      for (const line of report.split('\n')) expect(line.length).toBeLessThanOrEqual(80);
      const headings = [
        'The claim',
        'The mechanism',
        'The formula',
        'How to read the figures',
        'What to do in practice',
      ];
      for (const heading of headings) expect(report).toContain(`\n${heading}\n`);
      expect(report.startsWith(`${name}: `)).toBe(true);
      expect(report).toContain(explanation.claim.source);
      expect(explanation.claim.source).toMatch(/^https:\/\//);
      expect(report).not.toContain('\u001b');
      for (const list of [
        explanation.mechanism,
        explanation.formula.lines,
        explanation.figures,
        explanation.practice,
      ]) {
        expect(list.length).toBeGreaterThan(0);
      }
    },
  );

  it('colour only the headings, and only when asked', () => {
    const { text } = runExplain('enomem', { color: true });
    expect(text).toContain('\u001b[1mThe claim\u001b[22m');
    expect(stripVTControlCharacters(text)).toBe(runExplain('enomem').text);
  });
});

describe('runExplain', () => {
  it('answers with exit code 0 and the data', () => {
    expect(runExplain('cow-growth')).toMatchObject({ exitCode: 0, json: { name: 'cow-growth' } });
  });

  it('calls an unknown name bad input, and says the names there are', () => {
    expect(() => runExplain('enomen')).toThrow(UsageError);
    expect(() => runExplain('enomen')).toThrow(/'enomen'.*enomem, eighteen-gb/);
  });
});

describe('wrap', () => {
  it('breaks at spaces, indents, and leaves a long word whole', () => {
    expect(wrap('aa bb cc', '- ', '  ', 7)).toBe('- aa bb\n  cc');
    expect(wrap('a verylongword b', '', '', 5)).toBe('a\nverylongword\nb');
    expect(wrap('')).toBe('');
  });
});
