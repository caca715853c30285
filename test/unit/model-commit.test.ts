import { describe, expect, it } from 'vitest';
import { admitCharge, admitFork, commitBatchPages, commitSlackPages } from '../../lib/machine/model/admission.js';
import { ModelBackend } from '../../lib/machine/model/backend.js';
import type { HostFacts } from '../../lib/schema/facts.js';
import type { Outcome, StepOf } from '../../lib/schema/step.js';
import { testFacts } from '../facts.js';

const BASE = testFacts.rootAccountedVmas.reduce((total, pages) => total + pages, 0);
const ALL = testFacts.memTotalPages;
const strict: HostFacts = { ...testFacts, overcommitMode: 2 };

/** Steps for a backend, with the defaults filled in. */
class Driver {
  readonly backend: ModelBackend;
  private regions = 0;

  constructor(facts: HostFacts = testFacts) {
    this.backend = new ModelBackend(facts);
  }

  get charged(): number {
    return this.backend.chargedPages;
  }

  map(spec: Partial<StepOf<'map'>> & { pages: number }): { region: string; outcome: Outcome } {
    const region = `r${++this.regions}`;
    const outcome = this.backend.executeSync({
      op: 'map',
      process: 'root',
      region,
      sharing: 'private',
      backing: 'anonymous',
      offset: 0,
      protection: 'rw',
      populate: false,
      noreserve: false,
      ...spec,
    });
    return { region, outcome };
  }

  touch(op: 'read' | 'write', region: string, pages: number, process = 'root'): Outcome {
    const selection = { first: 0, pages, pattern: 'sequential', seed: 0, stride: 1, from: 0, to: pages } as const;
    return this.backend.executeSync({ op, process, region, selection });
  }

  protect(region: string, pages: number, protection: 'none' | 'r' | 'rw', first = 0): Outcome {
    return this.backend.executeSync({ op: 'protect', process: 'root', region, first, pages, protection });
  }

  fork(recorded?: Outcome): Outcome {
    return this.backend.executeSync({ op: 'fork', process: 'root', child: 'root.1' }, recorded);
  }
}

describe('commit charge', () => {
  it('is the length of private writable memory, at once, and is taken back by munmap', () => {
    const driver = new Driver();
    const { region } = driver.map({ pages: 100 });
    expect(driver.charged).toBe(100);
    driver.backend.executeSync({ op: 'unmap', process: 'root', region, first: 10, pages: 30 });
    expect(driver.charged).toBe(70);
  });

  it('is nothing for read-only and inaccessible memory until it becomes writable', () => {
    const driver = new Driver();
    const { region } = driver.map({ pages: 100, protection: 'r' });
    driver.map({ pages: 100, protection: 'none' });
    expect(driver.charged).toBe(0);
    driver.protect(region, 40, 'rw');
    expect(driver.charged).toBe(40);
    driver.protect(region, 40, 'r');
    expect(driver.charged).toBe(0);
    driver.protect(region, 40, 'rw');
    driver.touch('write', region, 1);
    driver.protect(region, 40, 'r');
    expect(driver.charged).toBe(40);
  });

  it('is the size of shared anonymous memory once, whatever its protection and however many map it', () => {
    const driver = new Driver();
    driver.map({ pages: 100, sharing: 'shared', protection: 'r' });
    expect(driver.charged).toBe(100);
    driver.fork();
    expect(driver.charged).toBe(100 + BASE);
    for (const process of ['root', 'root.1']) driver.backend.executeSync({ op: 'exit', process, code: 0 });
    expect(driver.charged).toBe(-BASE);
  });

  it('is one page for each page of a memfd that is allocated, also by a private mapping', () => {
    const driver = new Driver();
    driver.backend.executeSync({ op: 'create-object', object: 'o1', backing: 'memfd', pages: 50 });
    driver.backend.executeSync({ op: 'write-object', object: 'o1', first: 0, pages: 5 });
    const { region: shared } = driver.map({ pages: 50, sharing: 'shared', backing: 'o1' });
    expect(driver.charged).toBe(5);
    driver.touch('read', shared, 10);
    expect(driver.charged).toBe(10);
    const { region: own } = driver.map({ pages: 50, backing: 'o1' });
    expect(driver.charged).toBe(10 + 50);
    driver.touch('write', own, 20);
    expect(driver.charged).toBe(20 + 50);
  });

  it('is nothing for NORESERVE, but shared pages are charged as they come, and strict mode ignores it', () => {
    const driver = new Driver();
    driver.map({ pages: 100, noreserve: true });
    const { region } = driver.map({ pages: 100, noreserve: true, sharing: 'shared' });
    expect(driver.charged).toBe(0);
    driver.touch('write', region, 7);
    expect(driver.charged).toBe(7);
    const never = new Driver(strict);
    never.map({ pages: 100, noreserve: true });
    expect(never.charged).toBe(100);
  });

  it('of a fork counts WIPEONFORK and the process itself, and not DONTFORK', () => {
    const driver = new Driver();
    const { region: wiped } = driver.map({ pages: 10 });
    const { region: left } = driver.map({ pages: 100 });
    const advise = { op: 'advise', process: 'root', first: 0 } as const;
    driver.backend.executeSync({ ...advise, region: wiped, pages: 10, advice: 'wipeonfork' });
    driver.backend.executeSync({ ...advise, region: left, pages: 100, advice: 'dontfork' });
    driver.fork();
    expect(driver.charged).toBe(110 + 10 + BASE);
  });

  it('of a grown region is the difference', () => {
    const driver = new Driver();
    const { region } = driver.map({ pages: 10 });
    driver.backend.executeSync({ op: 'grow', process: 'root', region, pages: 30 });
    expect(driver.charged).toBe(30);
  });
});

