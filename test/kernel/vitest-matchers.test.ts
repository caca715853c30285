/** The fixtures and matchers of cowlab/vitest, as a test of others uses them, and how each of them fails. */
import { readFileSync, readdirSync } from 'node:fs';
import { describe } from 'vitest';
import { markCopies } from '../../lib/api/copy-mark.js';
import { createMemfd } from '../../lib/api/file-object.js';
import { fork } from '../../lib/api/forked-process.js';
import type { ForkedProcess } from '../../lib/api/forked-process.js';
import { mmap } from '../../lib/api/mapping.js';
import type { Mapping } from '../../lib/api/mapping.js';
import { FrameSnapshot, seesFrames } from '../../lib/proc/frames.js';
import { pageSizeBytes, readHostFacts } from '../../lib/proc/host.js';
import { expect, pagesOf, test } from '../../lib/vitest/index.js';

const copied = (pages: number) => pages * pageSizeBytes();

/** A parent with a written region, and a child of it. */
async function family(root: ForkedProcess, pages: number) {
  const region = await root.map({ pages });
  await root.write(region);
  return { region, child: await root.fork() };
}

/** The message of an assertion that must fail. */
async function failure(assertion: () => unknown): Promise<string> {
  try {
    await assertion();
  } catch (error) {
    return (error as Error).message;
  }
  throw new Error('the assertion passed');
}

describe('toShareAllPages and toHaveExclusivePages', () => {
  test('tell what parent and child share', async ({ root }) => {
    const { region, child } = await family(root, 100);
    expect(pagesOf(child, region)).toShareAllPages();
    expect(pagesOf(child, region)).toHaveExclusivePages(0);
    await child.write(region, { pages: 50 });
    expect(pagesOf(child, region)).not.toShareAllPages();
    expect(pagesOf(child, region)).toHaveExclusivePages(50);
    expect(pagesOf(root, region)).toHaveExclusivePages(50);
    expect(pagesOf(child, region, { first: 50 })).toShareAllPages();
    expect(pagesOf(child, region, { first: 40, pages: 20 })).toHaveExclusivePages(10);
  });

  test('fail with the pages in runs', async ({ root }) => {
    const { region, child } = await family(root, 100);
    await child.write(region, { pages: 50 });
    const pages = pagesOf(child, region);
    const runs = 'pages 0..49 exclusive, 50..99 shared (50 exclusive, 50 shared)';
    expect(
      await failure(() => {
        expect(pages).toShareAllPages();
      }),
    ).toBe(`expected process ${child.pid} to share all of 100 pages\n${runs}`);
    expect(
      await failure(() => {
        expect(pages).toHaveExclusivePages(49);
      }),
    ).toBe(`expected process ${child.pid} to have 49 exclusive pages of 100\nit has 50: ${runs}`);
    expect(
      await failure(() => {
        expect(pages).not.toHaveExclusivePages(50);
      }),
    ).toContain('not to have 50 exclusive');
    expect(
      await failure(() => {
        expect(pagesOf(child, region, { first: 50 })).not.toShareAllPages();
      }),
    ).toContain('not to share all of 50 pages\npages 0..49 shared');
  });

  test("judge Node's own memory, and what a Machine observed", async ({ own, machine }) => {
    const memory = own(mmap({ pages: 10 }));
    memory.write();
    expect(pagesOf(process, memory)).toHaveExclusivePages(10);
    own(fork());
    expect(pagesOf(process, memory)).toShareAllPages();

    const region = await machine.root.map({ pages: 20 });
    await machine.root.write(region);
    await (await machine.root.fork()).write(region, { pages: 5 });
    const { processes } = await machine.observe('written');
    expect(processes[1]?.regions[0]).toHaveExclusivePages(5);
    expect(
      await failure(() => {
        expect(processes[1]?.regions[0]).toShareAllPages();
      }),
    ).toBe('expected region r1 to share all of 20 pages\npages 0..4 exclusive, 5..19 shared (5 exclusive, 15 shared)');
  });

  test('refuse a region that the process has not got', async ({ root, own }) => {
    const region = await root.map({ pages: 1 });
    expect(() => pagesOf(process, region)).toThrow(/region is not a mapping of Node/);
    expect(() => pagesOf(own(fork()), region)).toThrow(/region is not mapped in process/);
    expect(() => pagesOf(root, region, { first: 1 })).toThrow(RangeError);
  });
});

