/** Results as one HTML file that needs nothing beside itself: no network, no script, no colour. */
import { createHash } from 'node:crypto';
import type { ResultDocument } from '../../schema/result.js';
import { formatCount } from '../../schema/units.js';
import { compareAll } from '../comparison.js';
import { comparisonSection, overview } from './comparison.js';
import { html, trusted } from './markup.js';
import { resultSection } from './result.js';
import { SCRIPT } from './script.js';
import { STYLE } from './style.js';

/** Nothing may be loaded, and no script may run but the one below, whatever a result says. */
const POLICY = [
  "default-src 'none'",
  "style-src 'unsafe-inline'",
  'img-src data:',
  `script-src 'sha256-${createHash('sha256').update(SCRIPT).digest('base64')}'`,
  "base-uri 'none'",
  "form-action 'none'",
].join('; ');

function titleOf(results: readonly ResultDocument[]): string {
  const [first] = results;
  if (first && results.length === 1) return `${first.experiment}: ${first.title}`;
  return `cowlab: ${formatCount(results.length)} results`;
}

/** @returns A whole document. */
export function renderHtml(results: readonly ResultDocument[]): string {
  const several = results.length > 1;
  return html`<!doctype html>
    <html lang="en">
      <head>
        <meta charset="utf-8" />
        <meta http-equiv="Content-Security-Policy" content="${POLICY}" />
        <meta name="viewport" content="width=device-width, initial-scale=1" />
        <meta name="color-scheme" content="light dark" />
        <meta name="generator" content="cowlab" />
        <title>${titleOf(results)}</title>
        ${trusted(`<style>${STYLE}</style>`)}
      </head>
      <body>
        <header><h1>cowlab: fork and copy-on-write, measured</h1></header>
        <main>
          ${several ? overview(results) : undefined} ${compareAll(results).map(comparisonSection)}
          ${results.map((result, index) => resultSection(result, index + 1))}
        </main>
        <footer>
          <p>
            Made by cowlab from saved results. Each result was measured on the kernel named with it, and predicted by a
            reference model; a check says which of the two, or what else, it rests on.
          </p>
        </footer>
        ${trusted(`<script>${SCRIPT}</script>`)}
      </body>
    </html> `.text;
}
