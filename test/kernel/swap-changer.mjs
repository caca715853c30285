// Turns swap on and off again and again, with pages in it, until it is killed. Run by restore.test.ts.
const { fork } = await import(process.env.COWLAB_LIBRARY);
const { SystemChanges } = await import(new URL('api/system-changes.js', process.env.COWLAB_LIBRARY).href);

process.stdout.write('ready\n');
for (;;) {
  const changes = SystemChanges.begin({ swap: true, purpose: 'a test of restoring' });
  changes.addSwap(1024);
  const child = fork();
  const region = await child.map({ pages: 500 });
  await child.write(region);
  await child.advise(region, 'pageout');
  await changes.restore();
  await child.close();
}