describe('toHaveCopied', () => {
  test('counts what was copied since the mark, by whomever', async ({ root }) => {
    const { region, child } = await family(root, 100);
    const mark = markCopies(region);
    await child.read(region);
    expect(mark).toHaveCopied(0);
    await child.write(region, { first: 10, pages: 30 });
    expect(mark).toHaveCopied(copied(30));
    // Ten of these were copied already: whoever has them alone keeps them.
    await root.write(region, { first: 30, pages: 20 });
    expect(mark).toHaveCopied(copied(40));
    const later = markCopies(region);
    await child.write(region, {}, 2n);
    expect(later).toHaveCopied(copied(60));
    expect(mark).toHaveCopied(copied(100));
  });

  test('leaves out what is touched for the first time', async ({ root }) => {
    const region = await root.map({ pages: 100 });
    await root.write(region, { pages: 40 });
    await root.read(region, { first: 40, pages: 10 });
    const child = await root.fork();
    const mark = markCopies(region);
    await child.write(region, { pages: 70 });
    await root.write(region, { first: 90 });
    expect(mark).toHaveCopied(copied(40));
  });

  test('counts those that are forked later, and all of a great family', async ({ root }) => {
    const region = await root.map({ pages: 64 });
    await root.write(region);
    const mark = markCopies(region);
    const children = [];
    for (let child = 0; child < 3; child++) children.push(await root.fork());
    const grandchild = await children[0]?.fork();
    await grandchild?.write(region, { pages: 8 });
    await children[1]?.write(region, { first: 4, pages: 8 });
    expect(mark).toHaveCopied(copied(16));
  });

  test("counts Node's own memory", ({ own }) => {
    const memory = own(mmap({ pages: 50 }));
    memory.write();
    const mark = markCopies(memory);
    own(fork());
    memory.write({ pages: 20 });
    expect(mark).toHaveCopied(copied(20));
  });

  test('agrees with the frames of the pages, which root sees', async ({ root, skip }) => {
    if (!seesFrames()) skip('frames are shown with CAP_SYS_ADMIN only');
    const { region, child } = await family(root, 200);
    const look = () => FrameSnapshot.read([root, child].map((one) => ({ pid: one.pid, ...one.placement(region) })));
    const [before, mark] = [look(), markCopies(region)];
    await child.write(region, { pattern: 'random', seed: 5, to: 70 });
    await root.write(region, { pattern: 'random', seed: 6, to: 90 });
    const fates = look().since(before);
    expect(mark.copiedPages()).toBe(fates.reduce((sum, { counts }) => sum + counts.copied, 0));
  });

  test('fails with the pages of each process', async ({ root }) => {
    const { region, child } = await family(root, 100);
    const mark = markCopies(region);
    await child.write(region, { pages: 50 });
    const runs = 'pages 0..49 exclusive, 50..99 shared (50 exclusive, 50 shared)';
    expect(
      await failure(() => {
        expect(mark).toHaveCopied(0);
      }),
    ).toBe(
      `expected 0 pages (0 bytes) to have been copied since the mark\n50 pages were copied\n` +
        `process ${root.pid}: ${runs}\nprocess ${child.pid}: ${runs}`,
    );
    expect(
      await failure(() => {
        expect(mark).not.toHaveCopied(copied(50));
      }),
    ).toContain('not to have been copied');
    expect(
      await failure(() => {
        expect(mark).toHaveCopied(5);
      }),
    ).toContain('must be a multiple of the page size');
  });

  test('passes nothing where processes have ended or pages were given back', async ({ root }) => {
    const { region, child } = await family(root, 10);
    const other = await root.fork();
    const mark = markCopies(region);
    await child.write(region);
    await root.advise(region, 'dontneed', { pages: 1 });
    expect(
      await failure(() => {
        expect(mark).toHaveCopied(copied(10));
      }),
    ).toContain(`which cannot be told\nprocess ${root.pid} has not got page 0 any more`);
    await other.exit();
    expect(
      await failure(() => {
        expect(mark).not.toHaveCopied(0);
      }),
    ).toContain(`process ${other.pid} has ended`);
  });

  test('is for memory that a fork copies', async ({ root, own }) => {
    const object = own(createMemfd(2));
    const regions = [await root.map({ pages: 2, sharing: 'shared' }), await root.map({ pages: 2, object })];
    for (const region of regions) expect(() => markCopies(region)).toThrow(/region must be private and anonymous/);
    const gone = await root.map({ pages: 1 });
    await root.unmap(gone);
    expect(() => markCopies(gone)).toThrow(/no living process has the region/);
  });
});

