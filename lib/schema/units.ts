/** Sizes as people write and read them. */

const UNITS: Record<string, number> = { B: 1, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30, TiB: 2 ** 40 };
const SHORT: Record<string, string> = { K: 'KiB', M: 'MiB', G: 'GiB', T: 'TiB', KB: 'KiB', MB: 'MiB', GB: 'GiB' };

/** '256MiB', '256M', '1.5 GiB' or a plain number of bytes. @throws RangeError that says what is understood. */
export function parseSize(text: string): number {
  const match = /^\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*$/.exec(text);
  const [, amount = '', unit = ''] = match ?? [];
  const factor = unit === '' ? 1 : UNITS[SHORT[unit.toUpperCase()] ?? unit];
  const bytes = Number(amount) * (factor ?? NaN);
  if (!match || !Number.isSafeInteger(bytes)) {
    throw new RangeError(`${JSON.stringify(text)} is not a size: write a number of bytes, or 512KiB, 256MiB, 2GiB`);
  }
  return bytes;
}

/** Three significant digits and a binary unit: '256 MiB', '1.25 GiB'. */
export function formatBytes(bytes: number): string {
  const sign = bytes < 0 ? '-' : '';
  let amount = Math.abs(bytes);
  let unit = 'B';
  for (const [name, size] of Object.entries(UNITS)) {
    if (Math.abs(bytes) < size) break;
    unit = name;
    amount = Math.abs(bytes) / size;
  }
  // As it will be shown: 9.999 is 10.0, not 10.00.
  const digits = amount >= 99.95 || Number.isInteger(amount) ? 0 : amount >= 9.995 ? 1 : 2;
  return `${sign}${amount.toFixed(digits)} ${unit}`;
}

/** Digits in groups of three: 6171021 as '6,171,021'. */
export function formatCount(count: number): string {
  return count.toLocaleString('en-US');
}
