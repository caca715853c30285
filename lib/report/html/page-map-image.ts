/** Page maps as PNG: each state has a colour and a pattern, so that it can be told in grey and by who sees no colours. */
import { encode } from 'fast-png';
import type { PageState } from '../../schema/step.js';
import type { Cell, RegionMap } from '../page-map.js';

/** Pixels of a cell; the last of each row and column stays empty. */
const TILE = 8;
const INK = TILE - 1;
const CELLS_IN_A_ROW = 32;

type Color = readonly [red: number, green: number, blue: number, alpha: number];

/** Each stands out from white and from black. */
const ORANGE: Color = [217, 95, 2, 255];
const BLUE: Color = [58, 127, 194, 255];
const PALE_BLUE: Color = [58, 127, 194, 90];
const GREEN: Color = [27, 158, 119, 255];
const PURPLE: Color = [154, 96, 196, 255];
const GREY: Color = [128, 136, 144, 255];
const BROWN: Color = [84, 36, 0, 255];

/** The colour of a pixel of a cell, or nothing. */
type Pattern = (x: number, y: number) => Color | undefined;

const PATTERNS: Record<PageState, Pattern> = {
  exclusive: () => ORANGE,
  shared: (x, y) => ((x + y) % 4 < 2 ? BLUE : PALE_BLUE),
  zero: (x, y) => (x % 3 === 0 && y % 3 === 0 ? GREEN : undefined),
  swapped: (x, y) => (x === y || x === INK - 1 - y ? PURPLE : undefined),
  'not-present': (x, y) => (x === 3 && y === 3 ? GREY : undefined),
  unknown: (x, y) => ((x + y) % 2 === 0 ? GREY : undefined),
};

function patternOf(cell: Cell, framed: boolean): Pattern {
  const [[first] = ['unknown' as const], second] = cell;
  const own = PATTERNS[first];
  const other = second && PATTERNS[second[0]];
  return (x, y) => {
    const onEdge = x === 0 || y === 0 || x === INK - 1 || y === INK - 1;
    if (framed && onEdge && first !== 'not-present') return BROWN;
    if (!other) return own(x, y);
    if (x === y) return GREY;
    return y > x ? own(x, y) : other(x, y);
  };
}

export interface Image {
  width: number;
  height: number;
  /** A data: address. */
  address: string;
}

function paint(cells: readonly Cell[], framed: boolean): Image {
  const columns = Math.min(CELLS_IN_A_ROW, cells.length);
  const [width, height] = [columns * TILE, Math.ceil(cells.length / columns) * TILE];
  const data = new Uint8Array(width * height * 4);
  for (const [index, cell] of cells.entries()) {
    const [left, top] = [(index % columns) * TILE, Math.floor(index / columns) * TILE];
    const pattern = patternOf(cell, framed);
    for (let y = 0; y < INK; y++) {
      for (let x = 0; x < INK; x++) {
        const color = pattern(x, y);
        if (color) data.set(color, ((top + y) * width + left + x) * 4);
      }
    }
  }
  const png = encode({ width, height, data, channels: 4, depth: 8 });
  return { width, height, address: `data:image/png;base64,${Buffer.from(png).toString('base64')}` };
}

export function mapImage({ cells, huge }: RegionMap): Image {
  return paint(cells, huge === 'all');
}

/** A single cell, for the legend. */
export function legendImage(cell: Cell, framed = false): Image {
  return paint([cell], framed);
}
