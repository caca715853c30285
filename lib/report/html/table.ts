/** Tables that can be read by a screen reader, scrolled on a phone, and printed. */
import { formatCount } from '../../schema/units.js';
import { html } from './markup.js';
import type { Markup } from './markup.js';

type Cell = string | number | Markup;

interface TableContent {
  caption: string;
  columns: readonly string[];
  /** The first cell of each is its heading. */
  rows: readonly (readonly Cell[])[];
  /** Columns of text, which stand to the left; the others are figures. Default: the first. */
  textColumns?: readonly number[];
}

function cellText(cell: Cell): string | Markup {
  return typeof cell === 'number' ? formatCount(cell) : cell;
}

/** @returns Nothing for a table without rows. */
export function table({ caption, columns, rows, textColumns = [0] }: TableContent): Markup | undefined {
  if (rows.length === 0) return undefined;
  const kind = (index: number): string => (textColumns.includes(index) ? 'text' : 'figure');
  const head = columns.map((name, index) => html`<th scope="col" class="${kind(index)}">${name}</th>`);
  const body = rows.map((row) => {
    const [first = '', ...others] = columns.map((_, index) => cellText(row[index] ?? ''));
    const cells = others.map((cell, index) => html`<td class="${kind(index + 1)}">${cell}</td>`);
    return html`<tr>
      <th scope="row" class="${kind(0)}">${first}</th>
      ${cells}
    </tr> `;
  });
  return html`<div class="scroll" role="group" aria-label="${caption}" tabindex="0">
    <table>
      <caption>
        ${caption}
      </caption>
      <thead>
        <tr>
          ${head}
        </tr>
      </thead>
      <tbody>
        ${body}
      </tbody>
    </table>
  </div> `;
}
