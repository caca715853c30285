// Changes vm.overcommit_* again and again, with processes about, until it is killed. Run by restore.test.ts.
import { readFileSync } from 'node:fs';

const { openMachine } = await import(process.env.COWLAB_LIBRARY);
const committedKb = Number(/Committed_AS: *(\d+)/.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1]);

process.stdout.write('ready\n');
for (;;) {
  const machine = await openMachine({ allow: ['overcommit'], purpose: 'a test of restoring' });
  await machine.root.map({ pages: 1000 });
  await machine.setOvercommit({ mode: 2, limitBytes: (committedKb + 2 ** 21) * 1024 });
  await machine.root.fork();
  await machine.setOvercommit({ mode: 1, ratio: 61 });
  await machine.setOvercommit({ mode: 2, ratio: 1000 });
  await machine.close();
}
