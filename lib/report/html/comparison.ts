/** Several results of one experiment in one report: what differs, in tables and in plots. */
import type { ResultDocument } from '../../schema/result.js';
import { formatCount } from '../../schema/units.js';
import type { Comparison, Difference } from '../comparison.js';
import { OUTCOMES } from '../wording.js';
import { chartFigure } from './chart.js';
import type { Chart, Series } from './chart.js';
import { html } from './markup.js';
import type { Markup } from './markup.js';
import { provenance, verdictBadge } from './result.js';
import { table } from './table.js';

const TOP = 60;

/** Lines in one plot. */
const LINES = 6;

function differencesTable(
  caption: string,
  { numbers }: Comparison,
  differences: readonly Difference[],
  isText: boolean,
): Markup | undefined {
  const columns = ['name', ...numbers.map((number) => `result ${formatCount(number)}`), 'unit'];
  const rows = differences.slice(0, TOP).map(({ name, unit, values }) => [name, ...values, unit]);
  const left = differences.length - rows.length;
  const textColumns = isText ? columns.map((_, index) => index) : [0, columns.length - 1];
  const content = table({ caption, columns: isText ? columns.slice(0, -1) : columns, rows, textColumns });
  const rest = left > 0 ? html`<p class="hint">${formatCount(left)} more differ.</p>` : undefined;
  return content && html`${content}${rest}`;
}

/** One line of a plot that results have in common, with a series for each result. */
function sharedCharts({ results, numbers }: Comparison): Chart[] {
  const plotsIn = (result: ResultDocument | undefined) => (result?.measurement ?? result?.prediction)?.plots ?? [];
  return plotsIn(results[0]).flatMap((plot) =>
    plot.series.flatMap(({ name }) => {
      const series = results.slice(0, LINES).flatMap((result, index): Series[] => {
        const own = plotsIn(result).find(({ title }) => title === plot.title);
        const y = own?.series.find((one) => one.name === name)?.y;
        if (!own || !y) return [];
        const points = own.x.map((x, at) => ({ x, y: y[at] ?? NaN }));
        const line = result.measurement ? { measured: points, model: [] } : { measured: [], model: points };
        return [{ name: `result ${formatCount(numbers[index] ?? 0)}`, ...line }];
      });
      const title = `${plot.title}: ${name}`;
      return series.length < 2 ? [] : [{ title, xLabel: plot.xLabel, yLabel: plot.yLabel, series }];
    }),
  );
}

export function comparisonSection(comparison: Comparison): Markup {
  const { experiment, numbers, conditions, figures, sameFigures } = comparison;
  const charts = sharedCharts(comparison).flatMap((chart) => chartFigure(chart) ?? []);
  const id = `compare-${experiment.replace(/[^\w-]/g, '_')}`;
  return html`<article aria-labelledby="${id}">
    <h2 id="${id}">${experiment}: results ${numbers.join(', ')} compared</h2>
    ${
      conditions.length === 0
        ? html`<p>Parameters and conditions are the same.</p>`
        : differencesTable('Parameters and conditions that differ', comparison, conditions, true)
    }
    <p>Figures: ${formatCount(sameFigures)} the same, ${formatCount(figures.length)} different.</p>
    ${differencesTable('Figures that differ', comparison, figures, false)}
    ${charts.length > 0 ? html`<div class="charts">${charts}</div>` : undefined}
  </article> `;
}

/** What is in the report, with links. */
export function overview(results: readonly ResultDocument[]): Markup {
  const rows = results.map((result, index) => [
    html`<a href="#result-${formatCount(index + 1)}">${formatCount(index + 1)}. ${result.experiment}</a>`,
    verdictBadge(result.verdict),
    `${OUTCOMES[result.claim.outcome]}. ${result.claim.inShort}`,
    provenance(result),
  ]);
  const columns = ['result', 'verdict', 'the claim', 'made on'];
  return html`<nav aria-label="Results">
    ${table({ caption: 'Results in this report', columns, rows, textColumns: [0, 1, 2, 3] })}
  </nav>`;
}
