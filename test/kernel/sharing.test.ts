/** Locks, numbers, rings and pipes in shared memory: nothing is lost, and whoever dies keeps nobody waiting. */
import { setTimeout as delay } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { afterEach, describe, expect, test } from 'vitest';
import { ProcessEndedError } from '../../lib/errors.js';
import { fork } from '../../lib/api/forked-process.js';
import type { ForkedProcess } from '../../lib/api/forked-process.js';
import { mmap } from '../../lib/api/mapping.js';
import { MessagePipe, SharedArea } from '../../lib/api/sharing.js';
import { addonPath } from '../../lib/native.js';

const SHORT = process.env['COWLAB_SHORT'] === '1';
const ROUNDS = SHORT ? 100 : 300;

const opened: { close(): Promise<void> | void }[] = [];

function kept<T extends { close(): Promise<void> | void }>(one: T): T {
  opened.push(one);
  return one;
}

function workers(count: number): ForkedProcess[] {
  return Array.from({ length: count }, () => kept(fork()));
}

afterEach(async () => {
  for (const one of opened.splice(0).reverse()) await one.close();
});

/** A small generator, so that a failure can be repeated. */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

describe('a number that several add to', () => {
  test.each(['lock', 'atomic'] as const)('with guard %s loses nothing, by four processes and Node', async (guard) => {
    const area = kept(new SharedArea());
    const number = area.number();
    const gate = area.gate(4);
    const times = SHORT ? 5000 : 50_000;
    const counts = workers(4).map((worker) => area.count(worker, number, guard, times, { gate }));
    for (let i = 0; i < 1000; i++) number.add(guard);
    const reports = await Promise.all(counts);
    expect(reports.map(({ done }) => done)).toEqual([times, times, times, times]);
    expect(number.value).toBe(4 * times + 1000);
  });

  test('without a guard loses some, and never has more than was added', async () => {
    const area = kept(new SharedArea());
    const number = area.number();
    const gate = area.gate(2);
    const times = 2_000_000;
    await Promise.all(workers(2).map((worker) => area.count(worker, number, 'none', times, { gate })));
    expect(number.value).toBeLessThanOrEqual(2 * times);
    expect(number.value).toBeGreaterThanOrEqual(2);
  });

  test('of one process is exact with every guard', async () => {
    const area = kept(new SharedArea());
    const [worker] = workers(1);
    if (!worker) expect.unreachable();
    for (const guard of ['none', 'atomic', 'lock'] as const) {
      const number = area.number();
      expect(await area.count(worker, number, guard, 12_345)).toMatchObject({ done: 12_345, deadOwners: 0 });
      expect(number.add(guard, 10)).toBe(12_355);
    }
  });
});

