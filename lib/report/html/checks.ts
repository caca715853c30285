/** What was expected and what was measured, and where each expectation comes from. */
import type { Check, ResultDocument } from '../../schema/result.js';
import { formatCount } from '../../schema/units.js';
import { differenceText, figureText, reasonOf } from '../wording.js';
import { html } from './markup.js';
import type { Markup } from './markup.js';
import { table } from './table.js';

const BASES: Record<Check['basis'], string> = {
  model: 'the reference model',
  anchor: 'computed by hand',
  bound: 'a bound',
  comparison: 'another measurement',
};

/** Rows in sight, and rows behind "more"; the file to download has all of them. */
const IN_SIGHT = 24;
const MORE = 200;

const COLUMNS = ['check', 'result', 'expected', 'measured', 'difference', 'unit', 'basis'];

function judgement(pass: Check['pass']): string {
  if (pass === null) return '? not known';
  return pass ? '✓ agrees' : '✗ differs';
}

function rowOf({ name, unit, basis, expected, measured, pass }: Check): string[] {
  const why = reasonOf(expected) ?? reasonOf(measured) ?? '';
  const figures = [figureText(expected), figureText(measured), differenceText(expected, measured)];
  return [name, judgement(pass), ...figures, unit, basis, why];
}

function checksTable(caption: string, checks: readonly Check[]): Markup | undefined {
  const anyReason = checks.some(({ expected, measured }) => reasonOf(expected) ?? reasonOf(measured));
  const columns = anyReason ? [...COLUMNS, 'why'] : COLUMNS;
  return table({ caption, columns, rows: checks.map(rowOf), textColumns: [0, 1, 5, 6, 7] });
}

function summary(checks: readonly Check[]): Markup | undefined {
  const rows = (Object.keys(BASES) as Check['basis'][]).flatMap((basis) => {
    const own = checks.filter((check) => check.basis === basis);
    const count = (pass: Check['pass']): number => own.filter((check) => check.pass === pass).length;
    return own.length === 0 ? [] : [[`${basis}: ${BASES[basis]}`, own.length, count(true), count(false), count(null)]];
  });
  const columns = ['expected by', 'checks', 'agree', 'differ', 'not known'];
  return table({ caption: 'Checks by the basis of the expectation', columns, rows });
}

/** What differs comes first, then what an experiment names itself, then each figure of each step. */
function byInterest(checks: readonly Check[]): Check[] {
  const rank = ({ pass, basis, name }: Check): number => {
    if (pass === false) return 0;
    if (basis !== 'model') return 1;
    return /^step \d+ |: root[.\d]* r\d+: /.test(name) ? 3 : 2;
  };
  return [...checks].sort((a, b) => rank(a) - rank(b));
}

export function checksSection({ checks }: ResultDocument): Markup | undefined {
  if (checks.length === 0) return undefined;
  const sorted = byInterest(checks);
  const failed = checks.filter(({ pass }) => pass === false).length;
  const inSight = Math.min(MORE, Math.max(IN_SIGHT, failed));
  const more = sorted.slice(inSight, inSight + MORE);
  const shown = Math.min(sorted.length, inSight);
  const left = sorted.length - shown - more.length;
  return html`<section>
    <h3>Checks</h3>
    ${summary(checks)}
    ${checksTable(`Expected and measured (${formatCount(shown)} of ${formatCount(checks.length)})`, sorted.slice(0, shown))}
    ${
      more.length > 0
        ? html`<details class="more">
            <summary>${formatCount(more.length)} more checks</summary>
            ${checksTable('Expected and measured, continued', more)}
          </details>`
        : undefined
    }
    ${left > 0 ? html`<p class="hint">${formatCount(left)} others are in the file of all checks, below.</p>` : undefined}
  </section> `;
}
