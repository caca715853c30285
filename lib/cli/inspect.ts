/** `cowlab inspect`: the mappings of a process by how much is shared and with whom, and what a fork of it would come to. */
import type { ForkPrediction } from '../machine/linux/predict.js';
import type { Sharer, SharedMapping, MemorySharing } from '../proc/sharers.js';
import type { SmapsVma } from '../proc/smaps.js';
import { paint, printable, shorten, table, wrap } from '../report/paragraph.js';
import type { Column, CommandOutput, TextOptions } from '../report/paragraph.js';
import { bounds, isUnknown, sum } from '../schema/figure.js';
import type { Figure } from '../schema/figure.js';
import { formatBytes } from '../schema/units.js';

/** Rows shown one by one; the rest is summed. */
const TOP = 12;

const MAPPING_COLUMNS: readonly Column[] = [
  { name: 'start', title: 'start' },
  { name: 'perms', title: 'perms' },
  { name: 'own', title: 'its own', alignment: 'right' },
  { name: 'shared', title: 'shared', alignment: 'right' },
  { name: 'who', title: 'with' },
  { name: 'path', title: 'mapping' },
];

const SHARER_COLUMNS: readonly Column[] = [
  { name: 'pid', title: 'pid', alignment: 'right' },
  { name: 'comm', title: 'program' },
  { name: 'relation', title: 'is its' },
  { name: 'memory', title: 'memory', alignment: 'right' },
  { name: 'files', title: 'files', alignment: 'right' },
];

function kb(amount: number): string {
  return formatBytes(amount * 1024);
}

/** Pages as bytes; what is only bounded begins with '<= '. */
function pagesAs(figure: Figure, pageSizeBytes: number): string {
  if (isUnknown(figure)) return 'unknown';
  if (typeof figure === 'number') return formatBytes(figure * pageSizeBytes);
  return `<= ${formatBytes(figure.max * pageSizeBytes)}`;
}

function withWhom({ sharedKb, sharedWith }: SharedMapping): string {
  if (sharedKb === 0) return '-';
  const [first] = sharedWith;
  if (!first) return 'others';
  return sharedWith.length === 1 ? String(first.pid) : `${String(sharedWith.length)} others`;
}

function mappingTable({ mappings }: MemorySharing): string {
  const resident = mappings.filter(({ ownKb, sharedKb }) => ownKb + sharedKb > 0);
  resident.sort((a, b) => b.ownKb + b.sharedKb - a.ownKb - a.sharedKb);
  const total = (some: readonly SharedMapping[], key: 'ownKb' | 'sharedKb') =>
    kb(some.reduce((all, mapping) => all + mapping[key], 0));
  const rows = resident.slice(0, TOP).map((mapping) => ({
    start: mapping.vma.start.toString(16),
    perms: mapping.vma.perms,
    own: kb(mapping.ownKb),
    shared: kb(mapping.sharedKb),
    who: withWhom(mapping),
    path: shorten(mapping.vma.path === '' ? 'anonymous' : printable(mapping.vma.path), 19),
  }));
  const summed = (some: readonly SharedMapping[], path: string): void => {
    rows.push({ start: '', perms: '', own: total(some, 'ownKb'), shared: total(some, 'sharedKb'), who: '', path });
  };
  const rest = resident.slice(TOP);
  if (rest.length > 0) summed(rest, `${String(rest.length)} smaller ones`);
  summed(resident, `all ${String(resident.length)} in memory`);
  return table(MAPPING_COLUMNS, rows);
}

/** What is shared for being the same file (a program, a library, a table), and not for what the program has made. */
function isOfFile({ inode, perms, path }: SmapsVma): boolean {
  if (inode === 0n || /^\/(memfd:|dev\/zero|dev\/shm\/|SYSV)/.test(path)) return false;
  return !/^.w.s/.test(perms);
}

/** Of a sharer, the part in programs, libraries and other files, or in memory. */
function partOf(sharing: MemorySharing, { pid }: Sharer, ofFiles: boolean): Figure {
  const parts = sharing.mappings
    .filter(({ vma }) => isOfFile(vma) === ofFiles)
    .flatMap(({ sharedWith }) => sharedWith.filter((one) => one.pid === pid).map(({ pages }) => pages));
  return sum(parts);
}

