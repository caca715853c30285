import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { stripVTControlCharacters } from 'node:util';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { TOP_VMAS, predictReport, runPredict } from '../../lib/cli/predict.js';
import { binaryBytes, chargesOf, predictFork, type ForkPrediction } from '../../lib/machine/linux/predict.js';
import { parseSmaps } from '../../lib/proc/smaps.js';
import type { HostFacts } from '../../lib/schema/facts.js';

/** A host of 1,000 pages of RAM and 24 of swap. */
const FACTS: HostFacts = {
  kernelRelease: '6.18.1',
  kernelVersion: [6, 18],
  arch: 'x64',
  pageSizeBytes: 4096,
  cpus: 1,
  memTotalPages: 1000,
  swapTotalPages: 24,
  overcommitMode: 0,
  hugetlbPages: 0,
  commitLimitPages: 700,
  committedPages: 100,
  adminReservePages: 0,
  userReservePages: 0,
  capSysAdmin: false,
  faultAroundPages: 16,
  pagesPerTable: 512,
  thpEnabled: 'madvise',
  shmemThpEnabled: 'never',
  rootAccountedVmas: [],
  rootTotalPages: 0,
  free: { freePages: 600, filePages: 100, shmemPages: 0, swapFreePages: 24, reclaimableSlabPages: 5 },
};

/** A VMA of so many pages at a page number of its own. */
function vma(page: number, pages: number, perms: string, flags: string, path = ''): string {
  const hex = (value: number): string => (value * 4096).toString(16);
  return `${hex(page)}-${hex(page + pages)} ${perms} 00000000 00:00 0    ${path}\nSize: ${pages * 4} kB\nVmFlags: ${flags} \n`;
}

const SMAPS =
  vma(1000, 7, 'r-xp', 'rd ex mr', '/usr/bin/python3') +
  vma(2000, 11, 'rw-p', 'rd wr mr ac', '[heap]') +
  vma(3000, 13, 'rw-p', 'rd wr mr ac dc') +
  vma(4000, 17, 'rw-p', 'rd wr mr ac wf', '/dev/secret') +
  vma(5000, 19, 'rw-s', 'rd wr sh', '/memfd:x (deleted)') +
  vma(6000, 23, 'rw-p', 'rd wr nr');

const STATUS =
  'Name:\tpython3\nPid:\t1234\nPPid:\t1\nUid:\t1000\t1000\t1000\t1000\nThreads:\t3\nVmPTE:\t40 kB\nCapEff:\t0\n';

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'cowlab-predict-'));
  const numbers = Array.from({ length: 49 }, () => '0').join(' ');
  put('1234/stat', `1234 (python3) S ${numbers}\n`);
  put('1234/statm', '90 5 4 3 0 2 0\n');
  put('1234/smaps', SMAPS);
  put('1234/maps', '');
  put('1234/status', STATUS);
  put('1234/cgroup', '0::/\n');
  put('1234/limits', limits('4096'));
  for (const [link, target] of [
    ['user', 'user:[4026531837]'],
    ['pid', 'pid:[4026531836]'],
    ['pid_for_children', 'pid:[4026531836]'],
  ] as const) {
    mkdirSync(join(root, '1234/ns'), { recursive: true });
    symlinkSync(target, join(root, '1234/ns', link));
  }
  put('meminfo', 'MemAvailable: 900000 kB\n');
  put('loadavg', '0.1 0.1 0.1 1/200 77\n');
  put('self/mountinfo', '');
  put('self/mounts', '');
  put('sys/vm/max_map_count', '65530\n');
  put('sys/kernel/threads-max', '1000\n');
  put('sys/kernel/pid_max', '32768\n');
});
afterEach(() => {
  rmSync(root, { recursive: true });
});

function put(path: string, text: string): void {
  const full = join(root, path);
  mkdirSync(dirname(full), { recursive: true });
  writeFileSync(full, text);
}

function limits(processes: string): string {
  return `Limit                     Soft Limit           Hard Limit           Units     \nMax processes             ${processes.padEnd(21)}4096                 processes \n`;
}

