/** `cowlab explain NAME`: the claim, the mechanism, the formula, how to read the figures, what to do. */
import { EXPLANATIONS, type Explanation } from '../experiments/explanations.js';
import { paint, wrap, type CommandOutput, type TextOptions } from '../report/paragraph.js';
import { UsageError } from './output.js';

/** One explanation as text of 80 columns. */
export function explainReport(explanation: Explanation, options: TextOptions = {}): string {
  const { name, question, claim, mechanism, formula, figures, practice } = explanation;
  const heading = (text: string): string => paint('bold', text, options);
  const width = Math.max(...figures.map(([figure]) => figure.length)) + 4;
  return [
    heading(`${name}: ${question}`),
    '',
    heading('The claim'),
    wrap(claim.text, '  '),
    `  ${claim.source}`,
    wrap(claim.fate, '  '),
    '',
    heading('The mechanism'),
    mechanism.map((paragraph) => wrap(paragraph, '  ')).join('\n\n'),
    '',
    heading('The formula'),
    ...formula.lines.map((line) => `    ${line}`.trimEnd()),
    ...formula.notes.map((note) => wrap(note, '  ')),
    '',
    heading('How to read the figures'),
    ...figures.map(([figure, meaning]) => wrap(meaning, `  ${figure.padEnd(width - 2)}`, ' '.repeat(width))),
    '',
    heading('What to do in practice'),
    ...practice.map((advice) => wrap(advice, '  - ', '    ')),
  ].join('\n');
}

/**
 * @param name Of an experiment.
 * @throws UsageError with the names there are, when there is none of this name.
 */
export function runExplain(name: string, options: TextOptions = {}): CommandOutput {
  const explanation = EXPLANATIONS.find((candidate) => candidate.name === name);
  if (explanation) return { text: explainReport(explanation, options), json: explanation, exitCode: 0 };
  const names = EXPLANATIONS.map((candidate) => candidate.name);
  throw new UsageError(`there is no explanation of '${name}'; there is one of: ${names.join(', ')}`);
}
