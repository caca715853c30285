import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { SystemError } from '../../lib/errors.js';
import { parseCgroup, parseMountinfo, readCgroups, tightest } from '../../lib/proc/cgroup.js';
import { detectContainer } from '../../lib/proc/container.js';
import { commitFigures, computeCommitLimitPages, parseMeminfo } from '../../lib/proc/meminfo.js';
import { pidPath, readNumberIfThere, readPidFile } from '../../lib/proc/read.js';
import { parseStat, parseStatHead, parseStatm, readUptimeTicks } from '../../lib/proc/stat.js';
import { CAP_SYS_ADMIN, CAP_SYS_RESOURCE, hasCapability, parseLimits, parseStatus } from '../../lib/proc/status.js';
import { readSysctls } from '../../lib/proc/sysctl.js';
import {
  isAtLeast,
  parseChoice,
  parseCpuList,
  parseKernelRelease,
  readHugetlb,
  readThpSettings,
} from '../../lib/proc/system.js';
import { readKsm, readKsmFacts } from '../../lib/proc/ksm.js';
import { parseVmstat } from '../../lib/proc/vmstat.js';

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'cowlab-proc-'));
});
afterEach(() => {
  rmSync(root, { recursive: true });
});

function put(path: string, text: string): void {
  const full = join(root, path);
  mkdirSync(dirname(full), { recursive: true });
  writeFileSync(full, text);
}

describe('meminfo', () => {
  const text = `MemTotal:       1004 kB
MemFree:         1008 kB
MemAvailable:    1012 kB
SwapTotal:       1016 kB
SwapFree:        1020 kB
CommitLimit:     1024 kB
Committed_AS:    1028 kB
HugePages_Total:    3
New_Field:       1032 kB
`;

  it('keeps every field, counts apart from kB', () => {
    const meminfo = parseMeminfo(text);
    expect(meminfo.counts).toEqual({ HugePages_Total: 3 });
    expect(meminfo.fieldsKb).toMatchObject({ MemTotal: 1004, New_Field: 1032 });
    expect(Object.keys(meminfo.fieldsKb)).toHaveLength(8);
  });

  it('routes the commit figures, in pages of the given size', () => {
    expect(commitFigures(parseMeminfo(text), 4096)).toEqual({
      commitLimitPages: 256,
      committedAsPages: 257,
      memTotalPages: 251,
      memTotalBytes: 1004 * 1024,
      memFreeBytes: 1008 * 1024,
      memAvailableBytes: 1012 * 1024,
      swapTotalPages: 254,
      swapTotalBytes: 1016 * 1024,
      swapFreeBytes: 1020 * 1024,
    });
  });

  it('names the line and the field it cannot do without', () => {
    expect(() => parseMeminfo('MemTotal: 1 kB\nnonsense\n', '/proc/meminfo')).toThrow('/proc/meminfo:2: cannot parse');
    expect(() => commitFigures(parseMeminfo('MemTotal: 1 kB\n'), 4096)).toThrow('no field CommitLimit');
  });

  it('computes CommitLimit by ratio, without hugetlb, or by kbytes; swap is added', () => {
    const host = { memTotalPages: 1001, swapTotalPages: 7, hugetlbPages: 200, pageSizeBytes: 4096 };
    expect(computeCommitLimitPages({ ...host, overcommitRatio: 50, overcommitKbytes: 0 })).toBe(400 + 7);
    expect(computeCommitLimitPages({ ...host, overcommitRatio: 0, overcommitKbytes: 42 })).toBe(10 + 7);
  });
});

describe('status', () => {
  const text = `Name:\ta (b) c
State:\tT (stopped)
Pid:\t11
PPid:\t12
Uid:\t13\t14\t15\t16
NSpid:\t11\t1
Threads:\t17
VmPTE:\t      18 kB
Seccomp:\t2
CapEff:\t0000000000200000
Later_Field:\tx y
`;

  it('routes its fields and keeps the rest', () => {
    const status = parseStatus(text);
    expect(status).toMatchObject({
      name: 'a (b) c',
      state: 'T',
      pid: 11,
      ppid: 12,
      uids: [13, 14, 15, 16],
      threads: 17,
      seccomp: 2,
      namespacePids: [11, 1],
      fieldsKb: { VmPTE: 18 },
    });
    expect(status.fields['Later_Field']).toBe('x y');
    expect(hasCapability(status, CAP_SYS_ADMIN)).toBe(true);
    expect(hasCapability(status, CAP_SYS_RESOURCE)).toBe(false);
  });

  it('says unknown for capabilities a kernel does not show', () => {
    const status = parseStatus(text.replace(/CapEff.*\n/, ''));
    expect(hasCapability(status, CAP_SYS_ADMIN)).toBeUndefined();
  });

  it('names the line it cannot parse, and the field that is not there', () => {
    expect(() => parseStatus('Name:\tx\nrubbish\n', 's')).toThrow('s:2: cannot parse "rubbish"');
    expect(() => parseStatus('Name:\tx\n')).toThrow("a line 'Pid:'");
  });
});

