/** Random programs for the property test: drawn as numbers, and made concrete by what exists when a step's turn comes. */
import fc from 'fast-check';
import { FeatureUnavailableError, ProcessEndedError, SystemError } from '../../lib/errors.js';
import type { Machine, MemoryObject, PageChoice, PageRange, Process } from '../../lib/machine/machine.js';
import type { Advice, Protection } from '../../lib/schema/step.js';

export interface AbstractStep {
  kind: Kind;
  /** Drawn numbers; each kind takes from them what it needs. */
  draw: number[];
}

/** How often each kind of step is drawn. */
const WEIGHTS = {
  map: 4,
  write: 10,
  read: 8,
  fork: 5,
  protect: 3,
  advise: 4,
  grow: 1,
  unmap: 1,
  end: 1,
  'write-object': 1,
  observe: 3,
} as const;
type Kind = keyof typeof WEIGHTS;
const KINDS = (Object.keys(WEIGHTS) as Kind[]).flatMap((kind) => Array.from({ length: WEIGHTS[kind] }, () => kind));

const MAX_PROCESSES = 7;
const MAX_REGIONS = 5;
const MAX_OBJECTS = 3;

/** Lengths around what matters: the fault-around window (16) and the page table (512). */
const LENGTHS = [1, 2, 15, 16, 17, 33, 40, 100, 511, 513, 600];
const HUGE = 512;
/** Whole huge pages, and some that are not whole. */
const HUGE_LENGTHS = [511, 512, 513, 700, 1024, 1100, 1536];
const ADVICE: Advice[] = (['mergeable', 'unmergeable'] as const).flatMap((merging) => [
  'dontfork',
  'dofork',
  'wipeonfork',
  'keeponfork',
  'dontneed',
  merging,
  'populate-read',
  'populate-write',
]);
/** Mostly whole and writable: a program that dies at once tests little. */
const PROTECTIONS: Protection[] = ['rw', 'rw', 'rw', 'rw', 'rw', 'r', 'r', 'none'];

export const programs = fc.array(
  fc.record({
    kind: fc.constantFrom(...KINDS),
    draw: fc.array(fc.nat({ max: 2 ** 30 }), { minLength: 10, maxLength: 10 }),
  }),
  // 'max', or fast-check draws mostly short ones, which say little.
  { minLength: 4, maxLength: 40, size: 'max' },
) satisfies fc.Arbitrary<AbstractStep[]>;

function pick<T>(items: readonly T[], draw: number): T | undefined {
  return items.length === 0 ? undefined : items[draw % items.length];
}

/** @param huge Some are whole huge pages. */
function range(pages: number, [a, b, c]: readonly [number, number, number], huge = false): PageRange {
  // A third of the ranges are the whole region.
  if (a % 3 === 0) return {};
  if (huge && pages >= HUGE && a % 3 === 1 && a % 2 === 0) {
    const first = HUGE * (b % Math.floor(pages / HUGE));
    return { first, pages: HUGE };
  }
  const first = b % pages;
  return { first, pages: 1 + (c % (pages - first)) };
}

function choice(pages: number, draw: readonly number[], huge: boolean): PageChoice {
  const [a = 0, b = 0, c = 0, d = 0, e = 0, f = 0] = draw;
  const part = range(pages, [a, b, c], huge);
  const length = part.pages ?? pages;
  // Half of the accesses take the whole pattern.
  const from = d % 2 === 0 ? 0 : d % (length + 1);
  const to = d % 2 === 0 ? length : from + (b % (length - from + 1));
  const pattern = pick(['sequential', 'random', 'stride'] as const, e) ?? 'sequential';
  return { ...part, pattern, seed: f, stride: 1 + (f % 20), from, to };
}

/** Runs the program; a step that makes no sense any more is passed over. */
class Interpreter {
  #regions = 0;
  readonly #objects: MemoryObject[] = [];

  constructor(
    readonly machine: Machine,
    /** Private anonymous regions have huge pages. */
    readonly hugePages: boolean,
  ) {}