function sharerTable(sharing: MemorySharing): string[] {
  const { sharers, pageSizeBytes, unreadable, byFrames, mappings } = sharing;
  const notes: string[] = [];
  if (!byFrames) notes.push('Who shares what is at most so much: page frames are shown with CAP_SYS_ADMIN only.');
  if (unreadable > 0) {
    const who = unreadable === 1 ? '1 process' : `${String(unreadable)} processes`;
    notes.push(`${who} may not be read by this user, and may share some of it too.`);
  }
  const elsewhere = sum(mappings.map(({ elsewherePages }) => elsewherePages));
  if (typeof elsewhere === 'number' && elsewhere > 0) {
    notes.push(`${pagesAs(elsewhere, pageSizeBytes)} are shared with processes that were not found.`);
  }
  const unlooked = mappings.filter(({ elsewherePages }) => byFrames && isUnknown(elsewherePages)).length;
  if (unlooked > 0) {
    const who = unlooked === 1 ? '1 mapping is' : `${String(unlooked)} mappings are`;
    notes.push(`${who} too large to be looked through, and may be shared with others.`);
  }
  const parts = sharers.map((sharer) => ({
    sharer,
    memory: partOf(sharing, sharer, false),
    files: partOf(sharing, sharer, true),
  }));
  const ofMemory = parts.filter(({ memory }) => bounds(memory).max > 0);
  ofMemory.sort((a, b) => bounds(b.memory).max - bounds(a.memory).max);
  const rows = ofMemory.slice(0, TOP).map(({ sharer: { pid, comm, relation }, memory, files }) => ({
    pid,
    comm: printable(comm),
    relation,
    memory: pagesAs(memory, pageSizeBytes),
    files: pagesAs(files, pageSizeBytes),
  }));
  const ofFiles = parts.filter(({ memory }) => bounds(memory).max === 0);
  if (ofFiles.length > 0) {
    const most = Math.max(...ofFiles.map(({ files }) => bounds(files).max));
    const who = ofFiles.length === 1 ? '1 process more shares' : `${String(ofFiles.length)} processes more share`;
    notes.unshift(`${who} nothing but files, such as libraries: up to ${formatBytes(most * pageSizeBytes)}.`);
  }
  if (ofMemory.length > TOP) notes.unshift(`${String(ofMemory.length - TOP)} more share less memory.`);
  const text = notes.map((note) => wrap(note));
  return rows.length === 0 ? text : [table(SHARER_COLUMNS, rows), ...text];
}

function sentence({ pid, comm, mappings }: MemorySharing): string {
  const total = (pick: (mapping: SharedMapping) => number): number =>
    mappings.reduce((all, mapping) => all + pick(mapping), 0);
  const own = total(({ ownKb }) => ownKb);
  const shared = total(({ sharedKb }) => sharedKb);
  const pss = total(({ vma }) => vma.fieldsKb['Pss'] ?? 0);
  const swap = total(({ vma }) => vma.fieldsKb['Swap'] ?? 0);
  return (
    `${String(pid)} (${printable(comm)}) has ${kb(own + shared)} in memory: ${kb(own)} are its own alone (USS), ` +
    `${kb(shared)} are shared. Its part of all is ${kb(pss)} (Pss).` +
    (swap > 0 ? ` ${kb(swap)} more are in swap.` : '')
  );
}

/** As text of 80 columns. */
export function inspectReport(sharing: MemorySharing, fork: ForkPrediction, options: TextOptions = {}): string {
  const fate = wrap(`${printable(fork.sentence)} \`cowlab predict --pid ${String(fork.pid)}\` says more.`);
  const head = paint('bold', wrap(sentence(sharing)), options);
  return [head, mappingTable(sharing), ...sharerTable(sharing), fate].join('\n\n');
}

/** As JSON: addresses in hexadecimal, amounts with their units in their names. */
export function inspectJson({ mappings, ...sharing }: MemorySharing, fork: ForkPrediction): unknown {
  return {
    ...sharing,
    mappings: mappings.map(({ vma, ...rest }) => ({
      start: vma.start.toString(16),
      end: vma.end.toString(16),
      perms: vma.perms,
      path: vma.path,
      ...rest,
      smapsKb: vma.fieldsKb,
      vmFlags: vma.vmFlags,
    })),
    fork,
  };
}

export function runInspect(sharing: MemorySharing, fork: ForkPrediction, options: TextOptions = {}): CommandOutput {
  return { text: inspectReport(sharing, fork, options), json: inspectJson(sharing, fork), exitCode: 0 };
}