function predict(change: Partial<HostFacts> = {}): ForkPrediction {
  return predictFork(1234, { ...FACTS, ...change }, root, root);
}

describe('the charge of each VMA', () => {
  it('is its length if accounted, and nothing if dontfork, noreserve, shared or read-only', () => {
    expect(
      chargesOf(parseSmaps(SMAPS), 4096).map(({ pages, chargedPages, reason, wipeonfork }) => [
        pages,
        chargedPages,
        reason,
        wipeonfork,
      ]),
    ).toEqual([
      [7, 0, 'not-accounted', false],
      [11, 11, 'accounted', false],
      [13, 0, 'dontfork', false],
      [17, 17, 'accounted', true],
      [19, 0, 'not-accounted', false],
      [23, 0, 'noreserve', false],
    ]);
  });
});

describe('predictFork', () => {
  it('adds up the charge, and says that a fork which nothing refuses would succeed', () => {
    expect(predict()).toMatchObject({
      pid: 1234,
      comm: 'python3',
      chargedPages: 28,
      chargedBytes: 28 * 4096,
      byReason: {
        accounted: { vmas: 2, pages: 28 },
        dontfork: { vmas: 1, pages: 13 },
        noreserve: { vmas: 1, pages: 23 },
        'not-accounted': { vmas: 2, pages: 26 },
      },
      outcome: 'succeeds',
      otherCauses: [],
      sentence: 'A fork of 1234 (python3) would charge 112.0 KiB and would succeed.',
    });
  });

  it.each([
    [1024, 'succeeds'],
    [1025, 'fails'],
  ])('mode 0: one VMA of %i pages on a host of 1,024 %s', (pages, outcome) => {
    put('1234/smaps', SMAPS + vma(10_000, pages, 'rw-p', 'rd wr ac'));
    expect(predict().outcome).toBe(outcome);
  });

  it('mode 0: the same amount in two VMAs succeeds, and a refusal is ENOMEM with its rule', () => {
    put('1234/smaps', vma(10_000, 1024, 'rw-p', 'rd wr ac') + vma(20_000, 1024, 'rw-p', 'rd wr ac'));
    expect(predict().outcome).toBe('succeeds');
    put('1234/smaps', vma(10_000, 2048, 'rw-p', 'rd wr ac'));
    const refused = predict();
    expect(refused).toMatchObject({ outcome: 'fails', errno: 'ENOMEM', admission: { fork: 'refused' } });
    expect(refused.refusedVma).toMatchObject({ start: '2710000', pages: 2048 });
    expect(predictReport(refused)).toContain('The VMA that is refused: 2710000-2f10000, 2048 pages, anonymous.');
    expect(refused.sentence).toBe(
      'A fork of 1234 (python3) would charge 8.0 MiB and would fail with ENOMEM (overcommit).',
    );
  });

  it('mode 1 refuses nothing', () => {
    put('1234/smaps', vma(10_000, 5000, 'rw-p', 'rd wr ac'));
    expect(predict({ overcommitMode: 1 }).outcome).toBe('succeeds');
  });

  it('mode 2 refuses what passes CommitLimit', () => {
    put('1234/smaps', vma(10_000, 5000, 'rw-p', 'rd wr ac'));
    expect(predict({ overcommitMode: 2 })).toMatchObject({ outcome: 'fails', errno: 'ENOMEM' });
    // The counter of one CPU may be 31 pages off: 100 committed and 500 more stay clear of 700, and 590 do not.
    put('1234/smaps', vma(10_000, 500, 'rw-p', 'rd wr ac'));
    expect(predict({ overcommitMode: 2 }).outcome).toBe('succeeds');
    put('1234/smaps', vma(10_000, 590, 'rw-p', 'rd wr ac'));
    const close = predict({ overcommitMode: 2 });
    expect(close).toMatchObject({ outcome: 'uncertain', admission: { fork: 'uncertain' } });
    expect(close).not.toHaveProperty('errno');
    expect(close.sentence).toContain('too close to tell');
  });

  it('mode 2 holds the admin reserve back unless the process that forks has CAP_SYS_ADMIN, whoever asks', () => {
    put('1234/smaps', vma(10_000, 500, 'rw-p', 'rd wr ac'));
    const strict = { overcommitMode: 2, adminReservePages: 300, capSysAdmin: true } as const;
    expect(predict(strict).outcome).toBe('fails');
    put('1234/status', STATUS.replace('CapEff:\t0', 'CapEff:\t0000000000200000'));
    expect(predict(strict).outcome).toBe('succeeds');
  });

  it('sees that RLIMIT_NPROC refuses first, with EAGAIN', () => {
    put('1234/smaps', vma(10_000, 2048, 'rw-p', 'rd wr ac'));
    put('1234/limits', limits('3'));
    const { errno, sentence, otherCauses } = predict();
    expect(errno).toBe('EAGAIN');
    expect(sentence).toContain('would fail with EAGAIN (rlimit-nproc)');
    expect(otherCauses.map(({ cause, likelihood }) => [cause, likelihood])).toEqual([['rlimit-nproc', 'certain']]);
  });

  it('goes by mappings that have been read already, and reads them no second time', () => {
    const text = vma(10_000, 2048, 'rw-p', 'rd wr ac');
    rmSync(join(root, '1234/smaps'), { force: true });
    expect(predictFork(1234, FACTS, root, root, parseSmaps(text)).chargedBytes).toBe(2048 * 4096);
  });

  it('tells of a process that is not there, and of one without memory', () => {
    expect(() => predictFork(999, FACTS, root, root)).toThrow(expect.objectContaining({ code: 'ESRCH' }) as Error);
    put('1234/smaps', '');
    expect(() => predict()).toThrow('it has no memory of its own');
  });
});

