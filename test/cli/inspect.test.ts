/** `cowlab inspect`, on a tree whose sharing is known. */
import { afterEach, describe, expect, test } from 'vitest';
import { fork } from '../../lib/api/forked-process.js';
import type { ForkedProcess } from '../../lib/api/forked-process.js';
import { readSmapsRollup } from '../../lib/proc/smaps.js';
import { CAP_SYS_ADMIN, hasCapability, readStatus } from '../../lib/proc/status.js';
import { KERNEL_THREAD, whyNoKernelThread } from '../kernel/kernel-thread.js';
import { cowlab, unbroken } from './command.js';

const root = process.geteuid?.() === 0;
const framesShown = hasCapability(readStatus('self'), CAP_SYS_ADMIN) === true;
const MIB_PAGES = 256;

interface InspectJson {
  mappings: { start: string; ownKb: number; sharedKb: number; sharedWith: { pid: number; pages: number }[] }[];
  sharers: { pid: number; comm: string; relation: string; pages: number }[];
  byFrames: boolean;
  fork: { chargedPages: number; outcome: string };
}

const opened: ForkedProcess[] = [];
afterEach(async () => {
  for (const one of opened.splice(0).reverse()) await one.kill();
});

/** A process with 4 MiB of its own, of which its child has rewritten 1 MiB. */
async function parentAndChild(): Promise<{ parent: ForkedProcess; child: ForkedProcess; start: string }> {
  const parent = fork();
  const region = await parent.map({ pages: 4 * MIB_PAGES });
  await parent.write(region);
  const child = await parent.fork();
  opened.push(parent, child);
  await child.write(region, { first: 0, pages: MIB_PAGES });
  return { parent, child, start: parent.placement(region).address.toString(16) };
}

describe('inspect', () => {
  test('says how much is shared, with whom, and what a fork comes to, in lines of at most 80 columns', async () => {
    const { parent, child, start } = await parentAndChild();
    const { code, stdout, stderr } = await cowlab(['inspect', String(parent.pid)]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    const row = stdout.split('\n').find((line) => line.includes(start));
    expect(row).toMatch(/│ +1 MiB │ +3 MiB │ (\d+|2 others) +│ anonymous/);
    expect(stdout).toMatch(new RegExp(`│ +${String(child.pid)} │ node +│ child +│ +(<= )?[0-9.]+ MiB`));
    expect(stdout).toMatch(/A fork of \d+ \(node\) would charge .* and would\s+succeed/);
    expect(stdout).not.toContain('\u001b');
    for (const line of stdout.split('\n')) expect(Array.from(line).length).toBeLessThanOrEqual(80);
  });

  test('--json has every mapping, and their sum is what smaps_rollup has', async () => {
    const { parent, child, start } = await parentAndChild();
    const { stdout } = await cowlab(['inspect', String(parent.pid), '--json']);
    const { mappings, byFrames, fork: forked } = JSON.parse(stdout) as InspectJson;
    const region = mappings.find((mapping) => mapping.start === start);
    expect(region).toMatchObject({ ownKb: 1024, sharedKb: 3072 });
    const pages = region?.sharedWith.find(({ pid }) => pid === child.pid)?.pages;
    if (byFrames) expect(pages).toBe(3 * MIB_PAGES);
    else expect(pages).toMatchObject({ min: 0, max: 3 * MIB_PAGES });
    const total = mappings.reduce((sum, { ownKb, sharedKb }) => sum + ownKb + sharedKb, 0);
    expect(total).toBe(readSmapsRollup(parent.pid).fieldsKb['Rss']);
    expect(forked.outcome).toBe('succeeds');
    expect(forked.chargedPages).toBeGreaterThanOrEqual(4 * MIB_PAGES);
  });

  test.skipIf(!framesShown)('as root everybody is found by page frames', async () => {
    const { parent } = await parentAndChild();
    const { stdout } = await cowlab(['inspect', String(parent.pid), '--json']);
    const { sharers, byFrames } = JSON.parse(stdout) as InspectJson;
    expect(byFrames).toBe(true);
    expect(sharers.find(({ pid }) => pid === process.pid)).toMatchObject({ relation: 'parent' });
  });

  test.skipIf(!root)("an ordinary user is told why at another's process", async () => {
    const { parent } = await parentAndChild();
    const { code, stderr } = await cowlab(['inspect', String(parent.pid)], { uid: 65534 });
    expect(code).toBe(3);
    expect(unbroken(stderr)).toMatch(/EACCES.*same user/);
  });

  test.each([
    [2, 'abc', /PID must be the number of a process, not abc/],
    [2, '0', /PID must be the number of a process/],
    [2, '4194999', /there is no process 4194999/],
  ])('exit code %d for %s', async (expected, pid, message) => {
    const { code, stdout, stderr } = await cowlab(['inspect', pid]);
    expect({ code, stdout }).toEqual({ code: expected, stdout: '' });
    expect(unbroken(stderr)).toMatch(message);
  });

  test('exit code 3 for a process without memory', async (context) => {
    const lacking = whyNoKernelThread();
    if (lacking !== undefined) context.skip(lacking);
    const { code, stderr } = await cowlab(['inspect', String(KERNEL_THREAD)]);
    expect(code).toBe(3);
    expect(unbroken(stderr)).toMatch(/no memory of its own/);
  });
});
