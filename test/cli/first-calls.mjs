/** Imports the built library and prints what the first real call of each kind throws, as JSON; 'nothing' if it does not. */
import * as cowlab from '../../dist/index.js';

const range = { address: 0n, pages: 1 };
const calls = {
  fork: () => cowlab.fork(),
  spawnFresh: () => cowlab.spawnFresh(),
  spawn: () => cowlab.spawn('true'),
  mmap: () => cowlab.mmap({ pages: 1 }),
  SharedArea: () => new cowlab.SharedArea(),
  createMemfd: () => cowlab.createMemfd(1),
  createTemporaryFile: () => cowlab.createTemporaryFile(1),
  openMachine: () => cowlab.openMachine(),
  runExperiment: () => cowlab.runExperiment(cowlab.experiments[0], cowlab.parseParams(cowlab.experiments[0], {})),
  replayOnLinux: () => cowlab.replayOnLinux([]),
  predictFork: () => cowlab.predictFork(process.pid, cowlab.assumedFacts(2 ** 30)),
  pageSizeBytes: () => cowlab.pageSizeBytes(),
  readHostFacts: () => cowlab.readHostFacts(process.pid),
  countPages: () => cowlab.countPages(process.pid, range),
  readPageStates: () => cowlab.readPageStates(process.pid, range),
  readPagemap: () => cowlab.readPagemap(process.pid, range),
  readFrames: () => cowlab.readFrames(process.pid, range),
  readVma: () => cowlab.readVma(process.pid, 0n),
  readSmaps: () => cowlab.readSmaps(process.pid),
  readSmapsRollup: () => cowlab.readSmapsRollup('self'),
  readSmapsTable: () => cowlab.readSmapsTable(process.pid),
  readSmapsRollupTable: () => cowlab.readSmapsRollupTable(process.pid),
  readStat: () => cowlab.readStat(process.pid),
  readStatm: () => cowlab.readStatm(process.pid),
  readStatus: () => cowlab.readStatus(process.pid),
  readMeminfo: () => cowlab.readMeminfo(),
  readVmstat: () => cowlab.readVmstat(),
  readSharing: () => cowlab.readSharing(process.pid),
  readProcessTree: () => cowlab.readProcessTree(process.pid),
  readTreeMemory: () => cowlab.readTreeMemory(process.pid),
  TreeWatch: () => new cowlab.TreeWatch(process.pid),
};

const said = {};
for (const [name, call] of Object.entries(calls)) {
  try {
    await call();
    said[name] = 'nothing';
  } catch (error) {
    said[name] = `${error.name}: ${error.message}`;
  }
}

const model = cowlab.modelMachine(cowlab.assumedFacts(2 ** 30));
const region = await model.root.map({ pages: 10 });
await model.root.write(region);
await (await model.root.fork()).write(region, { pages: 4 });
const { processes } = await model.observe('on the model');
console.log(JSON.stringify({ said, counts: processes[1].regions[0].counts }));
