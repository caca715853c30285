/** What `cowlab watch` shows: a table and a plot while it goes on, and a summary that one can act on. */
import type { TreeSample } from '../proc/tree-watch.js';
import type { BrokenSharing, WatchedMemory } from '../proc/watched-process.js';
import { paint, printable, shorten, table, wrap } from '../report/paragraph.js';
import type { Column, TextOptions } from '../report/paragraph.js';
import { plotText } from '../report/text.js';
import { bounds } from '../schema/figure.js';
import { formatBytes, formatCount } from '../schema/units.js';

/** Rows shown one by one. */
const TOP = 12;

const PROCESS_COLUMNS: readonly Column[] = [
  { name: 'pid', title: 'pid', alignment: 'right' },
  { name: 'comm', title: 'program' },
  { name: 'pss', title: 'Pss', alignment: 'right' },
  { name: 'uss', title: 'USS', alignment: 'right' },
  { name: 'shared', title: 'shared', alignment: 'right' },
  { name: 'faults', title: 'faults', alignment: 'right' },
  { name: 'copied', title: 'copied', alignment: 'right' },
];

const BROKEN_COLUMNS: readonly Column[] = [
  { name: 'pid', title: 'pid', alignment: 'right' },
  { name: 'comm', title: 'program' },
  { name: 'mapping', title: 'mapping' },
  { name: 'where', title: 'where' },
  { name: 'lost', title: 'lost', alignment: 'right' },
  { name: 'when', title: 'when', alignment: 'right' },
];

/** How the tree went on: of every process what it had last, and of the whole how it grew. */
export interface WatchHistory {
  samples: readonly HistoryPoint[];
  /** The sample in which the sum of Pss was largest. */
  peak: TreeSample | undefined;
  /** By pid and start, as it was seen last, with the largest Pss and USS. */
  processes: ReadonlyMap<string, WatchedMemory>;
  broken: readonly BrokenSharing[];
  intervalMs: number;
  /** The share of a core that looking may take. */
  maxLoad: number;
  /** Samples that did not read memory to keep below it. */
  deferred: number;
  /** Intervals that were made longer, to keep within the share of time that looking may take. */
  lengthened: number;
  unreadable: number;
}

/** A sample without its processes. */
export type HistoryPoint = Pick<TreeSample, 'elapsedMs' | 'costMs' | 'longestReadMs' | 'pssKb' | 'ussKb' | 'rssKb'> & {
  processes: number;
  faults: number;
  copiedKb: number;
};

function kb(amount: number): string {
  return formatBytes(amount * 1024);
}

function seconds(milliseconds: number): string {
  return `${(milliseconds / 1000).toFixed(1)} s`;
}

function atMost(kilobytes: number): string {
  return kilobytes === 0 ? '0 B' : `<= ${kb(kilobytes)}`;
}

function processTable(processes: readonly WatchedMemory[]): string {
  const rows = processes.slice(0, TOP).map((one) => ({
    pid: one.pid,
    comm: shorten(printable(one.comm), 12),
    pss: kb(one.pssKb),
    uss: kb(one.ussKb),
    shared: kb(one.sharedKb),
    faults: formatCount(one.minorFaults),
    copied: atMost(bounds(one.copiedKb).max),
  }));
  const more = processes.length - rows.length;
  return table(PROCESS_COLUMNS, rows) + (more > 0 ? `\nand ${String(more)} more` : '');
}

/** Of many samples so many, evenly: a plot has no room for more. */
function thin<T>(all: readonly T[], most = 200): T[] {
  if (all.length <= most) return [...all];
  return Array.from({ length: most }, (_, index) => all[Math.round((index * (all.length - 1)) / (most - 1))] as T);
}

