/**
 * The call of child_process.spawn in a Node with dirty pages; one run for each line on standard input, answered in
 * nanoseconds, as floor.c does. A process of its own: a fork leaves the pages of its parent write-protected, and the first
 * posix_spawn after they were written again is slower for it, ours and C's alike.
 *
 *   node node-spawn.js PAGES
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';

// The types are those of the sources, and what runs is what is shipped.
const { mmap } = /** @type {typeof import('../../lib/index.js')} */ (
  await import(new URL('../../dist/index.js', import.meta.url).href)
);

const mapping = mmap({ pages: Number(process.argv[2]), sharing: 'private' });
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
while (!(await lines.next()).done) {
  mapping.write();
  const start = process.hrtime.bigint();
  const program = spawn('true', { stdio: 'ignore' });
  const elapsedNs = process.hrtime.bigint() - start;
  await once(program, 'exit');
  console.log(String(elapsedNs));
}
