import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';

const SCRIPT = fileURLToPath(new URL('buffer-lives.mjs', import.meta.url));
const [major = 0] = process.versions.node.split('.').map(Number);
/** Node 20 has it behind a flag of V8's. */
const FLAGS = major < 22 ? ['--harmony-rab-gsab-transfer'] : [];

/** Lives out one case of buffer-lives.mjs in a process of its own, which must end well. */
async function live(name: string): Promise<void> {
  const child = spawn(process.execPath, ['--expose-gc', ...FLAGS, SCRIPT, name], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: {
      ...process.env,
      COWLAB_LIBRARY: new URL('../../dist/index.js', import.meta.url).href,
      COWLAB_NATIVE: new URL('../../dist/native.js', import.meta.url).href,
    },
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => (output += chunk.toString()));
  const [code, signal] = (await once(child, 'close')) as [number | null, string | null];
  expect({ code, signal }, output).toEqual({ code: 0, signal: null });
}

describe('an ArrayBuffer over mapped memory', () => {
  test('is empty after unmap(), and so are the views of it', () => live('unmapped'));
  test('that was moved by transfer() reads as zeros after unmap(), and writes to it reach nobody', () =>
    live('transferred'));
  test('survives structuredClone with transfer', () => live('cloned'));
  test('that was moved to a worker survives unmap() here', () => live('transferred to a worker'));
  test('that came from a worker survives the end of that worker', () => live('given by a worker that has ended'));
  test('lives on without its mapping, and the memory goes when it goes', () => live('without its mapping'));
  test('may be collected while the mapping is in use', () => live('collected, unlike its mapping'));
  test('keeps its addresses after unmap() only until it is collected', () => live('collected after unmap'));
  test('is refused for a mapping longer than V8 allows, which is no crash', () => live('too long for an ArrayBuffer'));
  test('is detached though a child still has the memory', () => live('while a child has the memory'));
  test('leaves neither VMAs nor descriptors behind after 4000 mappings', () => live('of thousands of mappings'));
  test('that a worker has unmapped leaves no VMAs behind', () => live('unmapped by workers'));
  test('that a worker has left behind holds no memory', () => live('left by a worker that has ended'));
});
