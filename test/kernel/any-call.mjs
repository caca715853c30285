// Calls the native interface with anything JavaScript can pass, as told: node any-call.mjs SEED CALLS. Run by
// any-call.test.ts in a process of its own, because what it looks for is a crash. Says on its last line what it did.
import { closeSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';

const { native } = await import(process.env.COWLAB_NATIVE);
const addon = native();
/** Whatever is taken for a path is in here. */
const folder = mkdtempSync(join(tmpdir(), 'cowlab-any-call-'));
process.chdir(folder);
const [seed = 1, calls = 1000] = process.argv.slice(2).map(Number);

/** More than this would cost time or memory, and touch no other code. */
const FEW_PAGES = 4096;
const MOST_PAGES = 2 ** 36;
const KEPT = 6;

const mappings = [new addon.Mapping(4, true, false, false, false, -1, 0)];
const buffers = [];
const fds = [];
const { Mapping } = addon;
const methods = ['address', 'access', 'advise', 'buffer', 'close'];
const functions = Object.keys(addon).filter((name) => typeof addon[name] === 'function' && name !== 'Mapping');

const detached = (Type) => {
  const array = new Type(16);
  structuredClone(array.buffer, { transfer: [array.buffer] });
  return array;
};
const shrunk = (Type) => {
  const buffer = new ArrayBuffer(16 * Type.BYTES_PER_ELEMENT, { maxByteLength: 4096 });
  const array = new Type(buffer);
  buffer.resize?.(8);
  return array;
};
const throwing = new Proxy(() => undefined, {
  get: () => {
    throw new Error('get');
  },
  getPrototypeOf: () => {
    throw new Error('getPrototypeOf');
  },
});
const revoked = () => {
  const { proxy, revoke } = Proxy.revocable({}, {});
  revoke();
  return proxy;
};
const conversion = () => {
  throw new Error('converted');
};
/** Comes back into the addon while it reports a failure. */
const reentrant = () => {
  for (const mapping of mappings) mapping.close();
  addon.setErrorFactory(conversion);
  return new Error('re-entered');
};

const ARRAYS = [Float64Array, BigUint64Array, Uint8Array, Int32Array, BigInt64Array];
const values = [
  ...[0, -0, 1, 2, 3, 4, 5, 16, 17, -1, -2, 0.5, 4095, 4096, 2 ** 16, 2 ** 31 - 1, 2 ** 31, 2 ** 32, 2 ** 32 + 1],
  ...[
    2 ** 34,
    2 ** 34 + 1,
    2 ** 36,
    2 ** 40,
    2 ** 53 - 1,
    2 ** 53,
    2 ** 64,
    -(2 ** 63),
    1e308,
    -Infinity,
    Infinity,
    NaN,
  ],
  ...[0n, 1n, -1n, 4096n, 2n ** 47n, 2n ** 56n, 2n ** 63n, 2n ** 64n - 4096n, 2n ** 64n, 2n ** 4000n, -(2n ** 64n)],
  ...[undefined, null, true, false, '', '1', 'x'.repeat(5000), Symbol('s'), Symbol.iterator, /x/, new Date(NaN)],
  ...[
    {},
    [],
    [1, 2],
    { valueOf: conversion },
    { [Symbol.toPrimitive]: conversion },
    {
      get length() {
        return conversion();
      },
    },
  ],
  ...[throwing, () => 1, conversion, reentrant, class {}, Promise.resolve(1), new DataView(new ArrayBuffer(64))],
  ...[new ArrayBuffer(128), new SharedArrayBuffer(128), new Number(4), Object.create(Mapping.prototype), process.pid],
].map((value) => () => value);
const made = [
  revoked,
  ...ARRAYS.flatMap((Type) => [
    () => new Type(0),
    () => new Type(2),
    () => new Type(16),
    () => new Type(FEW_PAGES),
    () => detached(Type),
    () => shrunk(Type),
    () => new Type(new SharedArrayBuffer(16 * 8)),
    () => new Type(mappings[0]?.kept ?? new ArrayBuffer(128), 0, 16),
    () => new Proxy(new Type(16), {}),
  ]),
];
const live = [
  () => mappings[0],
  () => fds[0] ?? -1,
  () => fds.at(-1) ?? -1,
  () => buffers[0],
  () => address() ?? 4096n,
];
function address() {
  for (const mapping of mappings) {
    try {
      return mapping.address();
    } catch {
      // closed
    }
  }
  return undefined;
}

const floats = () => new Float64Array(6);
/** Arguments with which each call works, so that those with one wrong argument come far. */
const VALID = {
  setErrorFactory: [() => (errno, syscall) => new Error(`${syscall} ${String(errno)}`)],
  fork: [floats],
  openChannel: [],
  openPipe: [],
  sendCommand: [() => fds[0] ?? 0, () => new BigUint64Array(16), () => -1],
  waitProcess: [() => process.pid, floats],
  spawn: [
    () => 'true',
    () => ['true'],
    () => null,
    () => null,
    () => Int32Array.of(-1, fds[0] ?? -1, -1),
    () => false,
    floats,
  ],
  enterCommandLoop: [() => fds[0] ?? 0, () => 1],
  preferProcess: [() => 2 ** 31 - 1, () => true],
  createMemfd: [() => 4],
  readPagemap: [() => process.pid, () => address() ?? 0n, () => 4, () => new BigUint64Array(4)],
  readPages: [
    () => process.pid,
    () => address() ?? 0n,
    () => 4,
    () => true,
    () => true,
    () => new Uint8Array(4),
    () => [null, floats()][returned % 2],
  ],
  countPages: [() => process.pid, () => address() ?? 0n, () => 4, () => true, () => true, floats],
  readSmaps: [() => '/proc/self/smaps', () => address() ?? null, () => 4],
  readStats: [() => '/proc', () => Int32Array.of(process.pid)],
  parseSmaps: [() => Buffer.from('1000-2000 rw-p 0 0:0 0\nRss: 4 kB\n')],
  protectPages: [() => fds[0] ?? 0, () => address() ?? 0n, () => 4, () => true],
  findWritten: [() => fds[0] ?? 0, () => address() ?? 0n, () => 4, () => 0],
  queryVma: [() => process.pid, () => address() ?? 4096n, () => new BigUint64Array(7)],
  lockFile: [() => join(folder, 'lock')],
  startRestorer: [
    () => fds.at(-1) ?? 0,
    () => join(folder, 'journal'),
    () => 'a journal',
    () => [
      'write',
      join(folder, 'setting'),
      '1',
      'remove',
      join(folder, 'nothing'),
      '',
      'swapoff',
      join(folder, 'none'),
      '',
    ],
    floats,
  ],
  swapOn: [() => join(folder, 'lock')],
  swapOff: [() => join(folder, 'lock')],
  reapRestorer: [() => process.pid],
  forbidsZeroPage: [],
  probe: [],
  systemMemory: [],
  Mapping: [() => 4, () => true, () => false, () => false, () => false, () => fds.at(-1) ?? -1, () => 0],
  address: [],
  access: [() => true, ...[0, 4, 0, 4, 2, 1, 7].map((n) => () => n), () => 1n, floats],
  advise: [() => 0, () => 4, () => [4, 21][returned % 2]],
  buffer: [],
  count: [() => 64, () => 1, () => 3],
  lock: [() => 64, () => 1],
  unlock: [() => 64],
  grow: [() => 8],
  close: [],
};

/** Calls that do what they are asked, at too great a cost. */
function isTooMuch(name, args) {
  // The pid may be anybody's.
  if (name === 'preferProcess') return typeof args[0] === 'number' && args[0] !== 2 ** 31 - 1;
  // A program of another name may be anything, and the command loop is for good.
  if (name === 'spawn') return typeof args[0] === 'string' && args[0] !== 'true';
  if (name === 'enterCommandLoop') return args[1] === process.ppid;
  // Each is done, and waited for.
  if (name === 'count') return typeof args[2] === 'number' && args[2] > 1000;
  if (name === 'lock') return typeof args[1] === 'number' && args[1] > 5;
  const isMany = (pages) => typeof pages === 'number' && pages > FEW_PAGES && pages <= MOST_PAGES;
  return ['countPages', 'Mapping', 'createMemfd', 'grow'].includes(name) && args.some(isMany);
}

let [returned, threw, forked] = [0, 0, 0];

function bury(into) {
  const [pid, , fd] = into;
  forked++;
  closeSync(fd);
  while (!addon.waitProcess(pid, floats())) continue;
}

function buryRestorer(into) {
  const [pid, fd] = into;
  closeSync(fd);
  while (!addon.reapRestorer(pid)) continue;
}

function keep(name, result, args) {
  if (name === 'startRestorer') buryRestorer(args[4]);
  if (name === 'lockFile') fds.push(result);
  if (name === 'fork') bury(args[0]);
  if (name === 'spawn') while (!addon.waitProcess(args[6][0], floats())) continue;
  if (name === 'openChannel' || name === 'openPipe') fds.push(...result);
  if (name === 'createMemfd') fds.push(result);
  if (name === 'Mapping') mappings.unshift(result);
  if (name === 'buffer') {
    new Uint8Array(result).fill(1);
    buffers.unshift(result);
  }
  while (fds.length > KEPT) closeSync(fds.shift());
  if (mappings.length > KEPT) mappings.pop().close();
  if (buffers.length > KEPT) buffers.pop();
  // What JavaScript has of memory can be read, whatever has been done to it since.
  for (const buffer of buffers) if (buffer.byteLength > 0) new Uint8Array(buffer)[0] += 1;
}

function call({ name, self, changes, asFunction }) {
  const args = VALID[name].map((make) => make());
  for (const { index, make } of changes) args[index] = make();
  if (isTooMuch(name, args)) return;
  try {
    let result;
    if (name === 'Mapping') result = asFunction ? Reflect.apply(Mapping, self(), args) : new Mapping(...args);
    else if (methods.includes(name)) result = Reflect.apply(Mapping.prototype[name], self(), args);
    else result = Reflect.apply(addon[name], self(), args);
    returned++;
    keep(name, result, args);
  } catch {
    threw++;
  }
  if (name === 'setErrorFactory' && returned % 2 === 0) addon.setErrorFactory((errno) => new Error(String(errno)));
}

const anything = fc.oneof(fc.constantFrom(...values), fc.constantFrom(...made), fc.constantFrom(...live));
const aMapping = fc.constantFrom(
  () => mappings[0],
  () => mappings.at(-1),
);
const anyCall = fc.record({
  name: fc.constantFrom(...functions, ...methods, ...methods, 'Mapping'),
  self: fc.oneof({ weight: 4, arbitrary: aMapping }, { weight: 1, arbitrary: anything }),
  changes: fc.array(fc.record({ index: fc.nat(10), make: anything }), { maxLength: 3 }),
  asFunction: fc.boolean(),
});

const openFds = () => readdirSync('/proc/self/fd').length;
const before = openFds();
fc.assert(
  fc.property(anyCall, (one) => {
    call(one);
  }),
  { seed, numRuns: calls },
);

addon.setErrorFactory((errno) => new Error(String(errno)));
for (const mapping of mappings) mapping.close();
for (const fd of fds.splice(0)) closeSync(fd);
const missing = [...functions, ...methods, 'Mapping'].filter((name) => !VALID[name]);
const untouched = new addon.Mapping(4, true, false, false, false, -1, 0);
untouched.access(true, 0, 4, 0, 4, 1, 0, 0, 7n, new Float64Array(3));
const sum = untouched.access(false, 0, 4, 0, 4, 1, 0, 0, 0n, new Float64Array(3));
const into = floats();
addon.fork(into);
bury(into);
process.chdir('/');
rmSync(folder, { recursive: true });
const children = readFileSync(`/proc/self/task/${process.pid}/children`, 'utf8').trim();
const leaked = openFds() - before;
console.log(JSON.stringify({ returned, threw, forked, sum: Number(sum), leaked, children, missing }));
