import { spawn, type ChildProcess } from 'node:child_process';
import { readFileSync, readlinkSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { SystemError } from '../../lib/errors.js';
import { readCgroups } from '../../lib/proc/cgroup.js';
import { collectHostFacts } from '../../lib/proc/facts.js';
import { commitFigures, computeCommitLimitPages, readMeminfo } from '../../lib/proc/meminfo.js';
import {
  readSmaps,
  readSmapsRollup,
  vmaPages,
  isChargedAtFork,
  type SmapsRollup,
  type SmapsVma,
} from '../../lib/proc/smaps.js';
import { readStat, readStatm } from '../../lib/proc/stat.js';
import { readLimits, readStatus } from '../../lib/proc/status.js';
import { readSysctls } from '../../lib/proc/sysctl.js';
import { readHugetlb, readThpSettings } from '../../lib/proc/system.js';
import { readVmstat } from '../../lib/proc/vmstat.js';
import { HostFactsSchema } from '../../lib/schema/facts.js';
import { Value } from 'typebox/value';
import { KERNEL_THREAD, whyNoKernelThread } from './kernel-thread.js';

/** The page size, as the kernel says it of the first VMA. */
const pageSizeBytes = (readSmaps('self')[0]?.fieldsKb['KernelPageSize'] ?? 0) * 1024;

describe('a stopped process', () => {
  let child: ChildProcess;
  let pid: number;

  beforeAll(async () => {
    child = spawn('sleep', ['600'], { stdio: 'ignore' });
    await new Promise((resolve, reject) => {
      child.once('spawn', resolve);
      child.once('error', reject);
    });
    pid = child.pid ?? 0;
    child.kill('SIGSTOP');
    // SIGSTOP takes effect some time after kill returns: wait for the state, not for a time.
    while (readStat(pid).state !== 'T') await new Promise(setImmediate);
  });

  afterAll(async () => {
    const gone = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGKILL');
    await gone;
    expect(() => readSmaps(pid)).toThrow(SystemError);
    expect(() => readStat(pid)).toThrow(expect.objectContaining({ code: 'ESRCH', errno: -3 }) as Error);
  });

  it('has the same sums in smaps and in smaps_rollup', () => {
    // Others that map the same libc come and go, and change its Pss: read until nothing changed around the reading.
    let vmas: SmapsVma[];
    let rollup = readSmapsRollup(pid);
    let before: SmapsRollup;
    do {
      before = rollup;
      vmas = readSmaps(pid);
      rollup = readSmapsRollup(pid);
    } while (JSON.stringify(before.fieldsKb) !== JSON.stringify(rollup.fieldsKb));
    expect(vmas.length).toBeGreaterThan(5);
    const compared = Object.keys(rollup.fieldsKb).filter((name) => vmas.some((vma) => name in vma.fieldsKb));
    expect(compared).toEqual(
      expect.arrayContaining(['Rss', 'Pss', 'Private_Dirty', 'Shared_Clean', 'Anonymous', 'Swap']),
    );
    for (const name of compared) {
      const sum = vmas.reduce((total, vma) => total + (vma.fieldsKb[name] ?? 0), 0);
      const rolled = rollup.fieldsKb[name] ?? NaN;
      if (name.includes('Pss')) {
        // Pss is floored for each VMA in smaps, and once in the rollup [smap_gather_stats, show_smaps_rollup].
        expect(rolled - sum).toBeGreaterThanOrEqual(0);
        expect(rolled - sum).toBeLessThanOrEqual(vmas.length);
      } else expect({ name, sum }).toEqual({ name, sum: rolled });
    }
  });

  it('has VMAs in address order, whose lengths are their Size, and the flags of what they are', () => {
    const vmas = readSmaps(pid);
    vmas.forEach((vma, index) => {
      expect(vmaPages(vma, pageSizeBytes) * pageSizeBytes).toBe((vma.fieldsKb['Size'] ?? NaN) * 1024);
      expect(vma.vmFlags.includes('wr')).toBe(vma.perms.includes('w'));
      const next = vmas[index + 1];
      if (next) expect(next.start >= vma.end).toBe(true);
    });
    const stack = vmas.find((vma) => vma.path === '[stack]');
    expect(stack && isChargedAtFork(stack)).toBe(true);
    // Its file need not be called sleep: with busybox it is not.
    const program = readlinkSync(`/proc/${String(pid)}/exe`);
    const code = vmas.find((vma) => vma.perms === 'r-xp' && vma.path === program);
    expect(code && !isChargedAtFork(code) && code.inode > 0n).toBe(true);
  });

  it('has total_vm in statm as the sum of its VMAs, [vsyscall] left out', () => {
    const pages = readSmaps(pid)
      .filter((vma) => vma.path !== '[vsyscall]')
      .reduce((sum, vma) => sum + vmaPages(vma, pageSizeBytes), 0);
    expect(readStatm(pid).sizePages).toBe(pages);
    expect(readStat(pid).vsizeBytes).toBe(pages * pageSizeBytes);
  });

  it('is our child in stat and in status', () => {
    expect(readStat(pid)).toMatchObject({ pid, comm: 'sleep', state: 'T', ppid: process.pid, threads: 1 });
    expect(readStatus(pid)).toMatchObject({ pid, name: 'sleep', state: 'T', ppid: process.pid, threads: 1 });
    expect(readStatus(pid).uids[0]).toBe(process.getuid?.());
  });
});

describe('this process', () => {
  it('has the parent and the faults that Node says it has', () => {
    const before = process.resourceUsage();
    const stat = readStat('self');
    const after = process.resourceUsage();
    expect(stat.pid).toBe(process.pid);
    expect(stat.ppid).toBe(process.ppid);
    expect(stat.minflt).toBeGreaterThanOrEqual(before.minorPageFault);
    expect(stat.minflt).toBeLessThanOrEqual(after.minorPageFault);
    expect(stat.majflt).toBeGreaterThanOrEqual(before.majorPageFault);
    expect(stat.majflt).toBeLessThanOrEqual(after.majorPageFault);
  });

  it('has the limits that the shell sees, and a cgroup', () => {
    const limits = readLimits('self');
    expect(limits['Max processes']?.units).toBe('processes');
    expect(limits['Max open files']?.soft).toBeGreaterThan(0);
    expect(() => readCgroups('self')).not.toThrow();
  });

  it('has accounted mappings, and a heap of V8 that fork leaves out', () => {
    const flags = new Set(readSmaps('self').flatMap((vma) => vma.vmFlags));
    expect(flags).toContain('ac');
    expect(flags).toContain('dc');
  });
});

describe('errors', () => {
  it('a pid that cannot be is ESRCH', () => {
    expect(() => readSmaps(2 ** 22 + 1)).toThrow(expect.objectContaining({ code: 'ESRCH', syscall: 'open' }) as Error);
    expect(() => readSmapsRollup(2 ** 22 + 1)).toThrow(/there is no process 4194305/);
  });

  it('a kernel thread has no VMAs', ({ skip }) => {
    const lacking = whyNoKernelThread();
    if (lacking !== undefined) skip(lacking);
    expect(readSmaps(KERNEL_THREAD)).toEqual([]);
  });
});

describe('this host', () => {
  it('has a CommitLimit as its settings compute it', ({ skip }) => {
    const figures = commitFigures(readMeminfo(), pageSizeBytes);
    const sysctls = readSysctls();
    if (readFileSync('/proc/self/mounts', 'utf8').includes('lxcfs /proc/meminfo')) skip('lxcfs writes /proc/meminfo');
    const hugetlbPages = readHugetlb().reduce(
      (sum, pool) => sum + (pool.total * pool.sizeKb * 1024) / pageSizeBytes,
      0,
    );
    expect(figures.commitLimitPages).toBe(
      computeCommitLimitPages({
        memTotalPages: figures.memTotalPages,
        swapTotalPages: figures.swapTotalPages,
        hugetlbPages,
        overcommitRatio: sysctls.overcommitRatio ?? NaN,
        overcommitKbytes: sysctls.overcommitKbytes ?? NaN,
        pageSizeBytes,
      }),
    );
  });

  it('shows THP choices and vmstat counters', () => {
    expect([undefined, 'always', 'madvise', 'never']).toContain(readThpSettings().enabled);
    expect(readVmstat()['nr_free_pages']).toBeGreaterThan(0);
  });

  it('gives facts that fit their schema, and survive JSON', () => {
    const figures = commitFigures(readMeminfo(), pageSizeBytes);
    const facts = collectHostFacts({
      pageSizeBytes,
      rootPid: process.pid,
      capSysAdmin: false,
      memTotalPages: figures.memTotalPages,
      swapTotalPages: figures.swapTotalPages,
    });
    expect([...Value.Errors(HostFactsSchema, facts)]).toEqual([]);
    expect(JSON.parse(JSON.stringify(facts))).toEqual(facts);
    expect(facts.pagesPerTable).toBe(pageSizeBytes / 8);
    expect(facts.rootAccountedVmas.length).toBeGreaterThan(0);
    expect(facts.commitLimitPages).toBe(figures.commitLimitPages);
  });
});
