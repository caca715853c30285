/** How a report looks: on a phone and a wide screen, light and dark, on paper. */
export const STYLE = `
:root {
  color-scheme: light dark;
  --paper: #ffffff; --ink: #1b1f24; --soft: #57606a; --line: #d0d7de; --tint: #f4f6f8; --accent: #0a5cad;
  --good: #176f2c; --bad: #b3261e; --unsure: #8a5300;
  --series-1: #0a5cad; --series-2: #c2410c; --series-3: #0f766e; --series-4: #7e22ce; --series-5: #92600a; --series-6: #be185d;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171a; --ink: #e6e9ec; --soft: #a3adb8; --line: #3a424b; --tint: #1d2226; --accent: #79b8ff;
    --good: #6fd08c; --bad: #ff8f85; --unsure: #f0b35a;
    --series-1: #79b8ff; --series-2: #ff9d66; --series-3: #5ad6c4; --series-4: #cf9bff; --series-5: #e6c15c; --series-6: #ff8fc0;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; max-width: 84rem; padding: 1rem clamp(0.9rem, 3vw, 2.5rem) 3rem;
  background: var(--paper); color: var(--ink); font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", sans-serif;
}
a { color: var(--accent); overflow-wrap: anywhere; }
h1 { font-size: 1rem; margin: 0.5rem 0 1.5rem; color: var(--soft); font-weight: 600; letter-spacing: 0.02em; }
h2 { font-size: clamp(1.4rem, 4vw, 2rem); line-height: 1.2; margin: 0.2rem 0 1rem; text-wrap: balance; }
h3 { font-size: 1.25rem; margin: 2.5rem 0 0.75rem; padding-top: 0.75rem; border-top: 1px solid var(--line); }
h4 { font-size: 1.05rem; margin: 1.75rem 0 0.25rem; }
h5 { font-size: 0.95rem; margin: 0 0 0.4rem; }
p, ul { max-width: 70ch; }

nav { margin-bottom: 2.5rem; }
nav td:nth-child(3) { min-width: 15rem; }
article + article { margin-top: 4rem; border-top: 4px solid var(--line); padding-top: 2rem; }
.kicker, .hint, figcaption .hint { color: var(--soft); font-size: 0.9rem; margin: 0.2rem 0; overflow-wrap: anywhere; }
blockquote { margin: 0 0 1rem; padding: 0.1rem 0 0.1rem 1rem; border-left: 4px solid var(--line); }
blockquote p { margin: 0.35rem 0; overflow-wrap: anywhere; }
cite { font-style: normal; font-size: 0.9rem; }
.label { color: var(--soft); font-size: 0.85rem; margin-right: 0.25rem; }
.outcome { font-size: 1.15rem; padding: 0.75rem 1rem; border-radius: 6px; background: var(--tint); border-left: 6px solid var(--soft); }
.outcome.holds { border-color: var(--good); }
.outcome.refuted { border-color: var(--bad); }
.outcome.holds-only-if, .outcome.undecided { border-color: var(--unsure); }
.verdict { display: inline-block; white-space: nowrap; font-weight: 700; text-transform: uppercase; font-size: 0.85rem; letter-spacing: 0.05em; padding: 0.05rem 0.5rem; border: 2px solid; border-radius: 4px; }
.verdict.pass { color: var(--good); }
.verdict.fail { color: var(--bad); }
.verdict.inconclusive, .verdict.skip { color: var(--unsure); }
.notes { padding-left: 1.1rem; color: var(--soft); }
.scroll { overflow-x: auto; margin: 0.9rem 0; max-width: 100%; width: fit-content; }
table { border-collapse: collapse; font-size: 0.92rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: 0 0 0.35rem; }
th, td { padding: 0.25rem 0.7rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top; }
th.text, td.text { text-align: left; }
thead th { background: var(--tint); font-weight: 600; vertical-align: bottom; }
tbody th { font-weight: 400; min-width: 8rem; }
.changed { font-weight: 700; }
details.more { margin: 0.5rem 0; }
summary { cursor: pointer; color: var(--accent); }
.charts { display: grid; gap: 1.5rem 2rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 24rem), 1fr)); }
figure { margin: 0; }
.chart { min-width: 0; }
.chart svg.plot { width: 100%; height: auto; display: block; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 0.2rem 1.1rem; padding: 0; margin: 0.4rem 0; font-size: 0.9rem; max-width: none; }
.legend li { display: flex; align-items: center; gap: 0.4rem; }
.legend svg { flex: none; width: 34px; height: 14px; overflow: visible; }
img { image-rendering: pixelated; vertical-align: middle; max-width: 100%; height: auto; }
.legend img { width: 16px; height: 16px; }
.step { margin: 1rem 0 1.5rem; }
.maps { display: flex; flex-wrap: wrap; gap: 1rem 1.25rem; }
.map { width: 256px; max-width: 100%; }
.map figcaption { font-size: 0.85rem; color: var(--soft); margin-bottom: 0.25rem; min-height: 2.6em; }
.map figcaption strong { color: var(--ink); display: block; }
.control { display: flex; flex-wrap: wrap; align-items: center; gap: 0.5rem 1rem; margin: 0.75rem 0; }
.control input { width: min(24rem, 60vw); accent-color: var(--accent); vertical-align: middle; }
.control button { font: inherit; font-size: 0.9rem; padding: 0.15rem 0.7rem; color: var(--ink); background: var(--tint); border: 1px solid var(--soft); border-radius: 4px; }
.readout { min-height: 1.5em; font-size: 0.9rem; margin: 0.3rem 0; font-variant-numeric: tabular-nums; }
footer { margin-top: 3rem; border-top: 1px solid var(--line); color: var(--soft); font-size: 0.85rem; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
@media screen { .stepped > .step:not(.current) { display: none; } }
@media print {
  :root {
    color-scheme: light;
    --paper: #ffffff; --ink: #000000; --soft: #444444; --line: #bbbbbb; --tint: #f2f2f2; --accent: #000000;
    --good: #176f2c; --bad: #b3261e; --unsure: #8a5300;
    --series-1: #0a5cad; --series-2: #c2410c; --series-3: #0f766e; --series-4: #7e22ce; --series-5: #92600a; --series-6: #be185d;
  }
  body { font-size: 10pt; max-width: none; padding: 0; }
  img, .outcome, thead th { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  .control, .readout, .downloads { display: none; }
  .scroll { overflow: visible; }
  table { font-size: 8pt; }
  th, td { padding: 0.15rem 0.4rem; }
  .charts { grid-template-columns: 1fr 1fr; }
  .map, .map img { width: 42mm; }
  .map figcaption { min-height: 0; }
  .chart, .map, tr, blockquote, .outcome { break-inside: avoid; }
  h2, h3, h4, h5, caption { break-after: avoid; }
  img { image-rendering: auto; }
  details.more:not([open]) { display: none; }
  .pagemap details.more { display: block; }
  .pagemap details.more::details-content { content-visibility: visible; block-size: auto; }
}
`;