describe('limits', () => {
  const text = `Limit                     Soft Limit           Hard Limit           Units     
Max processes             21                   22                   processes 
Max address space         unlimited            23                   bytes     
Max nice priority         0                    24                   
`;

  it('reads the columns, unlimited as Infinity', () => {
    expect(parseLimits(text)).toEqual({
      'Max processes': { soft: 21, hard: 22, units: 'processes' },
      'Max address space': { soft: Infinity, hard: 23, units: 'bytes' },
      'Max nice priority': { soft: 0, hard: 24, units: '' },
    });
  });

  it('refuses another form', () => {
    expect(() => parseLimits('what\n', 'limits')).toThrow('limits:1');
    expect(() => parseLimits(`${text}Max x                     many                 2                    y\n`)).toThrow(
      'limits:5',
    );
  });
});

describe('stat', () => {
  const numbers = Array.from({ length: 49 }, (_, index) => String(1000 + index + 4)).join(' ');

  it('routes its fields, by the numbers of proc_pid_stat(5)', () => {
    const stat = parseStat(`77 (sh) S ${numbers}\n`);
    expect(stat).toMatchObject({
      pid: 77,
      comm: 'sh',
      state: 'S',
      ppid: 1004,
      pgrp: 1005,
      session: 1006,
      minflt: 1010,
      cminflt: 1011,
      majflt: 1012,
      cmajflt: 1013,
      threads: 1020,
      starttimeTicks: 1022,
      vsizeBytes: 1023,
      rssPages: 1024,
      policy: 1041,
    });
    expect(stat.fields[52]).toBe('1052');
  });

  it.each(['a b', ') S 9 (', '((', '))', 'line\nbreak', ''])('takes the whole name %j', (comm) => {
    const text = `77 (${comm}) R ${numbers}`;
    expect(parseStat(text)).toMatchObject({ comm, state: 'R', ppid: 1004 });
    expect(parseStatHead(text)).toEqual({ pid: 77, parent: 1004, state: 'R', text });
  });

  it('refuses what is cut short or not a number', () => {
    expect(() => parseStat('77 (sh) S 1 2')).toThrow('at least 24 fields');
    for (const head of ['77 (sh) S', '77 sh S 1 2', '(sh) S 1 2', '']) {
      expect(() => parseStatHead(head)).toThrow('pid (comm) state ppid');
    }
    expect(() => parseStat('77 sh S 1 2')).toThrow('stat:1');
    expect(() => parseStat(`77 (sh) S ${numbers.replace('1010', 'x')}`)).toThrow('field 10');
  });

  it('routes the columns of statm', () => {
    expect(parseStatm('31 32 33 34 0 35 0\n')).toEqual({
      sizePages: 31,
      residentPages: 32,
      sharedPages: 33,
      textPages: 34,
      dataPages: 35,
    });
    expect(() => parseStatm('1 2 3')).toThrow('seven numbers');
  });

  it('gives the time since boot in the ticks of starttime', () => {
    put('uptime', '11123.07 20012.99\n');
    expect(readUptimeTicks(root)).toBe(1112307);
    put('uptime', '11123 20012\n');
    expect(() => readUptimeTicks(root)).toThrow('seconds to two places');
  });
});

