/** The page maps of a result: pictures by step and process, their legend, and a table that says the same. */
import type { ResultDocument } from '../../schema/result.js';
import type { PageState } from '../../schema/step.js';
import { formatBytes, formatCount } from '../../schema/units.js';
import { observedOn } from '../observations.js';
import { mostTelling, pageMapsOf, spread } from '../page-map.js';
import type { Cell, MapStep, PageMap, RegionMap } from '../page-map.js';
import { html, trusted } from './markup.js';
import type { Markup } from './markup.js';
import { legendImage, mapImage } from './page-map-image.js';
import type { Image } from './page-map-image.js';
import { table } from './table.js';

/** As many are drawn; the tables and the files have more. */
const REGIONS = 4;
const STEPS = 12;
const PROCESSES = 9;
const TABLE_ROWS = 200;

/** A table of so few rows is shown at once. */
const SHORT_TABLE = 16;

/** Runs that a table spells out. */
const RUNS = 4;

const MEANINGS: Record<PageState, string> = {
  exclusive: 'exclusive: mapped by this process alone',
  shared: 'shared: mapped more than once',
  zero: 'zero: the page of zeros that all share',
  swapped: 'swapped out',
  'not-present': 'not present',
  unknown: 'not known',
};
const STATES = Object.keys(MEANINGS) as PageState[];

/** For the script: "512e64 1e60s4" is 512 cells of 64 exclusive pages, then one of 60 exclusive and 4 shared. */
const LETTERS: Record<PageState, string> = {
  exclusive: 'e',
  shared: 's',
  zero: 'z',
  swapped: 'w',
  'not-present': 'n',
  unknown: 'u',
};

function encodeCells(cells: readonly Cell[]): string {
  const runs: { cell: string; count: number }[] = [];
  for (const one of cells) {
    const cell = one.map(([state, pages]) => `${LETTERS[state]}${String(pages)}`).join('');
    const last = runs.at(-1);
    if (last?.cell === cell) last.count++;
    else runs.push({ cell, count: 1 });
  }
  return runs.map(({ cell, count }) => `${String(count)}${cell}`).join(' ');
}

function countsText({ pagesBy }: RegionMap): string {
  const parts = STATES.filter((state) => pagesBy[state] > 0).map(
    (state) => `${formatCount(pagesBy[state])} ${state.replace('-', ' ')}`,
  );
  return parts.length === 0 ? 'no pages' : parts.join(', ');
}

function image({ width, height, address }: Image, alt: string): Markup {
  return html`<img src="${address}" width="${width}" height="${height}" alt="${alt}" />`;
}

function mapFigure(map: RegionMap, label: string): Markup {
  const { process, cells, pagesPerCell, hugePages, huge, pages } = map;
  if (cells.length === 0) return html``;
  const hugeText =
    huge === 'none'
      ? ''
      : `; ${formatCount(hugePages)} in huge pages${huge === 'some' ? ' (which ones is not told)' : ''}`;
  return html`<figure class="map" data-cells="${encodeCells(cells)}" data-cell="${pagesPerCell}" data-pages="${pages}">
    <figcaption><strong>${process}</strong> ${countsText(map)}${hugeText}</figcaption>
    ${image(mapImage(map), `Page map of ${process} at "${label}": ${countsText(map)}`)}
  </figure> `;
}

function stepBlock({ label, maps }: MapStep, number: number, of: number): Markup {
  const left = maps.length - PROCESSES;
  return html`<div class="step">
    <h5>${number} of ${of}: ${label}</h5>
    <div class="maps">${maps.slice(0, PROCESSES).map((map) => mapFigure(map, label))}</div>
    ${left > 0 ? html`<p class="hint">${formatCount(left)} more processes are in the table only.</p>` : undefined}
  </div> `;
}

function legend({ steps }: PageMap): Markup {
  const maps = steps.flatMap((step) => step.maps);
  const seen = STATES.filter((state) => maps.some(({ pagesBy }) => pagesBy[state] > 0));
  const entry = (cell: Cell, text: string, framed = false): Markup =>
    html`<li>${image(legendImage(cell, framed), '')} ${text}</li>`;
  const [first = 'exclusive', second = 'not-present'] = seen;
  const isMixed = maps.some(({ cells }) => cells.some((cell) => cell.length > 1));
  return html`<ul class="legend">
    ${seen.map((state) => entry([[state, 1]], MEANINGS[state]))}
    ${
      isMixed
        ? entry(
            [
              [first, 1],
              [second, 1],
            ],
            'mixed: most of its pages below, the next most above',
          )
        : undefined
    }
    ${maps.some(({ huge }) => huge === 'all') ? entry([['exclusive', 1]], 'framed: mapped as huge pages', true) : undefined}
  </ul>`;
}

