// Throws hostile calls at the addon itself: argv[2] is the seed, argv[3] how many. Run by hostile.test.ts in a process of
// its own, which ends with code 42 when it has come through. Its standard streams are no sockets.
import { closeSync, readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import fc from 'fast-check';

const [seed, count] = process.argv.slice(2).map(Number);
const addon = createRequire(import.meta.url)(process.env.COWLAB_ADDON_FILE);
const makeError = (errno, syscall) => Object.assign(new Error(`${syscall} ${errno}`), { errno });
addon.setErrorFactory(makeError);

const thrower = () => {
  throw new Error('hostile');
};
const detached = () => {
  const array = new Float64Array(16);
  structuredClone(array, { transfer: [array.buffer] });
  return array;
};
const resizable = () => {
  const buffer = new ArrayBuffer(256, { maxByteLength: 512 });
  const array = new Float64Array(buffer);
  buffer.resize(8);
  return array;
};

/** Page counts stay small or absurd: between lies memory that this machine has, and others need. */
const numbers = fc.oneof(
  fc.nat({ max: 4096 }),
  fc.constantFrom(0, -0, -1, 0.5, NaN, Infinity, -Infinity, 2 ** 31, 2 ** 32, 2 ** 46, 2 ** 53, 2 ** 63, 1e300),
);
const arrays = fc.oneof(
  fc
    .tuple(
      fc.constantFrom(Float64Array, BigUint64Array, BigInt64Array, Uint8Array, Int32Array, Uint8ClampedArray),
      fc.nat({ max: 32 }),
    )
    .map(([Type, length]) => new Type(length)),
  fc.constantFrom(16, 6, 2).map((length) => new Float64Array(new SharedArrayBuffer(length * 8))),
  fc.constant(0).map(detached),
  fc.constant(0).map(resizable),
  fc.constant(0).map(() => new Float64Array(new ArrayBuffer(64), 8, 6)),
);
const OBJECTS = [
  {},
  [],
  { valueOf: thrower, toString: thrower, [Symbol.toPrimitive]: thrower },
  {
    get length() {
      return thrower();
    },
  },
  new Proxy({}, { get: thrower, has: thrower, getPrototypeOf: thrower }),
  new Proxy(function () {}, { apply: thrower, construct: thrower }),
  thrower,
  () => undefined,
  Symbol('hostile'),
  new Date(NaN),
  new DataView(new ArrayBuffer(8)),
  new Map(),
  Object.create(null),
];
/** Behind a function, because fast-check looks into what it draws. */
const objects = fc.nat({ max: OBJECTS.length - 1 }).map((index) => () => OBJECTS[index]);
const plain = (arbitrary) => arbitrary.map((value) => () => value);
/** Nobody gets at this one but the readers of its address. */
const kept = new addon.Mapping(8, false, false, false, -1, 0);
const mine = new addon.Mapping(8, false, false, false, -1, 0);
const seen = new addon.Mapping(8, true, false, false, -1, 0);
seen.buffer();
const closed = new addon.Mapping(8, false, false, false, -1, 0);
closed.close();
const memfd = addon.createMemfd(8);

const values = fc.oneof(
  { weight: 5, arbitrary: plain(numbers) },
  { weight: 3, arbitrary: plain(arrays) },
  plain(fc.boolean()),
  plain(
    fc.constantFrom(
      process.pid,
      memfd,
      -1,
      1,
      0n,
      kept.address(),
      kept.address() + 1n,
      -1n,
      2n ** 64n,
      2n ** 200n,
      4096n,
    ),
  ),
  plain(fc.string()),
  objects,
  plain(fc.constantFrom(undefined, null, mine, seen, closed, addon.Mapping.prototype)),
);

const METHODS = ['access', 'advise', 'buffer', 'close', 'address'];
const FUNCTIONS = Object.keys(addon).filter((name) => typeof addon[name] === 'function' && name !== 'Mapping');
const calls = fc.oneof(
  fc.record({ kind: fc.constant('function'), name: fc.constantFrom(...FUNCTIONS) }),
  fc.record({ kind: fc.constantFrom('construct', 'call'), name: fc.constant('Mapping') }),
  fc.record({ kind: fc.constant('method'), name: fc.constantFrom(...METHODS) }),
);

const pids = new Set();
const descriptors = new Set(readdirSync('/proc/self/fd').map(Number));

/** Arguments that fit, so that calls get past the first check, with some of them then spoiled. */
function fitting(name) {
  const into = new Float64Array(16);
  switch (name) {
    case 'fork':
      return [into];
    case 'sendCommand':
      return [addon.openChannel()[0], new BigUint64Array(16), -1];
    case 'waitProcess':
      return [process.pid, into];
    case 'createMemfd':
      return [4];
    case 'readPagemap':
      return [process.pid, kept.address(), 8, new BigUint64Array(8)];
    case 'readPageStates':
      return [process.pid, kept.address(), 8, true, true, new Uint8Array(8)];
    case 'countPages':
      return [process.pid, kept.address(), 8, true, true, into];
    case 'Mapping':
      return [4, true, false, true, memfd, 1];
    case 'access':
      return [true, 0, 8, 0, 8, 1, 0, 0, 1n, into];
    case 'advise':
      return [0, 8, 4];
    default:
      return [];
  }
}

function call({ kind, name }, args, self) {
  switch (kind) {
    case 'function':
      return addon[name](...args);
    case 'construct':
      return new addon.Mapping(...args);
    case 'call':
      return addon.Mapping.apply(self, args);
    default: {
      const target = self === null ? new addon.Mapping(8, false, false, false, -1, 0) : self;
      const accessor = Object.getOwnPropertyDescriptor(addon.Mapping.prototype, name)?.get;
      return accessor ? accessor.call(target) : addon.Mapping.prototype[name].apply(target, args);
    }
  }
}

function cleanUp() {
  // What hostile calls opened is closed again; forked children end as their sockets do.
  for (const fd of readdirSync('/proc/self/fd').map(Number)) {
    if (!descriptors.has(fd)) {
      try {
        closeSync(fd);
      } catch {
        // The descriptor of the listing itself.
      }
    }
  }
  for (const pid of pids) {
    try {
      if (addon.waitProcess(pid, new Float64Array(6))) pids.delete(pid);
    } catch {
      pids.delete(pid);
    }
  }
}

let done = 0;
const one = fc.record({
  what: calls,
  start: fc.boolean(),
  args: fc.array(values, { maxLength: 11 }),
  spoil: fc.array(fc.tuple(fc.nat({ max: 10 }), values), { maxLength: 2 }),
  self: fc.constantFrom(null, mine, seen, closed, {}, undefined, 7, addon),
});
for (const { what, start, args, spoil, self } of fc.sample(one, { seed, numRuns: count })) {
  const given = start ? fitting(what.name) : args.map((value) => value());
  if (start) for (const [index, value] of spoil) if (index < given.length) given[index] = value();
  try {
    call(what, given, start ? null : self);
    if (what.name === 'fork') pids.add(given[0][0]);
  } catch (error) {
    // Whatever was thrown, it was an exception and no crash.
    if (error === undefined) process.exit(3);
  }
  if (what.name === 'setErrorFactory') addon.setErrorFactory(makeError);
  if (++done % 200 === 0) cleanUp();
}
cleanUp();
// What nobody was given is as it was.
if (kept.access(false, 0, 8, 0, 8, 1, 0, 0, 0n, new Float64Array(3)) !== 0n) {
  process.exit(4);
}
process.exit(done === count ? 42 : 5);
