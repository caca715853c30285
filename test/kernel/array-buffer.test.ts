import { describe, expect, test } from 'vitest';
import { run } from '../cli/command.js';

const LIBRARY = new URL('../../dist/index.js', import.meta.url).href;

/** ArrayBuffer.prototype.transfer() is behind a flag in Node 20. */
const FLAGS = ['--expose-gc', ...('transfer' in ArrayBuffer.prototype ? [] : ['--harmony-rab-gsab-transfer'])];

/** Runs a case in a Node of its own, so that a crash is an exit code; `gc` and what the cases share is there. */
async function inNode(body: string): Promise<void> {
  const script = `
    import assert from 'node:assert/strict';
    import { readFileSync, readdirSync } from 'node:fs';
    import { Worker } from 'node:worker_threads';
    import { mmap, fork, createMemfd, SystemError } from ${JSON.stringify(LIBRARY)};
    const turn = () => new Promise((resolve) => setTimeout(resolve, 5));
    const collect = async () => { for (let i = 0; i < 5; i++) { gc(); await turn(); } };
    const flagged = () => readFileSync('/proc/self/smaps', 'utf8').match(/^VmFlags:.*\\bdd\\b/gm)?.length ?? 0;
    // [vvar] and its like carry the flag of our guards too.
    const others = flagged();
    const guards = () => flagged() - others;
    ${body}`;
  const { code, signal, stderr } = await run(process.execPath, [...FLAGS, '--input-type=module', '-e', script]);
  expect(stderr).toBe('');
  expect({ code, signal }).toEqual({ code: 0, signal: null });
}

describe('the ArrayBuffer of a mapping', () => {
  test('is the same one each time, and is the memory', () =>
    inNode(`
      const memory = mmap({ pages: 2, sharing: 'shared' });
      assert.equal(memory.buffer, memory.buffer);
      assert.equal(memory.buffer.byteLength, memory.length);
      new BigUint64Array(memory.buffer).fill(3n);
      assert.equal(memory.read().sum, 6n);
      memory.unmap();`));

  test('is detached by unmap, and reads of it find nothing', () =>
    inNode(`
      const memory = mmap({ pages: 2 });
      let bytes = new Uint8Array(memory.buffer);
      bytes[0] = 1;
      memory.unmap();
      assert.equal(bytes.length, 0);
      assert.equal(bytes[0], undefined);
      assert.throws(() => memory.buffer, TypeError);
      bytes = undefined;
      await collect();
      assert.equal(guards(), 0);`));

  test('that was moved away by a transfer reads as zeros after unmap, and never crashes', () =>
    inNode(`
      const memory = mmap({ pages: 2, sharing: 'shared' });
      new Uint8Array(memory.buffer).fill(7);
      const moved = memory.buffer.transfer();
      const bytes = new Uint8Array(moved);
      assert.equal(bytes[100], 7);
      memory.unmap();
      assert.equal(bytes[100], 0);
      bytes.fill(9);
      assert.equal(bytes[8191], 9);
      await collect();
      assert.equal(bytes[8191], 9);`));

  test('gives its addresses back when the moved one is collected', () =>
    inNode(`
      let memory = mmap({ pages: 2 });
      let moved = memory.buffer.transfer();
      memory.unmap();
      memory = undefined;
      await collect();
      assert.equal(guards(), 2);
      moved = undefined;
      await collect();
      assert.equal(guards(), 0);`));

  test('may be posted to a worker, which may outlive the mapping or end before it', () =>
    inNode(`
      for (const order of ['unmap', 'terminate']) {
        const memory = mmap({ pages: 4, sharing: 'shared' });
        const code = "import('worker_threads').then(({ parentPort }) => parentPort.on('message', (buffer) => { new Uint8Array(buffer).fill(5); globalThis.kept = buffer; parentPort.postMessage('done'); }));";
        const worker = new Worker(code, { eval: true });
        const { buffer } = memory;
        // Node may move it, copy it, or refuse: in no case may anything crash.
        let posted = true;
        try { worker.postMessage(buffer, [buffer]); } catch { posted = false; }
        if (posted) await new Promise((resolve) => worker.once('message', resolve));
        if (order === 'unmap') memory.unmap();
        await worker.terminate();
        memory.unmap();
        await collect();
      }`));

  test('survives collections while only a view of it is held', () =>
    inNode(`
      const bytes = (() => new Uint8Array(mmap({ pages: 3 }).buffer))();
      bytes[5] = 1;
      await collect();
      assert.equal(bytes[5], 1);
      bytes.fill(2);
      assert.equal(guards() > 0, true);`));
});

describe('mappings', () => {
  test('2,000 made and unmapped, with and without a buffer, leave no VMA and no descriptor', () =>
    inNode(`
      const cycle = () => {
        const object = createMemfd(2);
        const memory = mmap({ pages: 2, object, sharing: 'shared' });
        new Uint8Array(memory.buffer)[0] = 1;
        memory.unmap();
        object.close();
        mmap({ pages: 1 }).unmap();
      };
      for (let i = 0; i < 20; i++) cycle();
      await collect();
      const before = [readdirSync('/proc/self/fd').length, guards()];
      for (let i = 0; i < 2000; i++) { cycle(); if (i % 100 === 0) await turn(); }
      await collect();
      assert.deepEqual([readdirSync('/proc/self/fd').length, guards()], before);`));

  test('that are forgotten are unmapped when they are collected', () =>
    inNode(`
      for (let i = 0; i < 200; i++) mmap({ pages: 1 }).write();
      await collect();
      assert.ok(guards() < 20, String(guards()));`));

  test('more than a process can have are refused, before V8 itself is refused its memory', () =>
    inNode(`
      const kept = [];
      assert.throws(() => { for (;;) kept.push(mmap({ pages: 1 })); }, { code: 'ENOMEM', syscall: 'mmap' });
      assert.ok(kept.length >= 9000);
      for (const memory of kept) memory.unmap();
      mmap({ pages: 1 }).unmap();`));

  test('work in worker threads, and so do forks; what a worker leaves is cleaned up with it', () =>
    inNode(`
      const code = \`import(\${JSON.stringify(${JSON.stringify(LIBRARY)})}).then(async ({ mmap, fork }) => {
        const memory = mmap({ pages: 4 });
        memory.write({}, 3n);
        const child = fork();
        const { sum } = await child.read(memory);
        new Uint8Array(memory.buffer)[0] = 1;
        (await import('worker_threads')).parentPort.postMessage([child.pid, sum]);
        setInterval(() => undefined, 1000);
      })\`;
      const worker = new Worker(code, { eval: true });
      const [pid, sum] = await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
      assert.equal(sum, 12n);
      await worker.terminate();
      await collect();
      await new Promise((resolve) => setTimeout(resolve, 100));
      const gone = () => { try { return /^State:\\s*[ZX]/m.test(readFileSync('/proc/' + pid + '/status', 'utf8')); } catch { return true; } };
      assert.ok(gone());`));
});
