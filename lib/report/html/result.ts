/** One result: from the question to the raw samples. */
import { formatCount } from '../../schema/units.js';
import type { ResultDocument, Verdict } from '../../schema/result.js';
import { OUTCOMES, environmentRows, headlineTable, tablesOf, verdictText } from '../wording.js';
import { checksSection } from './checks.js';
import { downloadsSection } from './downloads.js';
import { html } from './markup.js';
import type { Markup } from './markup.js';
import { pageMapSection } from './page-map.js';
import { plotsSection } from './plots.js';
import { table } from './table.js';

/** A sign beside the colour and the word. */
const SIGNS: Record<Verdict, string> = { pass: '✓', fail: '✗', inconclusive: '?', skip: '–' };

/** A source that is a web address becomes a link. Any other scheme could do something, and stays text. */
function sourceLink(source: string): Markup {
  if (!/^https?:\/\//i.test(source)) return html`<cite>${source}</cite>`;
  return html`<cite><a href="${source}" rel="noreferrer noopener">${source}</a></cite>`;
}

export function verdictBadge(verdict: Verdict): Markup {
  return html`<span class="verdict ${verdict}"><span aria-hidden="true">${SIGNS[verdict]}</span> ${verdict}</span>`;
}

/** "Linux 6.18 x64, 27 November 2026" for under a title. */
export function provenance({ environment }: ResultDocument): string {
  const day = environment.startedAt.slice(0, 16).replace('T', ' ');
  const guest = environment.virtualMachine ? ', in a virtual machine' : '';
  return `Linux ${environment.kernel} ${environment.arch}${guest}, ${day} UTC`;
}

function findingsSection(result: ResultDocument): Markup | undefined {
  const headline = headlineTable(result);
  const tables = tablesOf(result);
  const notes = (result.measurement ?? result.prediction)?.notes ?? [];
  if (!headline && tables.length === 0 && notes.length === 0) return undefined;
  return html`<section>
    <h3>What was found</h3>
    ${headline && table({ ...headline, caption: headline.title, textColumns: [0, 3] })}
    ${tables.map((one) => table({ caption: one.title, columns: one.columns, rows: one.rows }))}
    ${
      notes.length > 0
        ? html`<ul class="notes">
            ${notes.map((note) => html`<li>${note}</li>`)}
          </ul>`
        : undefined
    }
  </section> `;
}

function environmentSection(result: ResultDocument): Markup {
  const rows = environmentRows(result);
  return html`<section>
    <h3>Where and with what</h3>
    ${table({ caption: 'Environment and parameters', columns: ['condition', 'value'], rows, textColumns: [0, 1] })}
  </section> `;
}

/** @param number Of the result in this report, from 1. */
export function resultSection(result: ResultDocument, number: number): Markup {
  const { experiment, title, claim, verdict } = result;
  const id = `result-${formatCount(number)}`;
  return html`<article id="${id}" aria-labelledby="${id}-title">
    <header>
      <p class="kicker">${experiment} · ${provenance(result)}</p>
      <h2 id="${id}-title">${title}</h2>
      <blockquote>
        <p><span class="label">Claim</span> ${claim.text}</p>
        <p>${sourceLink(claim.source)}</p>
      </blockquote>
      <p class="outcome ${claim.outcome.replaceAll(' ', '-')}">
        <strong>The claim ${OUTCOMES[claim.outcome]}.</strong> ${claim.inShort}
      </p>
      <p class="judged">${verdictBadge(verdict)} ${verdictText(result)}</p>
    </header>
    ${findingsSection(result)} ${plotsSection(result)} ${pageMapSection(result)} ${checksSection(result)}
    ${environmentSection(result)} ${downloadsSection(result, number)}
  </article> `;
}
