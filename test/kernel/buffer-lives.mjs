// One life of an ArrayBuffer over mapped memory: node --expose-gc buffer-lives.mjs CASE. Run by buffer-lives.test.ts in
// a process of its own, because what it looks for is a crash.
import assert from 'node:assert/strict';
import { constants } from 'node:buffer';
import { once } from 'node:events';
import { readFileSync, readdirSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { Worker, isMainThread, parentPort, workerData } from 'node:worker_threads';

const { mmap, createMemfd, fork, readSmaps } = await import(process.env.COWLAB_LIBRARY);
const { native } = await import(process.env.COWLAB_NATIVE);

const PAGE_BYTES = native().pageSizeBytes;
const bytesOf = (buffer) => new Uint8Array(buffer);
const vmas = () => readFileSync('/proc/self/maps', 'utf8').split('\n').length;
const fds = () => readdirSync('/proc/self/fd').length;
const vmaAt = (address) => readSmaps('self').find(({ start, end }) => start <= address && address < end);

/** Finalizers run some turns of the event loop after the collection. */
async function collect() {
  for (let turn = 0; turn < 4; turn++) {
    globalThis.gc();
    await delay(2);
  }
}

/** Something for a region's range to be taken by, had it been given back too early. */
function crowd() {
  const maps = [];
  for (let i = 0; i < 50; i++) maps.push(mmap({ pages: 4, populate: true }));
  return maps;
}

function startWorker(name, transfer = undefined) {
  const worker = new Worker(new URL(import.meta.url), {
    workerData: { name, buffer: transfer },
    transferList: transfer ? [transfer] : [],
  });
  worker.on('error', (error) => {
    throw error;
  });
  return worker;
}

const IN_WORKER = {
  /** Reads what it got until it is all zeros, then writes. */
  reader({ buffer }) {
    const bytes = bytesOf(buffer);
    parentPort.postMessage(bytes[0]);
    parentPort.once('message', () => {
      parentPort.postMessage(bytes.every((byte) => byte === 0));
      bytes.fill(2);
    });
  },
  /** Maps, gives the memory away, and ends. */
  giver() {
    const mapping = mmap({ pages: 4 });
    bytesOf(mapping.buffer).fill(7);
    globalThis.kept = mapping;
    const given = mapping.buffer.transfer();
    parentPort.postMessage({ buffer: given, address: mapping.address }, [given]);
    parentPort.once('message', () => undefined);
  },
  /** Ends with a mapping that JavaScript has seen and not unmapped. */
  leaver() {
    const mapping = mmap({ pages: 64, populate: true });
    bytesOf(mapping.buffer).fill(7);
    globalThis.kept = mapping;
    parentPort.postMessage(mapping.address);
  },
  /** Ends as it should, many times over. */
  tidy() {
    for (let i = 0; i < 20; i++) {
      const mapping = mmap({ pages: 4 });
      bytesOf(mapping.buffer).fill(7);
      mapping.unmap();
    }
    parentPort.postMessage('done');
  },
};

const CASES = {
  unmapped() {
    const mapping = mmap({ pages: 4 });
    const { buffer } = mapping;
    assert.equal(buffer, mapping.buffer);
    const bytes = bytesOf(buffer).fill(7);
    mapping.unmap();
    mapping.unmap();
    crowd();
    assert.equal(buffer.byteLength, 0);
    assert.equal(bytes[0], undefined);
    bytes[0] = 1;
    assert.throws(() => mapping.buffer, /has been unmapped/);
    assert.throws(() => mapping.write(), /has been unmapped/);
  },
  async transferred() {
    const mapping = mmap({ pages: 4 });
    bytesOf(mapping.buffer).fill(7);
    const moved = mapping.buffer.transfer();
    assert.equal(bytesOf(moved)[0], 7);
    mapping.unmap();
    const others = crowd();
    await collect();
    assert.ok(bytesOf(moved).every((byte) => byte === 0));
    bytesOf(moved).fill(9);
    for (const other of others) assert.equal(other.read().sum, 0n);
    // Once more, and to another length: that may copy.
    assert.equal(bytesOf(moved.transfer(PAGE_BYTES))[0], 9);
  },
  cloned() {
    const mapping = mmap({ pages: 4 });
    bytesOf(mapping.buffer).fill(7);
    // Node refuses to transfer memory that is not its own, or copies it; that is for Node to say.
    let clone;
    try {
      clone = structuredClone(mapping.buffer, { transfer: [mapping.buffer] });
    } catch (error) {
      assert.equal(error.name, 'DataCloneError');
    }
    mapping.unmap();
    crowd();
    if (clone) assert.ok(bytesOf(clone).every((byte) => byte === 7 || byte === 0));
  },
  async 'transferred to a worker'() {
    const mapping = mmap({ pages: 4 });
    bytesOf(mapping.buffer).fill(7);
    const worker = startWorker('reader', mapping.buffer.transfer());
    // Its last message and its end may be told in one go.
    const ended = once(worker, 'exit');
    assert.deepEqual(await once(worker, 'message'), [7]);
    mapping.unmap();
    crowd();
    await collect();
    worker.postMessage('unmapped');
    assert.deepEqual(await once(worker, 'message'), [true]);
    await ended;
  },
  async 'given by a worker that has ended'() {
    const worker = startWorker('giver');
    const [{ buffer, address }] = await once(worker, 'message');
    assert.equal(bytesOf(buffer)[0], 7);
    worker.postMessage('seen');
    await once(worker, 'exit');
    await collect();
    crowd();
    assert.ok(vmaAt(address));
    assert.ok(bytesOf(buffer).every((byte) => byte === 0));
    bytesOf(buffer).fill(1);
  },
  async 'left by a worker that has ended'() {
    const worker = startWorker('leaver');
    const [address] = await once(worker, 'message');
    await once(worker, 'exit');
    // Whether somebody still sees the addresses cannot be known; what they held is given back.
    assert.equal(vmaAt(address)?.fieldsKb.Rss ?? 0, 0);
  },
  async 'unmapped by workers'() {
    await once(startWorker('tidy'), 'exit');
    const before = vmas();
    for (let i = 0; i < 5; i++) await once(startWorker('tidy'), 'exit');
    await collect();
    assert.ok(vmas() - before < 60, `${vmas() - before} VMAs more`);
  },
  async 'without its mapping'() {
    let buffer;
    let address;
    (() => {
      const mapping = mmap({ pages: 4 });
      ({ buffer, address } = mapping);
    })();
    await collect();
    bytesOf(buffer).fill(7);
    assert.equal(vmaAt(address).fieldsKb.Rss, (4 * PAGE_BYTES) / 1024);
    buffer = undefined;
    await collect();
    assert.equal(vmaAt(address), undefined);
  },
  async 'collected, unlike its mapping'() {
    const mapping = mmap({ pages: 4 });
    (() => bytesOf(mapping.buffer).fill(1))();
    await collect();
    assert.equal(mapping.read().sum, 4n * 0x0101010101010101n);
    assert.equal(bytesOf(mapping.buffer)[0], 1);
    mapping.unmap();
  },
  async 'collected after unmap'() {
    const { address, mapping } = (() => {
      const one = mmap({ pages: 4 });
      bytesOf(one.buffer).fill(1);
      return { address: one.address, mapping: one };
    })();
    mapping.unmap();
    await collect();
    assert.equal(vmaAt(address), undefined);
  },
  async 'of thousands of mappings'() {
    const cycle = () => {
      const object = createMemfd(2);
      const mapping = mmap({ pages: 2, sharing: 'shared', object });
      bytesOf(mapping.buffer)[0] = 1;
      mapping.unmap();
      object.close();
    };
    cycle();
    await collect();
    const before = { vmas: vmas(), fds: fds() };
    for (let i = 0; i < 4000; i++) {
      cycle();
      if (i % 500 === 0) await collect();
    }
    await collect();
    assert.equal(fds(), before.fds);
    assert.ok(vmas() - before.vmas < 40, `${vmas() - before.vmas} VMAs more`);
  },
  async 'too long for an ArrayBuffer'() {
    const pages = constants.MAX_LENGTH / PAGE_BYTES + 1;
    if (pages > 2 ** 30) return console.log('this Node has no such limit');
    const mapping = mmap({ pages, noreserve: true });
    assert.throws(() => mapping.buffer, /^RangeError: the mapping has \d+ bytes, an ArrayBuffer at most/);
    // And the addon by itself.
    const raw = new (native().Mapping)(pages, false, true, false, false, -1, 0);
    assert.throws(() => raw.buffer());
    await collect();
    raw.access(true, pages - 1, 1, 0, 1, 1, 0, 0, 5n, new Float64Array(3));
    raw.close();
    await collect();
    mapping.unmap();
  },
  async 'while a child has the memory'() {
    const mapping = mmap({ pages: 4, sharing: 'shared' });
    const bytes = bytesOf(mapping.buffer).fill(0);
    const child = fork();
    mapping.unmap();
    await collect();
    assert.equal(bytes.length, 0);
    await child.write(mapping, {}, 3n);
    assert.equal((await child.read(mapping)).sum, 12n);
    await child.close();
  },
};

if (isMainThread) {
  await CASES[process.argv[2]]();
  await collect();
} else {
  IN_WORKER[workerData.name](workerData);
}
