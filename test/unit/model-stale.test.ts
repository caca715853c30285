import { expect, test } from 'vitest';
import { modelMachine } from '../../lib/machine/open.js';
import { testFacts } from '../facts.js';

/** A region of 40 pages, write-protected by a fork whose child has gone, so that the next write takes each over. */
async function takenOver(how: 'populate' | 'write') {
  const machine = modelMachine(testFacts);
  const { root } = machine;
  const region = await root.map({ pages: 40 });
  await root.write(region);
  await (await root.fork()).exit();
  const { minorFaults } = how === 'populate' ? await root.advise(region, 'populate-write') : await root.write(region);
  expect(minorFaults).toBe(40);
  return { root, region };
}

test('a write after MADV_POPULATE_WRITE has taken pages over may fault once more a page, and then never again', async () => {
  const { root, region } = await takenOver('populate');
  expect((await root.write(region, { to: 10 })).minorFaults).toMatchObject({ min: 0, max: 10 });
  expect((await root.write(region)).minorFaults).toMatchObject({ min: 0, max: 30 });
  expect((await root.write(region)).minorFaults).toBe(0);
});

test('after a write by the process itself, whose own fault flushes, nothing is in doubt', async () => {
  const { root, region } = await takenOver('write');
  expect((await root.write(region)).minorFaults).toBe(0);
});

test('a fork or a change of protection flushes, and takes the doubt away', async () => {
  const forked = await takenOver('populate');
  await (await forked.root.fork()).exit();
  expect((await forked.root.write(forked.region)).minorFaults).toBe(40);
  const protectedOnce = await takenOver('populate');
  await protectedOnce.root.protect(protectedOnce.region, 'r');
  await protectedOnce.root.protect(protectedOnce.region, 'rw');
  expect((await protectedOnce.root.write(protectedOnce.region)).minorFaults).toBe(0);
});

test('pages that MADV_POPULATE_WRITE copied are flushed with the copy', async () => {
  const machine = modelMachine(testFacts);
  const region = await machine.root.map({ pages: 40 });
  await machine.root.write(region);
  const child = await machine.root.fork();
  await child.advise(region, 'populate-write');
  expect((await child.write(region)).minorFaults).toBe(0);
});
