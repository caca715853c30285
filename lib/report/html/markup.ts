/** HTML written as template literals: what is put into them is escaped, unless it is markup itself. */

/** Text that is HTML already. */
export class Markup {
  constructor(readonly text: string) {}
  toString(): string {
    return this.text;
  }
}

type Part = string | number | Markup | undefined | readonly Part[];

const ENTITIES: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };

/** For text and for attribute values in quotes. Control characters, which no document may hold, are replaced. */
function escape(text: string): string {
  return text
    .replace(/[&<>"']/g, (character) => ENTITIES[character] ?? '')
    .replace(/\p{Cc}/gu, (character) => (/\s/.test(character) ? character : '\ufffd'));
}

function markupOf(part: Part): string {
  if (part === undefined) return '';
  if (part instanceof Markup) return part.text;
  if (typeof part === 'string') return escape(part);
  if (typeof part === 'number') return String(part);
  return part.map(markupOf).join('');
}

/** @returns The literal with its values escaped; arrays are joined, and undefined is nothing. */
export function html(literal: TemplateStringsArray, ...parts: readonly Part[]): Markup {
  return new Markup(literal.reduce((text, piece, index) => text + markupOf(parts[index - 1]) + piece));
}

/** Text that our own code has made and that is HTML as it stands: a drawing, a style, a script. */
export function trusted(text: string): Markup {
  return new Markup(text);
}