describe('toFailToFork', () => {
  test('passes where the heuristic refuses one mapping beyond RAM and swap', async ({ root, skip }) => {
    const { overcommitMode, memTotalPages, swapTotalPages } = readHostFacts(process.pid);
    if (overcommitMode !== 0) skip(`overcommit mode is ${overcommitMode}`);
    const half = Math.ceil((memTotalPages + swapTotalPages) * 0.6);
    const big = await root.map({ pages: half });
    await root.grow(big, 2 * half);
    await expect(root).toFailToFork('ENOMEM');
    await expect(root).not.toFailToFork('EAGAIN');
    const message = await failure(() => expect(root).toFailToFork('EAGAIN'));
    expect(message).toMatch(
      /to fail to fork with EAGAIN\nfork failed with ENOMEM: it asks for \d+ pages, at most \d+ of/,
    );
    expect(message).toContain(`${2 * half} of them in one VMA`);
  });

  test('ends the child of a fork that works, of a forked process and of a Machine', async ({ root, machine }) => {
    await root.map({ pages: 1000 });
    const message = await failure(() => expect(root).toFailToFork('ENOMEM'));
    expect(message).toMatch(
      /^expected process \d+ to fail to fork with ENOMEM\nit forked, and the child has been ended: it asks for \d+ pages, at most/,
    );
    await expect(machine.root).not.toFailToFork('ENOMEM');
    expect(childrenOf(root.pid)).toEqual([]);
    expect(machine.processes.map(({ alive }) => alive)).toEqual([true, false]);
  });

  test('does not take another failure for a refusal', async ({ root }) => {
    await root.exit();
    await expect(failure(() => expect(root).not.toFailToFork('ENOMEM'))).resolves.toMatch(/has exited/);
  });
});

describe('fixtures give back what they gave', () => {
  const seen: { root?: ForkedProcess; child?: ForkedProcess; machinePid?: number; memory?: Mapping } = {};

  test.fails('by a test that fails', async ({ root, machine, own }) => {
    seen.root = root;
    seen.child = await root.fork();
    seen.machinePid = machine.pidOf(machine.root);
    seen.memory = own(mmap({ pages: 1 }));
    own({ close: () => expect.unreachable('and by a close that fails') });
    throw new Error('as it should');
  });

  test('the processes are gone, and the memory', () => {
    expect(seen.root?.status).toMatchObject({ signal: 'SIGKILL' });
    expect(seen.child?.status).toBeDefined();
    expect(() => process.kill(seen.machinePid ?? 0, 0)).toThrow(/ESRCH/);
    expect(seen.memory?.isOpen).toBe(false);
  });

  test.fails('by a test that never ends', { timeout: 100 }, async ({ root }) => {
    seen.root = root;
    await new Promise(() => undefined);
  });

  test('that process is gone too', () => {
    expect(seen.root?.status).toMatchObject({ signal: 'SIGKILL' });
  });

  test('the last thing first', ({ own }) => {
    const order: string[] = [];
    own({
      close: () => {
        order.push('first');
        expect(order).toEqual(['second', 'first']);
      },
    });
    own({ unmap: () => order.push('second') });
  });
});

/** Children of all threads of a process. */
function childrenOf(pid: number): string[] {
  return readdirSync(`/proc/${pid}/task`).flatMap((task) =>
    readFileSync(`/proc/${pid}/task/${task}/children`, 'utf8').split(' ').filter(Boolean),
  );
}
