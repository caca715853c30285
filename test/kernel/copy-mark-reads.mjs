/** How often smaps is read for a mark of copies, by a process without CAP_SYS_ADMIN. */
import { fork, markCopies } from '../../dist/index.js';
import { native } from '../../dist/native.js';

const addon = native();
const { readSmaps } = addon;
let reads = 0;
addon.readSmaps = (...args) => {
  reads++;
  return readSmaps(...args);
};
const parent = fork();
const region = await parent.map({ pages: 100 });
await parent.write(region);
const child = await parent.fork();
const mark = markCopies(region);
const readsAtMark = reads;
await child.write(region, { first: 0, pages: 30 });
const copied = mark.copiedPages();
console.log(JSON.stringify({ readsAtMark, readsAfter: reads - readsAtMark, copied }));
await parent.close();