describe('a lock', () => {
  test('keeps others out until it is released, and belongs to who took it', async () => {
    const area = kept(new SharedArea());
    const number = area.number();
    const other = area.number();
    const [first, second] = workers(2) as [ForkedProcess, ForkedProcess];
    expect(await area.lock(first, number)).toBe(false);
    await expect(area.lock(second, number, 0)).rejects.toMatchObject({ code: 'ETIMEDOUT', syscall: 'futex' });
    await expect(area.lock(first, number)).rejects.toMatchObject({ code: 'EDEADLK' });
    await expect(area.lock(first, other)).rejects.toMatchObject({ code: 'EDEADLK' });
    await expect(area.unlock(second, number)).rejects.toMatchObject({ code: 'EPERM' });
    expect(() => number.lock(1)).toThrow(expect.objectContaining({ code: 'ETIMEDOUT' }));
    const waiting = area.lock(second, number, 60_000);
    await area.unlock(first, number);
    expect(await waiting).toBe(false);
    await area.unlock(second, number);
    expect(number.lock(0)).toBe(false);
    expect(() => number.lock(0)).toThrow(expect.objectContaining({ code: 'EDEADLK' }));
    expect(() => number.add('lock')).toThrow(expect.objectContaining({ code: 'EDEADLK' }));
    number.unlock();
    expect(() => {
      number.unlock();
    }).toThrow(expect.objectContaining({ code: 'EPERM' }));
  });

  test('of a process that is killed goes to the next, who is told, once', async () => {
    const area = kept(new SharedArea());
    const number = area.number();
    const [first, second, third] = workers(3) as [ForkedProcess, ForkedProcess, ForkedProcess];
    await area.lock(first, number);
    const waiting = area.lock(second, number, 60_000);
    await first.kill();
    expect(await waiting).toBe(true);
    await area.unlock(second, number);
    expect(await area.lock(third, number)).toBe(false);
    await third.exit();
    expect(number.lock(0)).toBe(true);
    number.unlock();
    expect(number.lock(0)).toBe(false);
    number.unlock();
  });

  test(`goes on working through ${String(ROUNDS)} kills at random moments, and every addition of the living counts`, async () => {
    const area = kept(new SharedArea());
    const number = area.number();
    const [witness, steady] = workers(2) as [ForkedProcess, ForkedProcess];
    const draw = random(7);
    let [added, deaths] = [0, 0];
    for (let round = 0; round < ROUNDS; round++) {
      // The victim may die before it has come to any gate.
      const gate = area.gate(2);
      const victim = fork();
      const times = 500;
      const endless = area.count(victim, number, 'lock', 2 ** 40).then(
        () => expect.unreachable('it was to be killed'),
        (error: unknown) => error,
      );
      const counts = [witness, steady].map((worker) => area.count(worker, number, 'lock', times, { gate }));
      if (draw() < 0.5) await delay(draw() * 3);
      await victim.kill();
      expect(await endless).toBeInstanceOf(ProcessEndedError);
      const reports = await Promise.all(counts);
      for (const { done, deadOwners } of reports) {
        added += done;
        deaths += deadOwners;
      }
      await victim.close();
    }
    // What the victims added is theirs; the living lost nothing of their own.
    expect(added).toBe(2 * 500 * ROUNDS);
    expect(number.value).toBeGreaterThanOrEqual(added);
    // Some died inside: else nothing was tried here. The last of them may not have been told to anybody yet.
    expect(deaths).toBeGreaterThan(ROUNDS / 50);
    number.lock(60_000);
    number.unlock();
  }, 240_000);

  test('of a thread that ends goes to the next, as that of a process does', async () => {
    const area = kept(new SharedArea());
    const number = area.number();
    const held = area.number();
    const code = `
      const { parentPort, workerData } = require('node:worker_threads');
      const addon = require(workerData);
      addon.setErrorFactory((errno, syscall) => new Error(syscall + errno));
      const memory = new addon.Mapping(1, true, false, false, false, -1, 0);
      memory.lock(0, 1000);
      memory.unlock(0);
      memory.lock(64, 1000);
      parentPort.postMessage('locked');`;
    for (let round = 0; round < 5; round++) {
      const worker = new Worker(code, { eval: true, workerData: addonPath() });
      await new Promise((resolve, reject) => {
        worker.once('message', resolve);
        worker.once('error', reject);
      });
      await worker.terminate();
    }
    // This thread's own locks work as before.
    expect(number.lock(0)).toBe(false);
    number.unlock();
    expect(held.lock(0)).toBe(false);
    held.unlock();
  });

  test('is given up by who waits when its commander goes', async () => {
    const area = kept(new SharedArea());
    const number = area.number();
    const [first, second] = workers(2) as [ForkedProcess, ForkedProcess];
    await area.lock(first, number);
    const waiting = area.lock(second, number, 2 ** 31).catch((error: unknown) => error);
    await delay(20);
    await second.close();
    expect(await waiting).toBeInstanceOf(ProcessEndedError);
  });
});

describe('reading an array', () => {
  test('gives the same sum with and without a lock', async () => {
    const area = kept(new SharedArea());
    const array = area.array(1000);
    array.forEach((_, index) => (array[index] = BigInt(index)));
    const lock = area.number();
    const [worker] = workers(1) as [ForkedProcess];
    const sum = (999n * 1000n) / 2n;
    expect(await area.look(worker, array, 1000)).toMatchObject({ done: 1000, sum });
    expect(await area.look(worker, array, 3000, lock)).toMatchObject({ done: 3000, sum: 3n * sum });
    expect(await area.look(worker, array, 1)).toMatchObject({ sum: 0n });
  });
});