  async run(steps: readonly AbstractStep[]): Promise<void> {
    let observations = 0;
    // Without memory nothing else makes sense; the first step's numbers say which.
    if (steps[0]) await this.#attempt('map', steps[0].draw);
    for (const step of steps) {
      if (!this.machine.root.alive) return;
      if (step.kind === 'observe') await this.machine.observe(`observation ${String(++observations)}`);
      else await this.#attempt(step.kind, step.draw);
    }
    if (this.machine.root.alive) await this.machine.observe('end');
  }

  async #attempt(kind: Exclude<Kind, 'observe'>, draw: readonly number[]): Promise<void> {
    try {
      await this.#step(kind, draw);
    } catch (error) {
      // A refusal or a death is recorded in the trace; misuse, and a file where there is no disk, were refused before
      // anything happened.
      const expected =
        error instanceof SystemError ||
        error instanceof ProcessEndedError ||
        error instanceof FeatureUnavailableError ||
        error instanceof RangeError ||
        error instanceof TypeError;
      if (!expected) throw error;
    }
  }

  async #step(kind: Exclude<Kind, 'observe'>, draw: readonly number[]): Promise<void> {
    const [a = 0, b = 0, c = 0, d = 0] = draw;
    const living = this.machine.processes.filter(({ alive }) => alive);
    const process = pick(living, a) ?? this.machine.root;
    if (kind === 'map') return this.#map(process, draw.slice(1));
    if (kind === 'fork') {
      if (this.machine.processes.length < MAX_PROCESSES) await process.fork();
      return;
    }
    if (kind === 'end') {
      // The root takes all others with it, so it is spared.
      if (process !== this.machine.root) await (b % 2 === 0 ? process.exit(c % 256) : process.kill());
      return;
    }
    if (kind === 'write-object') {
      const object = pick(this.#objects, b);
      await object?.write(range(object.pages, [c, d, a]));
      return;
    }
    const target = pick([...process.regions], b);
    if (!target) return;
    const [region, pages] = target;
    const rest = draw.slice(2);
    switch (kind) {
      case 'write':
      case 'read':
        await process[kind](region, choice(pages, rest, this.hugePages));
        return;
      case 'protect':
        await process.protect(region, pick(PROTECTIONS, d) ?? 'rw', range(pages, [c, ...pair(rest)], this.hugePages));
        return;
      case 'advise':
        await process.advise(region, pick(ADVICE, d) ?? 'dontneed', range(pages, [c, ...pair(rest)], this.hugePages));
        return;
      case 'unmap':
        await process.unmap(region, range(pages, [c, ...pair(rest)], this.hugePages));
        return;
      case 'grow':
        await process.grow(region, pages + 1 + (c % 64));
        return;
    }
  }

  async #map(process: Process, draw: readonly number[]): Promise<void> {
    if (this.#regions >= MAX_REGIONS) return;
    const [a = 0, b = 0, c = 0, d = 0, e = 0, f = 0] = draw;
    const pages = pick(this.hugePages ? HUGE_LENGTHS : LENGTHS, a) ?? 1;
    const backing = b % 3 === 0 && !this.hugePages ? await this.#object(c, pages) : ('anonymous' as const);
    await process.map({
      pages,
      sharing: d % 2 === 0 || this.hugePages ? 'private' : 'shared',
      hugePages: this.hugePages,
      backing,
      offset: backing === 'anonymous' ? 0 : c % 20,
      protection: pick(PROTECTIONS, e) ?? 'rw',
      populate: f % 5 === 0,
      noreserve: f % 7 === 0,
    });
    this.#regions++;
  }

  async #object(draw: number, pages: number): Promise<MemoryObject> {
    if (this.#objects.length >= MAX_OBJECTS || (this.#objects.length > 0 && draw % 2 === 0)) {
      const known = pick(this.#objects, draw);
      if (known) return known;
    }
    const size = pages + (draw % 30);
    const object = draw % 5 === 0 ? await this.machine.createFile(size) : await this.machine.createMemfd(size);
    this.#objects.push(object);
    return object;
  }
}

function pair([, b = 0, c = 0]: readonly number[]): [number, number] {
  return [b, c];
}

export async function runProgram(machine: Machine, steps: readonly AbstractStep[], hugePages = false): Promise<void> {
  await new Interpreter(machine, hugePages).run(steps);
}