function plot(samples: readonly HistoryPoint[]): string | undefined {
  const some = thin(samples);
  const from = samples[0]?.elapsedMs ?? 0;
  const lasted = seconds((samples.at(-1)?.elapsedMs ?? 0) - from);
  const mib = (key: 'pssKb' | 'ussKb' | 'copiedKb') => some.map((sample) => sample[key] / 1024);
  return plotText({
    title: `MiB, over ${lasted}`,
    xLabel: 'seconds',
    yLabel: 'MiB',
    x: some.map(({ elapsedMs }) => elapsedMs / 1000),
    series: [
      { name: 'Pss', y: mib('pssKb') },
      { name: 'USS', y: mib('ussKb') },
      { name: 'copied, at most', y: mib('copiedKb') },
    ],
  });
}

/** Kilobytes a second, over the last samples. */
function rate(samples: readonly HistoryPoint[], of: (sample: HistoryPoint) => number): number {
  const recent = samples.slice(-5);
  const [first, last] = [recent[0], recent.at(-1)];
  if (!first || !last || last === first) return 0;
  return (Math.max(0, of(last) - of(first)) * 1000) / (last.elapsedMs - first.elapsedMs);
}

/** The table as it is now, for a terminal that is drawn again and again. */
export function liveText(sample: TreeSample, samples: readonly HistoryPoint[]): string {
  const count = sample.processes.length;
  const copying = rate(samples, ({ copiedKb }) => copiedKb);
  const faulting = rate(samples, ({ faults }) => faults);
  const head =
    `${seconds(sample.elapsedMs)}: ${String(count)} ${count === 1 ? 'process' : 'processes'}, Pss ${kb(sample.pssKb)}; ` +
    `copying at most ${kb(Math.round(copying))} a second, ${formatCount(Math.round(faulting))} faults a second`;
  const largest = [...sample.processes].sort((a, b) => b.pssKb - a.pssKb);
  return [wrap(head, '', '  '), processTable(largest), plot(samples)].filter(Boolean).join('\n');
}

function mappingName({ name, isPython }: BrokenSharing): string {
  if (name === '[heap]') return isPython ? '[heap]: malloc' : '[heap]';
  if (name !== '') return shorten(printable(name), 19);
  return isPython ? 'arenas of objects' : 'anonymous';
}

/** Mappings of one kind in one process: an interpreter has hundreds of arenas. */
function byKind(broken: readonly BrokenSharing[]): BrokenSharing[][] {
  const groups = new Map<string, BrokenSharing[]>();
  for (const one of broken) {
    const key = `${String(one.pid)} ${one.comm} ${mappingName(one)}`;
    groups.set(key, [...(groups.get(key) ?? []), one]);
  }
  return [...groups.values()].sort((a, b) => lostKb(b) - lostKb(a));
}

function lostKb(broken: readonly BrokenSharing[]): number {
  return broken.reduce((all, one) => all + one.lostKb, 0);
}

/** @param copiedKb What all have copied, at most. */
function brokenText(broken: readonly BrokenSharing[], copiedKb: number): string | undefined {
  if (broken.length === 0) {
    if (copiedKb === 0) return 'No sharing was broken: nothing that a fork had shared was copied.';
    const unseen =
      'No sharing was seen to break between two samples. What was copied before a process was seen first, or about the ' +
      'time of a fork, is in "copied" alone: of which mappings it was is not known.';
    return wrap(unseen, '', '  ');
  }
  const groups = byKind(broken);
  const rows = groups.slice(0, TOP).flatMap((group) => {
    const [one] = group;
    if (!one) return [];
    const [from, to] = [Math.min(...group.map(({ fromMs }) => fromMs)), Math.max(...group.map(({ toMs }) => toMs))];
    return {
      pid: one.pid,
      comm: shorten(printable(one.comm), 12),
      mapping: mappingName(one),
      where: group.length === 1 ? one.start.toString(16) : `${String(group.length)} mappings`,
      lost: kb(lostKb(group)),
      when: `${(from / 1000).toFixed(1)}-${seconds(to)}`,
    };
  });
  const more = groups.length - rows.length;
  return [
    'Whose sharing was broken, how much of it, and when',
    table(BROKEN_COLUMNS, rows) + (more > 0 ? `\nand ${String(more)} smaller ones` : ''),
  ].join('\n');
}

