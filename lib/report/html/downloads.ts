/** The raw data, inside the report itself: links whose address is the file. */
import { gzipSync } from 'node:zlib';
import type { ResultDocument } from '../../schema/result.js';
import { formatBytes } from '../../schema/units.js';
import { checksCsv, samplesCsv } from '../csv.js';
import { html } from './markup.js';
import type { Markup } from './markup.js';

/** Text that is larger is compressed. */
const PLAIN_BYTES = 256 * 1024;

function download(name: string, type: string, text: string, what: string): Markup {
  const plain = Buffer.from(text);
  const compress = plain.length > PLAIN_BYTES;
  const data = (compress ? gzipSync(plain, { level: 9 }) : plain).toString('base64');
  const file = compress ? `${name}.gz` : name;
  const address = `data:${compress ? 'application/gzip' : type};base64,${data}`;
  return html`<li>
    <a download="${file}" href="${address}">${file}</a> (${formatBytes(plain.length)}${compress ? ' unpacked' : ''}):
    ${what}
  </li> `;
}

export function downloadsSection(result: ResultDocument, number: number): Markup {
  const safeName = result.experiment.replace(/[^\w.-]/g, '_').slice(0, 60);
  const name = `cowlab-${safeName}-${String(number)}`;
  const samples = samplesCsv(result);
  return html`<section class="downloads">
    <h3>Raw data</h3>
    <p class="hint">These files are inside this page; nothing is fetched.</p>
    <ul>
      ${samples.length > 1 ? download(`${name}-samples.csv`, 'text/csv', samples, 'an observation a row') : undefined}
      ${result.checks.length > 0 ? download(`${name}-checks.csv`, 'text/csv', checksCsv(result.checks), 'every check') : undefined}
      ${download(`${name}.json`, 'application/json', JSON.stringify(result), 'the whole result, for cowlab replay, compare and report')}
    </ul>
  </section> `;
}
