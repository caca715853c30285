/**
 * What a process may have copied of memory that it shared, by smaps and its faults: what anybody may read of his own
 * processes. A page stops being shared when this process copies it, and as well when the others write theirs or end, so
 * that this is a bound: of pages that stopped being shared, at most as many were copied as there were faults.
 */
import { sharedKb } from './smaps.js';
import type { SmapsVma } from './smaps.js';

/** Anonymous private memory at some addresses, and how much of it is mapped by others too. */
export interface SharedPart {
  start: bigint;
  end: bigint;
  /** As smaps names it; '' for memory without a name. */
  name: string;
  sharedKb: number;
}

/** Memory that stopped being shared between two looks. */
export interface LostSharing {
  start: bigint;
  end: bigint;
  name: string;
  lostKb: number;
}

/** Mappings of a process that a fork shares and a write copies. Memory of files is left out: others map that too. */
export function inheritedVmas(vmas: readonly SmapsVma[]): SmapsVma[] {
  return vmas.filter(({ perms, inode }) => perms.endsWith('p') && inode === 0n);
}

export function sharedParts(inherited: readonly SmapsVma[]): SharedPart[] {
  return inherited.map((vma) => ({ start: vma.start, end: vma.end, name: vma.path, sharedKb: sharedKb(vma) }));
}

/** Neighbours merge and mappings are split: what overlaps, then and now, is taken together. */
export function lostSharing(then: readonly SharedPart[], now: readonly SharedPart[]): LostSharing[] {
  const all = [...then.map((part) => ({ part, sign: 1 })), ...now.map((part) => ({ part, sign: -1 }))];
  all.sort((a, b) => (a.part.start < b.part.start ? -1 : a.part.start > b.part.start ? 1 : 0));
  const groups: LostSharing[] = [];
  for (const { part, sign } of all) {
    const last = groups.at(-1);
    const lostKb = sign * part.sharedKb;
    if (!last || part.start >= last.end) {
      groups.push({ start: part.start, end: part.end, name: part.name, lostKb });
      continue;
    }
    if (part.end > last.end) last.end = part.end;
    last.lostKb += lostKb;
    last.name ||= part.name;
  }
  return groups.filter(({ lostKb }) => lostKb > 0);
}