describe('the settings', () => {
  it('vmstat keeps every counter and refuses a line without one', () => {
    expect(parseVmstat('pswpin 41\nthp_new 42\n')).toEqual({ pswpin: 41, thp_new: 42 });
    expect(() => parseVmstat('pswpin 41\npswpout\n', 'v')).toThrow('v:2');
  });

  it('sysctls are routed, and one that is not there is undefined and not zero', () => {
    put('sys/vm/overcommit_memory', '2\n');
    put('sys/vm/overcommit_ratio', '51\n');
    put('sys/vm/admin_reserve_kbytes', '52\n');
    put('sys/vm/user_reserve_kbytes', '53\n');
    put('sys/vm/max_map_count', '54\n');
    put('sys/kernel/threads-max', '55\n');
    put('sys/kernel/pid_max', '56\n');
    expect(readSysctls(root)).toEqual({
      overcommitMemory: 2,
      overcommitRatio: 51,
      overcommitKbytes: undefined,
      adminReserveKbytes: 52,
      userReserveKbytes: 53,
      maxMapCount: 54,
      unprivilegedUserfaultfd: undefined,
      threadsMax: 55,
      pidMax: 56,
    });
    put('sys/vm/overcommit_memory', '3\n');
    expect(() => readSysctls(root)).toThrow('expected 0, 1 or 2');
  });

  it('a file of one number says so when it holds something else', () => {
    put('x', 'max\n');
    expect(readNumberIfThere(join(root, 'x'))).toBe(Infinity);
    put('x', 'abc\n');
    expect(() => readNumberIfThere(join(root, 'x'))).toThrow('one number');
    expect(readNumberIfThere(join(root, 'nothing'))).toBeUndefined();
  });

  it('THP, KSM and hugetlb are read from /sys', () => {
    const mm = 'kernel/mm';
    put(`${mm}/transparent_hugepage/enabled`, 'always [madvise] never\n');
    put(`${mm}/transparent_hugepage/defrag`, 'always defer [never]\n');
    put(`${mm}/transparent_hugepage/shmem_enabled`, 'always within_size [advise] never\n');
    put(`${mm}/transparent_hugepage/hpage_pmd_size`, '2097152\n');
    put(`${mm}/transparent_hugepage/hugepages-64kB/enabled`, 'always inherit madvise [never]\n');
    put(`${mm}/ksm/run`, '1\n');
    put(`${mm}/ksm/pages_shared`, '61\n');
    put(`${mm}/ksm/pages_sharing`, '62\n');
    put(`${mm}/ksm/ksm_zero_pages`, '66\n');
    put(`${mm}/ksm/full_scans`, '67\n');
    put(`${mm}/hugepages/hugepages-1048576kB/nr_hugepages`, '63\n');
    put(`${mm}/hugepages/hugepages-2048kB/nr_hugepages`, '64\n');
    put(`${mm}/hugepages/hugepages-2048kB/free_hugepages`, '65\n');
    expect(readThpSettings(root)).toEqual({
      enabled: 'madvise',
      defrag: 'never',
      shmemEnabled: 'advise',
      pmdSizeBytes: 2097152,
      sizes: { '64': 'never' },
    });
    expect(readKsm(root)).toEqual({ run: 1, pagesShared: 61, pagesSharing: 62, zeroPages: 66, fullScans: 67 });
    expect(readHugetlb(root).map(({ sizeKb, total, free }) => [sizeKb, total, free])).toEqual([
      [2048, 64, 65],
      [1048576, 63, undefined],
    ]);
  });

  it('whether there is KSM, and whether ksmd runs, is told apart from what /sys does not show', () => {
    const nothing = readKsmFacts(root, root);
    expect(nothing, 'no /sys').toEqual({ ksmRuns: true });
    put('kernel/mm/transparent_hugepage/enabled', 'always [madvise] never\n');
    expect(readKsmFacts(root, root)).toEqual({ hasKsm: false });
    const facts = ['0', '1', '2'].map((run) => {
      put('kernel/mm/ksm/run', `${run}\n`);
      return readKsmFacts(root, root);
    });
    expect(facts.map(({ hasKsm, ksmRuns }) => [hasKsm, ksmRuns])).toEqual([
      [true, false],
      [true, true],
      [true, false],
    ]);
  });

  it('what a kernel has not got is undefined', () => {
    expect(readThpSettings(root)).toMatchObject({ enabled: undefined, shmemEnabled: undefined, sizes: {} });
    expect(readKsm(root)).toBeUndefined();
    expect(readHugetlb(root)).toEqual([]);
  });

  it('releases, choices and CPU lists are parsed, and refused when of another form', () => {
    expect(parseKernelRelease('6.18.44-fc-v669')).toEqual([6, 18]);
    expect(parseKernelRelease('5.2-rc1')).toEqual([5, 2]);
    expect(isAtLeast([5, 19], [5, 2])).toBe(true);
    expect(isAtLeast([4, 19], [5, 2])).toBe(false);
    expect(parseCpuList('0-3,8\n')).toBe(5);
    expect(() => parseKernelRelease('Darwin')).toThrow('major.minor');
    expect(() => parseChoice('always never')).toThrow('one choice in brackets');
    expect(() => parseCpuList('0-')).toThrow('0-3,8');
  });
});

