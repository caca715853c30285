/** What a worker thread of the experiment shared-memory runs: one operation per call, as people write it. */
import { parentPort, workerData } from 'node:worker_threads';

export interface ThreadTask {
  how: 'plain' | 'atomic' | 'lock' | 'message' | 'read';
  times: number;
  /** Words: the count, the lock (0 free, 1 taken, 2 taken and waited for), how many have arrived; from 16 on the array. */
  memory: SharedArrayBuffer;
  /** How many start together. */
  threads: number;
}

const COUNT = 0;
const LOCK = 1;
const ARRIVED = 2;
const ARRAY = 16;

function lock(words: Int32Array): void {
  if (Atomics.compareExchange(words, LOCK, 0, 1) === 0) return;
  while (Atomics.exchange(words, LOCK, 2) !== 0) Atomics.wait(words, LOCK, 2);
}

function unlock(words: Int32Array): void {
  if (Atomics.exchange(words, LOCK, 0) === 2) Atomics.notify(words, LOCK, 1);
}

function perform(task: ThreadTask, words: Int32Array): number {
  let sum = 0;
  for (let i = 0; i < task.times; i++) {
    switch (task.how) {
      case 'plain':
        words[COUNT] = (words[COUNT] ?? 0) + 1;
        break;
      case 'atomic':
        Atomics.add(words, COUNT, 1);
        break;
      case 'lock':
        lock(words);
        words[COUNT] = (words[COUNT] ?? 0) + 1;
        unlock(words);
        break;
      case 'message':
        parentPort?.postMessage(1);
        break;
      case 'read':
        sum += words[ARRAY + (i & 1023)] ?? 0;
        break;
    }
  }
  return sum;
}

const task = workerData as ThreadTask;
const words = new Int32Array(task.memory);
// So that all begin at the same moment; and once before, so that the loop is compiled.
perform({ ...task, times: 0 }, words);
for (let arrived = Atomics.add(words, ARRIVED, 1) + 1; arrived < task.threads; arrived = Atomics.load(words, ARRIVED)) {
  Atomics.wait(words, ARRIVED, arrived);
}
Atomics.notify(words, ARRIVED);
const start = performance.now();
const sum = perform(task, words);
parentPort?.postMessage({ elapsedMs: performance.now() - start, sum });
