/** Fixtures and matchers of the package, with their types. */
import { fork, mmap } from 'cowlab';
import { expect, markCopies, pagesOf, test } from 'cowlab/vitest';

test('a child shares what it does not write', async ({ own }) => {
  const memory = own(mmap({ pages: 64 }));
  memory.write();
  const child = own(fork());
  const mark = markCopies(memory);
  expect(pagesOf(child, memory)).toShareAllPages();
  await child.write(memory, { pages: 16 });
  expect(pagesOf(child, memory)).toHaveExclusivePages(16);
  expect(mark).toHaveCopied((memory.length / memory.pages) * 16);
  expect(pagesOf(process, memory, { first: 16 })).not.toHaveExclusivePages(1);
});

test('a fork that should fail is ended when it does not', async ({ root }) => {
  await expect(root).not.toFailToFork('ENOMEM');
});

test('a Machine is opened with options', async ({ machine, expect: own }) => {
  const region = await machine.root.map({ pages: 3 });
  await machine.root.write(region);
  const [observed] = (await machine.observe('written')).processes;
  own(observed?.regions[0]).toHaveExclusivePages(3);
});

// A failure whose message the reader of this project's output looks for.
test.runIf(process.env['SHOW_A_FAILURE'])('a failure shows the pages', async ({ own }) => {
  const memory = own(mmap({ pages: 100 }));
  memory.write();
  const child = own(fork());
  await child.write(memory, { pages: 50 });
  expect(pagesOf(child, memory)).toShareAllPages();
});

test('types refuse another code', () => {
  // @ts-expect-error fork() says ENOMEM or EAGAIN.
  const refused = () => expect({}).toFailToFork('EPERM');
  expect(refused).toBeTypeOf('function');
});