function runsText({ states }: RegionMap): string {
  if (states.length > RUNS) return `${formatCount(states.length)} runs`;
  let first = 0;
  const parts = states.map(([pages, state]) => {
    const last = first + pages - 1;
    const range = pages === 1 ? formatCount(first) : `${formatCount(first)}–${formatCount(last)}`;
    first += pages;
    return `${range} ${state.replace('-', ' ')}`;
  });
  return parts.join(', ');
}

/** Exact, where the pictures put several pages into a cell. */
function mapTable({ region, steps }: PageMap): Markup {
  const all = steps.flatMap(({ label, maps }) => maps.map((map) => ({ label, map })));
  const seen = STATES.filter((state) => all.some(({ map }) => map.pagesBy[state] > 0));
  const anyHuge = all.some(({ map }) => map.huge !== 'none');
  const rows = all
    .slice(0, TABLE_ROWS)
    .map(({ label, map }) => [
      label,
      map.process,
      ...seen.map((state) => map.pagesBy[state]),
      ...(anyHuge ? [map.hugePages] : []),
      runsText(map),
      map.unlikeModel === undefined
        ? '-'
        : map.unlikeModel === 0
          ? 'the same'
          : `${formatCount(map.unlikeModel)} differ`,
    ]);
  const left = all.length - rows.length;
  const columns = [
    'step',
    'process',
    ...seen.map((state) => state.replace('-', ' ')),
    ...(anyHuge ? ['in huge pages'] : []),
    'which pages',
    'model',
  ];
  const content = table({
    caption: `Pages of ${region} by step and process`,
    columns,
    rows,
    textColumns: [0, 1, columns.length - 2, columns.length - 1],
  });
  const rest = left > 0 ? html`<p class="hint">${formatCount(left)} more rows are in the files below.</p>` : undefined;
  const open = rows.length <= SHORT_TABLE ? trusted(' open') : undefined;
  return html`<details class="more" ${open}>
    <summary>The same as a table, exact to the page</summary>
    ${content}${rest}
  </details>`;
}

function scaleText({ steps }: PageMap, pageSizeBytes: number): string {
  const scales = [...new Set(steps.flatMap(({ maps }) => maps.map(({ pagesPerCell }) => pagesPerCell)))];
  const [scale = 1] = scales;
  if (scales.length > 1) return 'The region changed its length: the scale of each picture fits its own.';
  if (scale === 1) return `1 cell = 1 page (${formatBytes(pageSizeBytes)}).`;
  return `1 cell = ${formatCount(scale)} pages (${formatBytes(scale * pageSizeBytes)}).`;
}

function pageMapFigure(map: PageMap, pageSizeBytes: number): Markup {
  const drawn = spread(map.steps, STEPS);
  const left = map.steps.length - drawn.length;
  const leftText = left > 0 ? ` ${formatCount(left)} steps between are in the table only.` : '';
  const about = `${scaleText(map, pageSizeBytes)} Page 0 is top left.${leftText}`;
  return html`<section class="pagemap">
    <h4>Region ${map.region}: ${map.description}</h4>
    <p class="hint">${about}</p>
    ${legend(map)}
    <div class="steps">${drawn.map((step, index) => stepBlock(step, index + 1, drawn.length))}</div>
    ${mapTable(map)}
  </section> `;
}

export function pageMapSection(result: ResultDocument): Markup | undefined {
  const all = pageMapsOf(result);
  if (all.length === 0) return undefined;
  const maps = mostTelling(all, REGIONS);
  const left = all.length - maps.length;
  const shown =
    observedOn(result) === 'kernel'
      ? 'What is shown was measured on the kernel, by pagemap and smaps.'
      : 'What is shown is the prediction of the model; nothing was measured.';
  const rest =
    left > 0
      ? ` Of ${formatCount(all.length)} regions those ${formatCount(maps.length)} are drawn whose pages have most to ` +
        `tell; ${formatCount(left)} more are in the files below.`
      : '';
  return html`<section>
    <h3>Page maps</h3>
    <p class="hint">${shown}${rest}</p>
    ${maps.map((map) => pageMapFigure(map, result.environment.pageSizeBytes))}
  </section> `;
}