describe('cgroups', () => {
  it('lines of another form are refused', () => {
    expect(parseCgroup('3:cpu,cpuacct:/a:b\n0::/\n')).toEqual([
      { hierarchy: 3, controllers: ['cpu', 'cpuacct'], path: '/a:b' },
      { hierarchy: 0, controllers: [], path: '/' },
    ]);
    expect(() => parseCgroup('x\n')).toThrow('cgroup:1');
    expect(() => parseMountinfo('22 27 0:21 /\n')).toThrow('mountinfo:1');
    expect(parseMountinfo('1 2 0:3 /r /a\\040b rw shared:1 - ext4 src rw,x\n')).toEqual([
      { root: '/r', mountPoint: '/a b', options: ['rw'], fsType: 'ext4', source: 'src', superOptions: ['rw', 'x'] },
    ]);
  });

  it('v2: the tightest limit may be an ancestor, and max is none', () => {
    put('proc/self/cgroup', '0::/user/app\n');
    put('proc/self/mountinfo', '30 1 0:26 / /cg rw - cgroup2 cgroup2 rw\n');
    put('cg/cgroup.controllers', 'memory pids\n');
    put('cg/user/pids.max', '71\n');
    put('cg/user/pids.current', '70\n');
    put('cg/user/pids.events', 'max 5\n');
    put('cg/user/app/pids.max', '900\n');
    put('cg/user/app/pids.current', '72\n');
    put('cg/user/app/memory.max', 'max\n');
    const { pids, memory, kernelMemory } = readCgroups('self', join(root, 'proc'), root);
    expect(pids.version).toBe('v2');
    expect(pids.limits).toHaveLength(2);
    expect(tightest(pids)).toEqual({ directory: join(root, 'cg/user'), limit: 71, used: 70, hits: 5 });
    expect(memory).toMatchObject({ version: 'v2', limits: [] });
    expect(kernelMemory.version).toBe('none');
  });

  it('v1 in a container: the path is looked up below the root of the mount', () => {
    put('proc/9/cgroup', '4:memory:/docker/abc\n8:pids:/docker/abc\n0::/\n');
    put(
      'proc/self/mountinfo',
      '35 31 0:32 /docker/abc /m rw - cgroup cgroup rw,memory\n36 31 0:33 /docker/abc /p rw - cgroup cgroup rw,pids\n',
    );
    put('m/memory.limit_in_bytes', '81\n');
    put('m/memory.usage_in_bytes', '82\n');
    put('m/memory.failcnt', '83\n');
    put('m/memory.kmem.limit_in_bytes', '9223372036854771712\n');
    put('p/pids.max', 'max\n');
    const { pids, memory, kernelMemory } = readCgroups(9, join(root, 'proc'), root);
    expect(memory.limits).toEqual([{ directory: join(root, 'm'), limit: 81, used: 82, hits: 83 }]);
    expect(pids).toMatchObject({ version: 'v1', limits: [] });
    expect(kernelMemory).toMatchObject({ version: 'v1', limits: [] });
  });

  it('a controller that is not mounted here is none', () => {
    put('proc/self/cgroup', '0::/../..\n');
    put('proc/self/mountinfo', '30 1 0:26 / /cg rw - cgroup2 cgroup2 rw\n');
    expect(readCgroups('self', join(root, 'proc'), root).pids.version).toBe('none');
  });
});

describe('containers', () => {
  it.each([
    ['.dockerenv', '', 'docker'],
    ['run/.containerenv', '', 'podman'],
    ['run/systemd/container', 'systemd-nspawn\n', 'systemd-nspawn'],
    ['proc/1/environ', 'A=1\0container=lxc\0', 'lxc'],
    ['proc/1/cgroup', '0::/kubepods/x\n', 'kubernetes'],
  ])('is recognised by %s', (path, text, runtime) => {
    put(path, text);
    expect(detectContainer(root).runtime).toBe(runtime);
  });

  it('is none without a mark', () => {
    expect(detectContainer(root)).toMatchObject({ runtime: 'none', meminfoFaked: false });
  });

  it('lxcfs over /proc/meminfo is seen', () => {
    put('proc/self/mountinfo', '50 22 0:50 /proc/meminfo /proc/meminfo rw - fuse.lxcfs lxcfs rw\n');
    expect(detectContainer(root)).toMatchObject({ runtime: 'lxc', meminfoFaked: true });
  });
});

describe('a file of a process', () => {
  it('that is not there is ESRCH with a sentence', () => {
    let thrown: unknown;
    try {
      readPidFile(4242, 'smaps', root);
    } catch (error) {
      thrown = error;
    }
    expect(thrown).toBeInstanceOf(SystemError);
    expect(thrown).toMatchObject({ code: 'ESRCH', errno: -3, syscall: 'open' });
    expect(String(thrown)).toContain('there is no process 4242');
  });

  it.each([0, -1, 1.5, NaN, 2 ** 60])('refuses the pid %d', (pid) => {
    expect(() => pidPath(pid, 'smaps')).toThrow(RangeError);
  });

  it('refuses a pid that would leave /proc', () => {
    expect(() => pidPath('../etc' as 'self', 'passwd')).toThrow(TypeError);
  });
});
