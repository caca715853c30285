// A laboratory that works until it is killed: argv[2] says how it ends. Run by death.test.ts.
import { Worker, isMainThread } from 'node:worker_threads';

const { fork, createMemfd } = await import(process.env.COWLAB_LIBRARY);
const how = process.argv[2] ?? 'work';

/** Set once there is something to leave behind, however long that took. */
let ending;

function end() {
  if (how === 'exit') process.exit(0);
  if (how === 'throw') throw new Error('as asked');
}

async function work() {
  for (;;) {
    const root = fork();
    process.stdout.write(`${root.pid}\n`);
    const object = createMemfd(64);
    const region = await root.map({ pages: 4000 });
    await root.map({ pages: 64, object, sharing: 'shared', populate: true });
    await root.write(region);
    const children = [await root.fork(), await root.fork()];
    const grandchild = await children[0].fork();
    process.stdout.write(`${[...children, grandchild].map(({ pid }) => pid).join('\n')}\n`);
    if (!ending) ending = setTimeout(end, 50);
    await Promise.all([...children, grandchild].map((child) => child.write(region, { pattern: 'random' })));
    await children[0].kill();
    await root.close();
    object.close();
  }
}

if (how === 'worker' && isMainThread) {
  const worker = new Worker(new URL(import.meta.url), { argv: ['work'], stdout: true });
  let lines = 0;
  worker.stdout.on('data', (chunk) => {
    process.stdout.write(chunk);
    lines += chunk.toString().split('\n').length - 1;
    if (lines >= 8) void worker.terminate().then(() => process.stdout.write('terminated\n'));
  });
  setInterval(() => undefined, 1000);
} else {
  await work();
}