describe('heuristic overcommit', () => {
  it('refuses what is larger than all RAM and swap at once, to the page', () => {
    expect(new Driver().map({ pages: ALL }).outcome.failure).toBeUndefined();
    expect(new Driver().map({ pages: ALL + 1 }).outcome.failure).toMatchObject({
      code: 'ENOMEM',
      syscall: 'mmap',
      allowedPages: ALL,
    });
  });

  it('refuses a fork for one VMA that has grown beyond RAM and swap, and not once that VMA is split', () => {
    const driver = new Driver();
    const { region } = driver.map({ pages: ALL / 2 });
    driver.backend.executeSync({ op: 'grow', process: 'root', region, pages: ALL + 1 });
    expect(driver.fork().failure).toMatchObject({
      code: 'ENOMEM',
      syscall: 'fork',
      vmaPages: ALL + 1,
      allowedPages: ALL,
    });
    driver.protect(region, 1, 'r');
    expect(driver.fork()).toEqual({});
  });

  it('admits a fork of several VMAs that are too large together only', () => {
    const driver = new Driver();
    driver.map({ pages: ALL - 1 });
    driver.map({ pages: ALL - 1 });
    expect(driver.fork()).toEqual({});
  });

  it('always says yes in mode 1', () => {
    const driver = new Driver({ ...testFacts, overcommitMode: 1 });
    driver.map({ pages: ALL * 4 });
    expect(driver.fork()).toEqual({});
    expect(driver.charged).toBe(ALL * 8 + BASE);
  });

  it('judged by free memory before Linux 5.2, as far as its hidden reserve lets us tell', () => {
    const old: HostFacts = { ...testFacts, kernelVersion: [4, 15] };
    const available = 20 * 2 ** 18 - 1024 + 8192 - 2048;
    const ask = (pages: number) => admitCharge(old, { pages, committedPages: 0, totalPages: 0 }).verdict;
    expect(ask(available)).toBe('refused');
    expect(ask(available - 1)).toBe('uncertain');
    expect(ask(available - 2 - ALL / 16)).toBe('allowed');
  });

  it('before Linux 5.2 refuses to fork a parent that has written more than half of the memory', () => {
    const driver = new Driver({ ...testFacts, kernelVersion: [4, 15] });
    const { region } = driver.map({ pages: 12 * 2 ** 18 });
    driver.touch('write', region, 12 * 2 ** 18);
    expect(driver.fork().failure).toMatchObject({ code: 'ENOMEM', vmaPages: 12 * 2 ** 18 });
  });
});

describe('strict overcommit', () => {
  it('reads a counter that may be off by one batch less one page for each CPU', () => {
    expect(commitBatchPages(strict)).toBe(ALL / 4 / 256);
    expect(commitSlackPages(strict)).toBe(ALL / 256 - 4);
  });

  it('holds back the admin reserve and a 32nd of the process, up to the user reserve', () => {
    const one: HostFacts = { ...strict, cpus: 1, memTotalPages: 32 * 256, commitLimitPages: 100_000 };
    const charge = { committedPages: 50_000, totalPages: 3200 };
    const limit = 100_000 - 2048 - 100;
    const slack = 31;
    const ask = (pages: number) => admitCharge(one, { ...charge, pages }).verdict;
    expect(ask(limit - 50_000 - slack - 1)).toBe('allowed');
    expect(ask(limit - 50_000 - slack)).toBe('uncertain');
    expect(ask(limit - 50_000 + slack)).toBe('refused');
    const root = { ...one, capSysAdmin: true };
    expect(admitCharge(root, { ...charge, pages: limit - 50_000 - slack }).verdict).toBe('allowed');
  });

  it('refuses the fork that passes the limit, and names the VMA', () => {
    const driver = new Driver(strict);
    driver.map({ pages: 6 * 2 ** 18 });
    expect(driver.fork().failure).toMatchObject({ code: 'ENOMEM', syscall: 'fork', vmaPages: 6 * 2 ** 18 });
    expect(driver.charged).toBe(6 * 2 ** 18);
  });

  it('follows the record where the counter decides', () => {
    const facts: HostFacts = { ...strict, committedPages: 0 };
    const pages = 6 * 2 ** 18 - 17408;
    const failure = { code: 'ENOMEM', syscall: 'fork' };
    const refused = new Driver(facts);
    refused.map({ pages });
    expect(refused.fork({ failure })).toMatchObject({
      failure,
      uncertain: expect.stringContaining('per-CPU counter') as string,
    });
    const admitted = new Driver(facts);
    admitted.map({ pages });
    expect(admitted.fork().failure).toBeUndefined();
    expect(admitted.charged).toBe(2 * pages + BASE);
  });

  it('asks for the VMAs in address order: the verdict names the one that is refused', () => {
    const small: HostFacts = { ...strict, cpus: 1, memTotalPages: 256, commitLimitPages: 1000, adminReservePages: 0 };
    expect(admitFork(small, [100, 700, 400, 1], 100, 0)).toMatchObject({
      verdict: 'refused',
      rule: 'commit-limit',
      index: 2,
      askedPages: 400,
      chargePages: 1201,
    });
    expect(admitFork(small, [100], 100, 0)).toEqual({ verdict: 'allowed', chargePages: 100 });
  });
});

describe('a step on what is not there', () => {
  it('fails with ESRCH, so that a replay can go on', () => {
    const driver = new Driver();
    expect(driver.touch('read', 'r9', 1).failure).toMatchObject({ code: 'ESRCH', syscall: 'read' });
    expect(driver.touch('read', 'r9', 1, 'root.7').failure).toMatchObject({ code: 'ESRCH', syscall: 'read' });
  });
});
