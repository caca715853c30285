/** Settings of the whole system under /sys/kernel/mm, and the kernel's release. */
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { PROC_ROOT, ProcFormatError, SYS_ROOT, readHostFile, readIfThere, readNumberIfThere } from './read.js';

/**
 * The choice in brackets of a file such as 'always [madvise] never'.
 * @throws ProcFormatError when none is.
 */
export function parseChoice(text: string, file = 'setting'): string {
  const open = text.indexOf('[');
  const close = text.indexOf(']', open);
  if (open === -1 || close === -1) throw new ProcFormatError(file, 1, text.trim(), 'one choice in brackets');
  return text.slice(open + 1, close);
}

function readChoice(path: string): string | undefined {
  const text = readIfThere(path);
  return text === undefined ? undefined : parseChoice(text, path);
}

/** Transparent huge pages [Documentation/admin-guide/mm/transhuge.rst]. Undefined: this kernel has not got the setting. */
export interface ThpSettings {
  enabled: string | undefined;
  defrag: string | undefined;
  shmemEnabled: string | undefined;
  pmdSizeBytes: number | undefined;
  /** Whether a read of an untouched huge page maps the huge zero page (use_zero_page). */
  usesZeroPage: boolean | undefined;
  /** Multi-size THP (6.8): the `enabled` of each size, by the size in kB. */
  sizes: Record<string, string>;
}

/** Names of the entries of a directory; none when it cannot be read. */
function entries(path: string): string[] {
  try {
    return readdirSync(path).sort();
  } catch {
    return [];
  }
}

function asBoolean(number: number | undefined): boolean | undefined {
  return number === undefined ? undefined : number !== 0;
}

export function readThpSettings(sysRoot: string = SYS_ROOT): ThpSettings {
  const root = join(sysRoot, 'kernel/mm/transparent_hugepage');
  const sizes: Record<string, string> = {};
  for (const name of entries(root)) {
    const match = /^hugepages-(\d+)kB$/.exec(name);
    const choice = match ? readChoice(join(root, name, 'enabled')) : undefined;
    if (match?.[1] !== undefined && choice !== undefined) sizes[match[1]] = choice;
  }
  return {
    enabled: readChoice(join(root, 'enabled')),
    defrag: readChoice(join(root, 'defrag')),
    shmemEnabled: readChoice(join(root, 'shmem_enabled')),
    pmdSizeBytes: readNumberIfThere(join(root, 'hpage_pmd_size')),
    usesZeroPage: asBoolean(readNumberIfThere(join(root, 'use_zero_page'))),
    sizes,
  };
}

/** One size of hugetlb pages [Documentation/admin-guide/mm/hugetlbpage.rst]. */
export interface HugetlbPool {
  sizeKb: number;
  total: number;
  free: number | undefined;
  reserved: number | undefined;
  surplus: number | undefined;
}

/** The pools of hugetlb pages; none on a kernel without them. */
export function readHugetlb(sysRoot: string = SYS_ROOT): HugetlbPool[] {
  const root = join(sysRoot, 'kernel/mm/hugepages');
  const pools: HugetlbPool[] = [];
  for (const name of entries(root)) {
    const match = /^hugepages-(\d+)kB$/.exec(name);
    const total = match ? readNumberIfThere(join(root, name, 'nr_hugepages')) : undefined;
    if (match?.[1] === undefined || total === undefined) continue;
    pools.push({
      sizeKb: Number(match[1]),
      total,
      free: readNumberIfThere(join(root, name, 'free_hugepages')),
      reserved: readNumberIfThere(join(root, name, 'resv_hugepages')),
      surplus: readNumberIfThere(join(root, name, 'surplus_hugepages')),
    });
  }
  return pools.sort((a, b) => a.sizeKb - b.sizeKb);
}

/**
 * Major and minor number of a release such as '6.18.44-fc-v669' or '5.2-rc1'.
 * @throws ProcFormatError when it does not begin with them.
 */
export function parseKernelRelease(release: string): [major: number, minor: number] {
  const match = /^(\d+)\.(\d+)/.exec(release);
  if (!match) throw new ProcFormatError('kernel release', 1, release, 'major.minor');
  return [Number(match[1]), Number(match[2])];
}

/** As uname -r. */
export function readKernelRelease(procRoot: string = PROC_ROOT): string {
  return readHostFile(join(procRoot, 'sys/kernel/osrelease')).trim();
}

/**
 * Whether the kernel was built with an option, by /proc/config.gz; undefined where there is no such file.
 * @param option Such as 'CONFIG_ANON_VMA_NAME'.
 */
export function readKernelOption(option: string, procRoot: string = PROC_ROOT): boolean | undefined {
  const lines = procRoot === PROC_ROOT ? (ownConfig ??= readConfig(PROC_ROOT)) : readConfig(procRoot);
  return lines && (lines.has(`${option}=y`) || lines.has(`${option}=m`));
}

/** Of this kernel, which was built once: it is unpacked for the first who asks. */
let ownConfig: ReadonlySet<string> | undefined;

function readConfig(procRoot: string): ReadonlySet<string> | undefined {
  const path = join(procRoot, 'config.gz');
  if (!existsSync(path)) return undefined;
  return new Set(gunzipSync(readFileSync(path)).toString().split('\n'));
}

/** Whether a version is at least another. */
export function isAtLeast(version: readonly [number, number], wanted: readonly [number, number]): boolean {
  return version[0] > wanted[0] || (version[0] === wanted[0] && version[1] >= wanted[1]);
}

/**
 * The number of CPUs in a list such as '0-3,8'.
 * @throws ProcFormatError for another form.
 */
export function parseCpuList(text: string, file = 'cpu list'): number {
  let count = 0;
  for (const part of text.trim().split(',')) {
    const match = /^(\d+)(?:-(\d+))?$/.exec(part);
    if (!match) throw new ProcFormatError(file, 1, text, "'0-3,8'");
    count += Number(match[2] ?? match[1]) - Number(match[1]) + 1;
  }
  return count;
}
