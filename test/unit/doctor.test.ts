import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { stripVTControlCharacters } from 'node:util';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { doctorReport, runDoctor } from '../../lib/cli/doctor.js';
import { examineHost, isUsable, type ExamineInput, type Finding, type NativeProbes } from '../../lib/proc/doctor.js';

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'cowlab-doctor-'));
  for (const [path, text] of Object.entries(HOST)) put(path, text);
});
afterEach(() => {
  rmSync(root, { recursive: true });
});

function put(path: string, text: string): void {
  const full = join(root, path);
  mkdirSync(dirname(full), { recursive: true });
  writeFileSync(full, text);
}

/** A host on which all is well: 1 GiB of RAM, 256 MiB of swap. */
const HOST: Record<string, string> = {
  'proc/sys/kernel/osrelease': '6.18.1-test\n',
  'proc/sys/vm/overcommit_memory': '0\n',
  'proc/sys/vm/overcommit_ratio': '50\n',
  'proc/sys/vm/overcommit_kbytes': '0\n',
  'proc/sys/vm/max_map_count': '65530\n',
  'proc/sys/vm/unprivileged_userfaultfd': '0\n',
  'proc/meminfo':
    'MemTotal: 1048576 kB\nMemFree: 400000 kB\nMemAvailable: 524288 kB\nSwapTotal: 262144 kB\nSwapFree: 262144 kB\n' +
    'CommitLimit: 786432 kB\nCommitted_AS: 131072 kB\n',
  'proc/self/smaps': '1000-2000 rw-p 00000000 00:00 0 \nSize: 4 kB\nVmFlags: rd wr ac\n',
  'proc/self/pagemap': '0123456789abcdef',
  'proc/self/status':
    'Name:\tnode\nPid:\t1\nPPid:\t0\nUid:\t1000\t1000\t1000\t1000\nThreads:\t1\nCapEff:\t0000000000000000\n',
  'proc/self/limits':
    'Limit                     Soft Limit           Hard Limit           Units     \n' +
    'Max processes             4096                 4096                 processes \n' +
    'Max locked memory         8192                 8192                 bytes     \n' +
    'Max address space         unlimited            unlimited            bytes     \n',
  'proc/self/cgroup': '0::/a\n',
  'proc/self/mountinfo': '30 1 0:26 / /cg rw - cgroup2 cgroup2 rw\n',
  'cg/cgroup.controllers': 'memory pids\n',
  'cg/a/memory.max': 'max\n',
  'cg/a/pids.max': 'max\n',
  'sys/kernel/mm/transparent_hugepage/enabled': 'always [madvise] never\n',
  'sys/kernel/mm/transparent_hugepage/shmem_enabled': 'always [never]\n',
  'sys/kernel/mm/ksm/run': '1\n',
  'sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages': '0\n',
};

const OK = { ok: true } as const;
const PROBES: NativeProbes = {
  pagemapScan: OK,
  procmapQuery: OK,
  softDirty: OK,
  userfaultfdWpAsync: OK,
  pfnVisible: OK,
  forbidsZeroPage: false,
  namedAnonymousVmas: OK,
  sysinfo: { memTotalPages: 262144, swapTotalPages: 65536 },
};

function examine(change: Partial<ExamineInput> = {}): Finding[] {
  return examineHost({
    probes: PROBES,
    pageSizeBytes: 4096,
    nodeVersion: 'v22.1.0',
    procRoot: join(root, 'proc'),
    sysRoot: join(root, 'sys'),
    fsRoot: root,
    ...change,
  });
}

function finding(name: string, change: Partial<ExamineInput> = {}): Finding {
  const found = examine(change).find((candidate) => candidate.name === name);
  if (!found) throw new Error(`no finding ${name}`);
  return found;
}

describe('a host on which all is well', () => {
  it('has one finding of each name, and all but root rights and hugetlb are ok', () => {
    const findings = examine();
    const names = findings.map(({ name }) => name);
    expect(new Set(names).size).toBe(names.length);
    expect(names).toEqual(
      expect.arrayContaining([
        ...[
          'kernel',
          'node',
          'container',
          'privileges',
          'overcommit',
          'commit-limit',
          'memory',
          'thp',
          'pagemap',
          'zero-page',
          'pfn',
        ],
        ...['pagemap-scan', 'procmap-query', 'soft-dirty', 'userfaultfd', 'named-vmas', 'cgroup-memory', 'cgroup-pids'],
        ...['process-limits', 'ksm', 'hugetlb'],
      ]),
    );
    const others = findings.filter(({ status }) => status !== 'ok').map(({ name }) => name);
    expect(others).toEqual(['privileges', 'hugetlb']);
    expect(isUsable(findings)).toBe(true);
  });

  it('says with figures what was found', () => {
    expect(finding('memory').found).toBe(
      'RAM 1.00 GiB (0.50 GiB available), swap 0.25 GiB; 327680 pages in all; sysinfo(2) agrees',
    );
    expect(finding('commit-limit').found).toBe(
      'CommitLimit 0.75 GiB, Committed_AS 0.13 GiB; as the settings compute it',
    );
  });
});

