/** The package by `import`, with its types. */
import { FeatureUnavailableError, countPages, fork, mmap, modelMachine, readHostFacts } from 'cowlab';
import type { ForkedProcess, HostFacts } from 'cowlab';

const memory = mmap({ pages: 1000 });
memory.write();
const child: ForkedProcess = fork();
await child.write(memory, { pages: 100 });
const { exclusive, shared } = countPages(child.pid, { address: memory.address, pages: memory.pages });
await child.exit();
memory.unmap();

const facts: HostFacts = readHostFacts(process.pid);
await using model = modelMachine(facts);
const region = await model.root.map({ pages: 7 });
await model.root.write(region);

// @ts-expect-error A region has no such sharing.
const misuse = () => mmap({ pages: 1, sharing: 'borrowed' });
try {
  misuse();
} catch (error) {
  if (error instanceof FeatureUnavailableError) throw error;
}
console.log(JSON.stringify({ exclusive, shared }));