describe('messages', () => {
  const SUM = (count: bigint) => (count * (count + 1n)) / 2n;

  test.each([1, 2, 64, 1024])(
    'through rings of %i none is lost, doubled or out of order, from three producers',
    async (capacity) => {
      const area = kept(new SharedArea());
      const rings = area.rings(3, capacity);
      const [actor, ...producers] = workers(4) as [ForkedProcess, ...ForkedProcess[]];
      const messages = SHORT ? 2000 : 20_000;
      const gate = area.gate(4);
      const received = area.receive(actor, rings, messages, { gate });
      const sent = producers.map((producer, index) => {
        const ring = rings[index];
        if (!ring) expect.unreachable();
        return area.send(producer, ring, messages, { gate });
      });
      for (const one of await Promise.all(sent))
        expect(one).toMatchObject({ done: messages, sum: SUM(BigInt(messages)) });
      expect(await received).toMatchObject({ done: 3 * messages, sum: 3n * SUM(BigInt(messages)) });
    },
  );

  test('a consumer that goes to sleep again and again misses none', async () => {
    const area = kept(new SharedArea());
    const rings = area.rings(1, 8);
    const [actor, producer] = workers(2) as [ForkedProcess, ForkedProcess];
    const received = area.receive(actor, rings, 60);
    for (let i = 0; i < 60; i++) {
      if (i % 7 === 0) await delay(1);
      // Each send begins at 1, and the ring wants 1, 2, 3, ...: so all in one, slowly filled by the gaps between them.
      if (i === 0) await area.send(producer, rings[0] as never, 60);
    }
    expect(await received).toMatchObject({ done: 60 });
  });

  test('a message that is not the next is an error, never a sum', async () => {
    const area = kept(new SharedArea());
    const rings = area.rings(1, 64);
    const [ring] = rings;
    if (!ring) expect.unreachable();
    const [actor, producer] = workers(2) as [ForkedProcess, ForkedProcess];
    await area.send(producer, ring, 5);
    await area.send(producer, ring, 5);
    await expect(area.receive(actor, rings, 10)).rejects.toMatchObject({ code: 'EBADMSG' });
  });

  test('whoever waits for a peer that has died is released when the ring is closed', async () => {
    const area = kept(new SharedArea());
    const rings = area.rings(1, 64);
    const [ring] = rings;
    if (!ring) expect.unreachable();
    const [actor, producer] = workers(2) as [ForkedProcess, ForkedProcess];
    const received = area.receive(actor, rings, 1000);
    await area.send(producer, ring, 10);
    await producer.kill();
    area.closeRing(ring);
    expect(await received).toMatchObject({ done: 10, sum: 55n });
    const [another] = workers(1) as [ForkedProcess];
    const full = area.rings(1, 4);
    const sending = area.send(another, full[0] as never, 100);
    await delay(20);
    area.closeRing(full[0] as never);
    await expect(sending).rejects.toMatchObject({ code: 'EPIPE' });
  });

  test('through a pipe none is lost, from three producers; and the end of the last writer is the end', async () => {
    const area = kept(new SharedArea());
    const pipe = kept(new MessagePipe());
    const [actor, ...producers] = workers(4) as [ForkedProcess, ...ForkedProcess[]];
    const messages = SHORT ? 1000 : 10_000;
    const received = area.receivePipe(actor, pipe, 3 * messages);
    await Promise.all(producers.map((producer) => area.sendPipe(producer, pipe, messages)));
    expect(await received).toMatchObject({ done: 3 * messages, sum: 3n * SUM(BigInt(messages)) });
    const short = area.receivePipe(actor, pipe, 100);
    const [producer] = producers as [ForkedProcess];
    await area.sendPipe(producer, pipe, 3);
    pipe.close();
    expect(await short).toMatchObject({ done: 3, sum: 6n });
  });

  test('a loop ends when its commander goes', async () => {
    const area = kept(new SharedArea());
    const number = area.number();
    const rings = area.rings(1, 64);
    const [counting, receiving, gated] = workers(3) as [ForkedProcess, ForkedProcess, ForkedProcess];
    const endless = [
      area.count(counting, number, 'atomic', 2 ** 50),
      area.receive(receiving, rings, 5),
      area.count(gated, number, 'atomic', 1, { gate: area.gate(2) }),
    ].map((one) => one.catch((error: unknown) => error));
    await delay(20);
    for (const process of [counting, receiving, gated]) await process.close();
    for (const error of await Promise.all(endless)) expect(error).toBeInstanceOf(ProcessEndedError);
  });
});

test('misuse is refused by the name of the argument', async () => {
  const area = kept(new SharedArea(4096));
  const number = area.number();
  const [worker] = workers(1) as [ForkedProcess];
  const loose = (value: unknown) => value as never;
  expect(() => number.add(loose('no'))).toThrow(/^guard must be one of/);
  expect(() => number.add('atomic', -1)).toThrow(/^times must be/);
  expect(() => number.lock(-1)).toThrow(/^milliseconds must be/);
  await expect(area.count(worker, number, loose(1), 1)).rejects.toThrow(/^guard must be/);
  await expect(area.count(worker, number, 'atomic', 1.5)).rejects.toThrow(/^times must be/);
  expect(() => area.rings(1, 3)).toThrow(/^capacity must be a power of two/);
  expect(() => area.rings(1, 1024)).toThrow(/all in use/);
  expect(() => area.gate(0)).toThrow(/^count must be/);
  await expect(area.receive(worker, [], 1)).rejects.toThrow(/^rings must not be empty/);
  await expect(area.look(worker, new BigUint64Array(1), 1)).rejects.toThrow(/^array must be one of this area/);
  // A process that was there before the area does not have it.
  const later = kept(new SharedArea());
  await expect(later.count(worker, later.number(), 'atomic', 1)).rejects.toThrow(/not mapped in process/);
  area.close();
  expect(() => number.value).toThrow('the mapping has been unmapped');
  const memory = mmap({ pages: 1 });
  expect(() => memory.slots.count(32, 1, 1)).toThrow(/multiple of 64/);
  expect(() => memory.slots.count(4096, 1, 1)).toThrow(/inside the mapping/);
  memory.unmap();
});