describe('the report', () => {
  it('begins with the sentence, sums the small VMAs, and is 80 columns wide', () => {
    const many = Array.from({ length: 40 }, (_, index) =>
      vma(100_000 * (index + 1), index + 1, 'rw-p', 'rd wr ac', `/a/very/long/path/of/some/library/number-${index}.so`),
    ).join('');
    put('1234/smaps', SMAPS + many);
    const prediction = predict();
    const report = predictReport(prediction);
    const lines = report.split('\n');
    expect(lines[0]).toBe(prediction.sentence);
    for (const line of lines) expect(line.length).toBeLessThanOrEqual(80);
    expect(report).toContain(`${42 - TOP_VMAS} smaller ones`);
    expect(report).toContain('all 42 charged');
    expect(report).toContain('1 marked MADV_DONTFORK (52.0 KiB)');
    expect(report).not.toContain('\u001b');
    expect(stripVTControlCharacters(predictReport(prediction, { color: true }))).toBe(report);
  });

  it('marks WIPEONFORK, which is charged though the child finds it empty', () => {
    expect(predictReport(predict())).toContain('/dev/secret (wipeonfork)');
  });

  it('shows no control character that a process put into its name or its mappings', () => {
    put('1234/smaps', vma(1000, 1, 'rw-p', 'rd wr ac', '/tmp/\u001b[2Jx'));
    put('1234/stat', `1234 (\u001b[31mx) S ${Array.from({ length: 49 }, () => '0').join(' ')}\n`);
    const report = predictReport(predict());
    expect(report).not.toContain('\u001b');
    expect(report).toContain('/tmp/?[2Jx');
  });

  it('is an answer whatever it says, and its JSON is plain', () => {
    put('1234/limits', limits('1'));
    const output = runPredict(predict());
    expect(output.exitCode).toBe(0);
    expect(JSON.parse(JSON.stringify(output.json))).toEqual(output.json);
    expect(output.text).toContain('Refused by rlimit-nproc.');
    expect(output.text).toContain('What helps:');
  });
});

describe('binaryBytes', () => {
  it.each([
    [0, '0 bytes'],
    [1023, '1023 bytes'],
    [1024, '1.0 KiB'],
    [2_254_857_830, '2.1 GiB'],
    [2 ** 60, '1024.0 PiB'],
  ])('%i is %s', (bytes, text) => {
    expect(binaryBytes(bytes)).toBe(text);
  });
});
