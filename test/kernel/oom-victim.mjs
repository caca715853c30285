// A laboratory with a cgroup of its own that works until it is killed. Run by oom.test.ts.
const { openMachine } = await import(process.env.COWLAB_LIBRARY);
const machine = await openMachine({ allow: ['cgroup'], purpose: 'a test' });
await machine.limitCgroup({ memoryMaxBytes: 64 * 2 ** 20 });
const parent = await machine.root.fork();
await parent.joinCgroup();
process.stdout.write(`${machine.pidOf(parent)}\n`);
const region = await parent.map({ pages: 4096 });
for (;;) {
  const child = await parent.fork();
  await child.write(region);
  await child.exit();
}
