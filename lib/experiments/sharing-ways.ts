/** The ways of shared-memory, each run once: how long one operation took, and what the total came to. */
import { Worker } from 'node:worker_threads';
import { fork } from '../api/forked-process.js';
import type { ForkedProcess } from '../api/forked-process.js';
import { MessagePipe, SharedArea } from '../api/sharing.js';
import type { Gate, Guard, SharingReport } from '../api/sharing.js';
import type { MeasureContext } from './define.js';
import type { ThreadTask } from './sharing-thread.js';

export interface Run {
  /** Of one operation as one worker sees it: the slowest of them decides. */
  nsPerOperation: number;
  /** What all additions or messages came to. */
  total: number;
}

export type CloseLater = MeasureContext['closeLater'];

/** Has `count` forked processes, the area first, and takes all away again. */
async function withProcesses<T>(
  count: number,
  closeLater: CloseLater,
  work: (area: SharedArea, processes: readonly ForkedProcess[], gate: Gate) => Promise<T>,
): Promise<T> {
  const area = new SharedArea();
  const processes: ForkedProcess[] = [];
  const close = closeLater(async () => {
    for (const process of processes) await process.close();
    area.close();
  });
  try {
    for (let i = 0; i < count; i++) processes.push(fork());
    return await work(area, processes, area.gate(count));
  } finally {
    await close();
  }
}

function slowest(reports: readonly SharingReport[]): number {
  return Math.max(...reports.map(({ elapsedNs, done }) => elapsedNs / done));
}

/** Processes that add to one number, in native loops. */
export function addInProcesses(workers: number, guard: Guard, times: number, closeLater: CloseLater): Promise<Run> {
  return withProcesses(workers, closeLater, async (area, processes, gate) => {
    const number = area.number();
    const reports = await Promise.all(processes.map((one) => area.count(one, number, guard, times, { gate })));
    return { nsPerOperation: slowest(reports), total: number.value };
  });
}

/** Processes that send each addition to one that owns the number, by a ring each. */
export function addByRings(workers: number, times: number, closeLater: CloseLater): Promise<Run> {
  return withProcesses(workers + 1, closeLater, async (area, [actor, ...senders], gate) => {
    if (!actor) throw new RangeError('there must be an actor');
    const rings = area.rings(senders.length, 1024);
    const sent = senders.map((one, index) => {
      const ring = rings[index];
      if (!ring) throw new RangeError('there must be a ring for each');
      return area.send(one, ring, times, { gate });
    });
    const received = await area.receive(actor, rings, times, { gate });
    await Promise.all(sent);
    return { nsPerOperation: received.elapsedNs / times, total: received.done };
  });
}

/** The same by one pipe. */
export function addByPipe(workers: number, times: number, closeLater: CloseLater): Promise<Run> {
  return withProcesses(workers + 1, closeLater, async (area, [actor, ...senders], gate) => {
    if (!actor) throw new RangeError('there must be an actor');
    const pipe = new MessagePipe();
    const close = closeLater(() => {
      pipe.close();
    });
    const sent = senders.map((one) => area.sendPipe(one, pipe, times, { gate }));
    const received = await area.receivePipe(actor, pipe, times * senders.length, { gate });
    await Promise.all(sent);
    await close();
    return { nsPerOperation: received.elapsedNs / times, total: received.done };
  });
}

/** Processes that read one array, with and without taking a lock for each word. */
export function readInProcesses(workers: number, locked: boolean, reads: number, closeLater: CloseLater): Promise<Run> {
  return withProcesses(workers, closeLater, async (area, processes, gate) => {
    const array = area.array(1024).fill(1n);
    const lock = locked ? area.number() : undefined;
    const reports = await Promise.all(processes.map((one) => area.look(one, array, reads, lock, { gate })));
    const total = reports.reduce((sum, report) => sum + Number(report.sum), 0);
    return { nsPerOperation: slowest(reports), total };
  });
}

/** lib/ and dist/ are equally deep: a thread runs what is built, whichever of them this is. */
const THREAD = new URL('../../dist/experiments/sharing-thread.js', import.meta.url);

/** Threads of Node that call TypeScript for each operation, over a SharedArrayBuffer or by messages. */
export async function callInThreads(
  threads: number,
  how: ThreadTask['how'],
  times: number,
  closeLater: CloseLater,
): Promise<Run> {
  const memory = new SharedArrayBuffer(4 * (16 + 1024));
  const words = new Int32Array(memory);
  words.fill(1, 16);
  const workerData: ThreadTask = { how, times, memory, threads };
  const workers = Array.from({ length: threads }, () => new Worker(THREAD, { workerData }));
  const close = closeLater(async () => {
    for (const worker of workers) await worker.terminate();
  });
  let [messages, sum] = [0, 0];
  let firstAt = 0;
  const elapsed = await Promise.all(
    workers.map(
      (worker) =>
        new Promise<number>((resolve, reject) => {
          worker.on('message', (message: 1 | { elapsedMs: number; sum: number }) => {
            if (message === 1) {
              firstAt ||= performance.now();
              messages++;
              return;
            }
            sum += message.sum;
            resolve(message.elapsedMs);
          });
          worker.once('error', reject);
          worker.once('exit', (code) => {
            reject(new Error(`a thread ended with ${String(code)} before it was done`));
          });
        }),
    ),
  );
  const elapsedMs = how === 'message' ? performance.now() - firstAt : Math.max(...elapsed);
  await close();
  const total = how === 'message' ? messages : how === 'read' ? sum : (words[0] ?? NaN);
  return { nsPerOperation: (elapsedMs * 1e6) / times, total };
}

/** This thread alone, calling native code for each addition. */
export function callFromNode(guard: Guard, times: number, closeLater: CloseLater): Run {
  const area = new SharedArea();
  closeLater(() => {
    area.close();
  });
  const number = area.number();
  const start = performance.now();
  for (let i = 0; i < times; i++) number.add(guard);
  return { nsPerOperation: ((performance.now() - start) * 1e6) / times, total: number.value };
}

export interface Death {
  /** Whether the next owner was told that the last died. */
  told: number;
  /** What the others' additions came to after it. */
  total: number;
}

/** One process is killed while it holds the lock, and the others go on counting. */
export function dieInLock(workers: number, times: number, closeLater: CloseLater): Promise<Death> {
  return withProcesses(workers + 1, closeLater, async (area, [victim, ...others]) => {
    if (!victim) throw new RangeError('there must be a victim');
    const number = area.number();
    await area.lock(victim, number);
    const counts = others.map((one) => area.count(one, number, 'lock', times));
    await victim.kill();
    const reports = await Promise.all(counts);
    return { told: reports.reduce((sum, { deadOwners }) => sum + deadOwners, 0), total: number.value };
  });
}