describe('each limit is found', () => {
  it('a kernel that forbids the zero page says so, and lacks nothing', () => {
    expect(finding('zero-page').found).toBe('a read takes no memory');
    const probes = { ...PROBES, forbidsZeroPage: true };
    expect(finding('zero-page', { probes })).toMatchObject({ status: 'ok' });
    expect(finding('zero-page', { probes }).found).toContain('a read takes a page');
  });

  it.each([
    ['overcommit', 'proc/sys/vm/overcommit_memory', '1\n', 'limited', '1, always'],
    ['overcommit', 'proc/sys/vm/overcommit_memory', '2\n', 'limited', '50% of RAM'],
    ['commit-limit', 'proc/sys/vm/overcommit_ratio', '80\n', 'limited', "may not be the kernel's own"],
    ['kernel', 'proc/sys/kernel/osrelease', '6.1.0-debian\n', 'limited', 'no PAGEMAP_SCAN'],
    ['kernel', 'proc/sys/kernel/osrelease', '4.19.0\n', 'limited', 'judges by free memory'],
    ['thp', 'sys/kernel/mm/transparent_hugepage/enabled', '[always] madvise never\n', 'limited', 'anonymous: always'],
    ['thp', 'sys/kernel/mm/transparent_hugepage/enabled', 'always madvise [never]\n', 'limited', 'anonymous: never'],
    ['ksm', 'sys/kernel/mm/ksm/run', '0\n', 'limited', 'not running'],
    ['hugetlb', 'sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages', '3\n', 'ok', '2048 kB: 3'],
    ['cgroup-pids', 'cg/a/pids.max', '33\n', 'limited', 'of 33 in'],
    ['cgroup-memory', 'cg/a/memory.max', '34603008\n', 'limited', 'of 33 MiB in'],
    ['container', 'run/systemd/container', 'lxc\n', 'ok', 'lxc'],
  ])('%s from %s', (name, path, text, status, found) => {
    put(path, text);
    expect(finding(name).status).toBe(status);
    expect(finding(name).found).toContain(found);
  });

  it("a /proc/meminfo that is not the kernel's own", () => {
    const probes = { ...PROBES, sysinfo: { memTotalPages: 262145, swapTotalPages: 65536 } };
    expect(finding('memory', { probes })).toMatchObject({ status: 'limited' });
    expect(finding('memory', { probes }).found).toContain('sysinfo(2) says 262145 + 65536 pages');
  });

  it.each([
    ['pfn', 'pfnVisible'],
    ['pagemap-scan', 'pagemapScan'],
    ['procmap-query', 'procmapQuery'],
    ['soft-dirty', 'softDirty'],
    ['userfaultfd', 'userfaultfdWpAsync'],
    ['named-vmas', 'namedAnonymousVmas'],
  ] as const)('%s by its own probe, with the errno and a remedy', (name, probe) => {
    const refused = finding(name, { probes: { ...PROBES, [probe]: { ok: false, code: 'ENOTTY' } } });
    expect(refused.status).not.toBe('ok');
    expect(refused.found).toContain('ENOTTY');
    expect(refused.remedy).not.toBe('');
    const others = examine({ probes: { ...PROBES, [probe]: { ok: false, code: 'ENOTTY' } } });
    expect(others.filter(({ found }) => found.includes('ENOTTY'))).toHaveLength(1);
  });
});

describe('what cannot be found out', () => {
  it('is unknown without the addon, never missing', () => {
    const findings = examine({ probes: undefined });
    const unknown = findings.filter(({ status }) => status === 'unknown').map(({ name }) => name);
    expect(unknown).toEqual([
      'memory',
      'zero-page',
      'pfn',
      'pagemap-scan',
      'procmap-query',
      'soft-dirty',
      'userfaultfd',
      'named-vmas',
    ]);
    expect(isUsable(findings)).toBe(true);
  });

  it('is unknown for a file that is not there or of another form, and the other checks go on', () => {
    rmSync(join(root, 'proc/meminfo'));
    put('sys/kernel/mm/ksm/run', 'what\n');
    expect(finding('memory')).toMatchObject({ status: 'unknown' });
    expect(finding('ksm').found).toContain('cannot parse "what"');
    expect(finding('overcommit').status).toBe('ok');
  });

  it('stops everything only when nothing works without it', () => {
    expect(isUsable(examine({ nodeVersion: 'v20.18.0' }))).toBe(false);
    rmSync(join(root, 'proc/self/pagemap'));
    expect(finding('pagemap')).toMatchObject({ status: 'missing', found: 'cannot be read: ENOENT' });
    expect(isUsable(examine())).toBe(false);
  });
});

describe('the report', () => {
  it('is at most 80 columns wide, has every finding, and no colour unless asked', () => {
    put('sys/kernel/mm/transparent_hugepage/enabled', '[always] madvise never\n');
    const findings = examine({ probes: undefined });
    const report = doctorReport(findings);
    for (const line of report.split('\n')) {
      // A path that is longer than the line is not broken.
      if (!line.includes(root)) expect(line.length).toBeLessThanOrEqual(80);
    }
    for (const { name } of findings) expect(report).toContain(name);
    expect(report).not.toContain('\u001b');
    const coloured = doctorReport(findings, { color: true });
    expect(coloured).toContain('\u001b[32m');
    expect(stripVTControlCharacters(coloured)).toBe(report);
  });

  it('says what helps for what is not ok, and only there', () => {
    const lines = doctorReport([
      { name: 'a', status: 'ok', found: 'fine', neededFor: 'x', remedy: 'none' },
      { name: 'b', status: 'limited', found: 'short', neededFor: 'y', remedy: 'do z' },
    ]).split('\n');
    expect(lines).toEqual([
      'ok       a               fine',
      'limited  b               short',
      '                         needed for: y',
      '                         what helps: do z',
      '',
      'cowlab works on this host: 1 ok, 1 limited.',
    ]);
  });

  it('exits with 3 only where nothing can work', () => {
    expect(runDoctor(examine()).exitCode).toBe(0);
    const output = runDoctor(examine({ nodeVersion: 'v18.0.0' }));
    expect(output.exitCode).toBe(3);
    expect(output.text).toContain('cowlab cannot work on this host');
    expect(JSON.parse(JSON.stringify(output.json))).toMatchObject({ usable: false });
  });
});
