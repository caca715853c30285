/** What a process without CAP_SYS_ADMIN is told of the pages of another one, before and after they are marked. */
import { countPages, fork, readPageStates, readPagemap } from '../../dist/index.js';

const child = fork();
const look = (range) => ({
  counts: countPages(child.pid, range),
  states: Array.from(readPageStates(child.pid, range)),
});
const [unmarked, marked] = [[], []];
let framesVisible = false;
for (const sharing of ['private', 'shared']) {
  const region = await child.map({ pages: 1000, sharing });
  await child.write(region, { first: 100, pages: 300 });
  await child.read(region, { first: 350, pages: 100 });
  const range = child.placement(region);
  framesVisible ||= readPagemap(child.pid, range).some((entry) => (entry & 0xffffffn) !== 0n);
  unmarked.push(look(range));
  await child.markWritten(region);
  marked.push(look(range));
}
console.log(JSON.stringify({ framesVisible, unmarked, marked }));
await child.close();