/** @param copiedKb What all have copied at most, by their faults: a page that two have lost was copied once. */
function remedy(broken: readonly BrokenSharing[], copiedKb: number): string | undefined {
  if (broken.length === 0) return undefined;
  const python = broken.filter(({ isPython }) => isPython);
  const arenasKb = Math.min(copiedKb, lostKb(python.filter(({ name }) => name === '')));
  if (lostKb(python) * 2 < lostKb(broken)) {
    return (
      'What to do: whoever writes to memory that a fork has shared copies it, page by page. Let the children write to ' +
      'memory of their own, keep what is only read apart from what is written, or share it (MAP_SHARED), which is never copied.'
    );
  }
  return (
    `What to do: CPython writes a reference count into every object that it looks at, ${kb(arenasKb)} at most in ` +
    'arenas of objects here. Keep large data out of objects (array, NumPy, multiprocessing.shared_memory, mmap); call ' +
    'gc.freeze() before the fork, so that no collection writes to what is there; or use forkserver or spawn. See ' +
    '`cowlab explain refcount` and `cowlab explain gc`.'
  );
}

function costText({ samples, intervalMs, maxLoad, deferred, lengthened, unreadable }: WatchHistory): string {
  const cost = samples.reduce((all, { costMs }) => all + costMs, 0);
  const held = samples.reduce((all, { longestReadMs }) => all + longestReadMs, 0);
  const lasted = (samples.at(-1)?.elapsedMs ?? 0) + (samples.at(-1)?.costMs ?? 0) || 1;
  const lines = [
    `${formatCount(samples.length)} samples took ${(cost / Math.max(1, samples.length)).toFixed(1)} ms each; no process ` +
      `may have waited for us for more than ${((100 * held) / lasted).toFixed(1)}% of the time.`,
  ];
  if (deferred > 0) {
    const readings = samples.filter(({ longestReadMs }) => longestReadMs > 0).length;
    const everyMs = Math.round(lasted / Math.max(1, readings));
    lines.push(
      `${formatCount(deferred)} of them did not read memory, to stay below ${formatCount(maxLoad * 100)}% of a core: it was ` +
        `read every ${formatCount(everyMs)} ms, and a peak in between was not seen. --max-load 100 reads it in each.`,
    );
  }
  if (lengthened > 0) {
    lines.push(`${formatCount(lengthened)} intervals were longer than ${seconds(intervalMs)}, to keep that small.`);
  }
  if (unreadable > 0) lines.push(`${String(unreadable)} processes may not be read by this user, and are missing.`);
  lines.push(
    'Copied is at most so much: a page stops being shared as well when others write theirs or end, which only page frames ' +
      'would tell. Lost: what stopped being shared while the process had as many faults.',
  );
  return lines.join(' ');
}

/** What it came to. @param what The program, and how it ended. */
export function summaryText(what: string, history: WatchHistory, options: TextOptions): string {
  const { peak, processes, broken, samples } = history;
  const all = [...processes.values()].sort((a, b) => b.pssKb - a.pssKb);
  if (!peak) return `${wrap(`${what}. It was not looked at: it ended too soon, or may not be read.`)}\n`;
  const many = peak.processes.length;
  const sums =
    `At its largest, at ${seconds(peak.elapsedMs)}, the tree took ${kb(peak.pssKb)} (sum of Pss) in ${String(many)} ` +
    `${many === 1 ? 'process' : 'processes'}; Rss would add up to ${kb(peak.rssKb)}.`;
  const blocks = [
    paint('bold', wrap(`${what}; watched for ${seconds(samples.at(-1)?.elapsedMs ?? 0)}`, '', '  '), options),
    wrap(sums, '', '  '),
    `Largest Pss and USS of each, and the last of the rest\n${processTable(all)}`,
    plot(samples),
    brokenText(
      broken,
      all.reduce((sum, one) => sum + bounds(one.copiedKb).max, 0),
    ),
    ...[remedy(broken, samples.at(-1)?.copiedKb ?? 0), costText(history)].map((text) => text && wrap(text, '', '  ')),
  ];
  return `${blocks.filter(Boolean).join('\n\n')}\n`;
}
