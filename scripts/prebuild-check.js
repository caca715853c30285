/**
 * What scripts/test-prebuilds.js runs in a Node of the architecture that it names: the prebuilt addon is loaded, forks, copies,
 * counts and dies as it should.
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';

const { fork, mmap, countPages, holdFixture, openMachine, ProcessEndedError } =
  /** @type {typeof import('../lib/index.js')} */ (await import(new URL('../dist/index.js', import.meta.url).href));

assert.equal(process.arch, process.argv[2]);

const memory = mmap({ pages: 100 });
assert.match(
  fs.readFileSync('/proc/self/maps', 'utf8'),
  new RegExp(`prebuilds/linux-${process.arch}/cowlab.glibc.node`),
);
memory.write({}, 5n);
const child = fork();
assert.equal((await child.read(memory)).sum, 500n, 'the child has what Node wrote');
assert.equal((await child.write(memory, { pages: 10 }, 7n)).minorFaults, 10, 'a fault for each copied page');
assert.equal(memory.read().sum, 500n, 'and Node does not see what the child writes');
const { exclusive, shared } = countPages(child.pid, { address: memory.address, pages: memory.pages });
assert.deepEqual({ exclusive, shared }, { exclusive: 10, shared: 90 });

const grandchild = await child.fork();
const hidden = await grandchild.map({ pages: 1, protection: 'none' });
await assert.rejects(grandchild.write(hidden), (error) => {
  return error instanceof ProcessEndedError && error.status.signal === 'SIGSEGV';
});
assert.equal((await child.exit(3)).code, 3);
memory.unmap();

const machine = await openMachine();
const region = await machine.root.map({ pages: 50 });
await machine.root.write(region);
const other = await machine.root.fork();
await other.write(region, { pages: 20 });
const { processes } = await machine.observe('written');
assert.equal(processes[1]?.regions[0]?.counts['exclusive'], 20);
await machine.close();

// Under qemu-user the kernel cannot start the programs that lie beside the addon.
if (process.argv[3] === 'native') {
  const held = await holdFixture('forked');
  assert.equal(held.truth.totals.processes, 2);
  await held.close();
}

console.log(`${process.arch}, Node ${process.versions.node}: loaded, forked, copied and counted to the page`);
