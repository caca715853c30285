/**
 * Processes in a cgroup with limits: which steps bring the OOM killer, and whom it takes [mm/memcontrol.c: try_charge;
 * mm/oom_kill.c: oom_badness], and which forks pids.max refuses [kernel/cgroup/pids.c: pids_can_fork].
 *
 * When in a step the first process is killed need not be known to say what is left after it. A page is shared by those
 * who map it, and neither the order of a write and of another's end, nor that of two ends, changes who does: copied
 * before, or taken over after. So a step is carried out as if there were no limit, then whoever is killed is ended, and
 * then it is seen whether what remains fits.
 */
import { bounds } from '../../schema/figure.js';
import type { Figure } from '../../schema/figure.js';
import type { MemoryReading, Outcome, Step, StepOf } from '../../schema/step.js';
import { pteOf, ZERO } from './configuration.js';
import { endProcess, type ModelProcess, type World } from './process.js';
import type { Lineage } from './lineage.js';

/** The cgroup of a world. */
export interface ModelCgroup {
  memoryMaxPages: number | undefined;
  pidsMax: number | undefined;
  /** Names of all that were ever in it. */
  members: Set<string>;
  /** The last reading of what is used, while nothing but reads and writes has happened since. */
  last: { usagePages: number; frames: number; kernelPages: number } | undefined;
}

interface Interval {
  min: number;
  max: number;
}

/** MEMCG_CHARGE_BATCH: what a CPU takes from the cgroup at once and keeps in stock for its next pages. */
const STOCK_PAGES = 64;
/** Pages of slab that one step may need: anon_vma, VMAs, maple tree. */
const SLAB_PAGES = 16;
/** Kernel stack, task and mm of a process, and the pages of libraries and stack that it copies for itself. */
const PROCESS_PAGES = 160;
/** Faults of a process beside those of the loop that writes: code and stack that are touched for the first time. */
const COLD_FAULTS = 64;

/** What exit_mmap() may hold back until after it has set MMF_OOM_SKIP: MAX_GATHER_BATCH_COUNT batches of pages. */
const GATHERED_PAGES = 10_240;

const WHY_USED =
  'the cgroup is charged kernel memory too, and up to 64 pages are charged in advance on each CPU (MEMCG_CHARGE_BATCH)';

export function newCgroup({ memoryMaxBytes, pidsMax }: StepOf<'cgroup'>, pageSizeBytes: number): ModelCgroup {
  const memoryMaxPages = memoryMaxBytes === undefined ? undefined : Math.floor(memoryMaxBytes / pageSizeBytes);
  return { memoryMaxPages, pidsMax, members: new Set(), last: undefined };
}

/** Living members, in order of birth. */
function livingMembers(world: World, cgroup: ModelCgroup): ModelProcess[] {
  return [...world.processes.values()].filter(({ name }) => cgroup.members.has(name));
}

/** pids_can_fork(): a child that would be one task too many is refused. */
export function pidsRefusal(world: World, parent: ModelProcess): Outcome | undefined {
  const { cgroup } = world;
  if (cgroup?.pidsMax === undefined || !cgroup.members.has(parent.name)) return undefined;
  const tasks = livingMembers(world, cgroup).length;
  const allowed = cgroup.pidsMax + (world.mutation === 'pids-max-is-off-by-one' ? 1 : 0);
  if (tasks + 1 <= allowed) return undefined;
  const why = `the cgroup has ${tasks} tasks of pids.max ${cgroup.pidsMax}`;
  return { failure: { code: 'EAGAIN', syscall: 'fork', why } };
}

/** Lineages that members map; a named object is charged to whoever touched a page of it first. */
function lineagesOf(members: readonly ModelProcess[]): { own: Set<Lineage>; named: boolean; merged: boolean } {
  const own = new Set<Lineage>();
  let [named, merged] = [false, false];
  for (const { mappings } of members) {
    for (const { lineage } of mappings.values()) {
      own.add(lineage);
      named ||= lineage.kind === 'memfd' || lineage.kind === 'file';
      merged ||= lineage.mergeDoubt !== undefined || lineage.hasMerged;
    }
  }
  return { own, named, merged };
}

/** Pages that are charged for the memory of members. */
function framesOf(world: World, members: readonly ModelProcess[]): number {
  if (world.mutation === 'copies-are-not-charged') return 0;
  let frames = 0;
  for (const lineage of lineagesOf(members).own) frames += lineage.frames();
  return frames;
}

/** Pages of its regions that a process maps: what counts in its rss. The zero page does not. */
function residentPages({ mappings }: ModelProcess): number {
  let resident = 0;
  for (const { id, lineage, offset, pages } of mappings.values()) {
    resident += lineage.countPages([{ first: offset, pages }], (page) => {
      const pte = pteOf(page, id);
      return pte !== undefined && pte.frame !== ZERO;
    });
  }
  return resident;
}

/** Page tables for so many pages, at most: the lowest level, one for each end, and the two levels above. */
function tablePages(world: World, pages: number): number {
  return Math.ceil(pages / world.facts.pagesPerTable) + 4;
}

/** Kernel memory that a step may need, at most. */
function kernelPages(world: World, process: ModelProcess, step: Step): number {
  switch (step.op) {
    case 'write':
    case 'read':
      return tablePages(world, step.selection.pages) + SLAB_PAGES;
    case 'fork':
      return tablePages(world, residentPages(process)) + PROCESS_PAGES;
    default:
      return 'pages' in step ? tablePages(world, step.pages) + SLAB_PAGES : SLAB_PAGES;
  }
}

/** What is charged before a step, by a reading or else by what the model knows itself. */
function usedBefore(world: World, members: readonly ModelProcess[], reading: MemoryReading | undefined): Interval {
  const stock = STOCK_PAGES * world.facts.cpus;
  if (reading) {
    const { max } = bounds(reading.usagePages);
    return { min: max - stock, max };
  }
  const frames = framesOf(world, members);
  const overhead = members.map((member) => tablePages(world, residentPages(member)) + PROCESS_PAGES);
  return { min: frames, max: frames + stock + overhead.reduce((sum, pages) => sum + pages, 0) };
}

/** How far what the OOM killer reads of a process may be from the truth, in pages. */
function countingError({ facts }: World, known: boolean): number {
  const [major, minor] = facts.kernelVersion;
  // Three counters of pages each. Since 6.2 they are per-CPU counters that are read without their parts of a batch
  // (commit f1a7941243c1), and all of a process's are on the one CPU that the machine stays on; before, each task keeps
  // up to TASK_RSS_EVENTS_THRESH back.
  const perCpu = major > 6 || (major === 6 && minor >= 2);
  const each = perCpu ? Math.max(32, 2 * facts.cpus) - 1 : 64;
  return 3 * each + (known ? 0 : PROCESS_PAGES);
}

/** The members that can be killed with what oom_badness() makes of each. */
function badness(
  world: World,
  members: readonly ModelProcess[],
  reading: MemoryReading | undefined,
  grown: { process: ModelProcess; pages: Interval },
): { process: ModelProcess; points: Interval }[] {
  return members.map((process) => {
    const read = reading?.processes.find((one) => one.process === process.name);
    const own = process === grown.process;
    // Without a reading all are as large as the root was, beside their regions.
    const after = residentPages(process);
    const base = read ? read.residentPages + read.pageTablePages : after + tablePages(world, after);
    const growth = !own ? { min: 0, max: 0 } : read ? grown.pages : { min: -grown.pages.max, max: 0 };
    const error = countingError(world, read !== undefined);
    return { process, points: { min: base + growth.min - error, max: base + growth.max + error } };
  });
}

/** oom_evaluate_task(): the one with the most points; undefined where that cannot be told. */
function victimOf(candidates: readonly { process: ModelProcess; points: Interval }[]): ModelProcess | undefined {
  const [first, second] = [...candidates].sort((a, b) => b.points.min - a.points.min);
  if (!first) return undefined;
  const others = candidates.filter((one) => one !== first);
  const nearest = Math.max(...others.map(({ points }) => points.max));
  return second === undefined || first.points.min > nearest ? first.process : undefined;
}

/** What is known of a step before it. */
interface Before {
  limit: number;
  used: Interval;
  kernel: number;
  frames: number;
  reading: MemoryReading | undefined;
  memory: { memory?: MemoryReading };
}

function lookBefore(
  world: World,
  cgroup: ModelCgroup,
  process: ModelProcess,
  step: Step,
  reading?: MemoryReading,
): Before {
  const members = livingMembers(world, cgroup);
  const used = usedBefore(world, members, reading);
  const kernel = kernelPages(world, process, step);
  const frames = framesOf(world, members);
  const memory = reading ? { memory: { ...reading, usagePages: expectedUsage(world, cgroup, members, frames) } } : {};
  if (!reading || (step.op !== 'read' && step.op !== 'write')) cgroup.last = undefined;
  else cgroup.last = { usagePages: bounds(reading.usagePages).max, frames, kernelPages: kernel };
  return { limit: cgroup.memoryMaxPages ?? Infinity, used, kernel, frames, reading, memory };
}

/** What should be read now: what was read last, and the pages that have come since. */
function expectedUsage(world: World, { last }: ModelCgroup, members: ModelProcess[], frames: number): Figure {
  if (lineagesOf(members).merged) return { unknown: WHY_MERGED };
  if (!last) return { unknown: 'how much kernel memory processes and mappings take, no model knows' };
  const stock = STOCK_PAGES * world.facts.cpus;
  const exact = last.usagePages + frames - last.frames;
  return { min: exact - stock, max: exact + stock + last.kernelPages, why: WHY_USED };
}

/** Carries out a step of a member: what it does, and who is killed for it. */
export function withinLimit(
  world: World,
  process: ModelProcess,
  step: Step,
  recorded: Outcome | undefined,
  act: () => Outcome,
): Outcome {
  const { cgroup } = world;
  if (cgroup?.memoryMaxPages === undefined || !cgroup.members.has(process.name)) return act();
  const before = lookBefore(world, cgroup, process, step, recorded?.memory);
  const { memory } = before;
  const doubtful = before.used.max + before.kernel > before.limit;
  if (doubtful && recorded?.failure && step.op === 'fork')
    return { uncertain: WHY_USED, failure: recorded.failure, ...memory };
  const resident = residentPages(process);
  const outcome = act();
  if (outcome.failure || outcome.ended) return { ...outcome, ...memory };
  const growth = residentPages(process) - resident;
  return { ...new Reckoning(world, cgroup, process, before, growth, recorded).settle(step, outcome), ...memory };
}

/** What follows from a step that has been carried out as if there were no limit. */
class Reckoning {
  private readonly killed: string[] = [];
  private freedKernel = 0;

  constructor(
    private readonly world: World,
    private readonly cgroup: ModelCgroup,
    private readonly process: ModelProcess,
    private readonly before: Before,
    /** By how much the step has made the process itself larger; copies do not. */
    private readonly resident: number,
    private readonly recorded: Outcome | undefined,
  ) {}

  settle(step: Step, outcome: Outcome): Outcome {
    const taken = this.growth();
    for (;;) {
      const { limit, used, kernel } = this.before;
      const members = livingMembers(this.world, this.cgroup);
      const copies = this.growth();
      const { named: unsure, merged } = lineagesOf(members);
      if (merged) return this.follow(outcome, WHY_MERGED);
      if (used.max + copies + kernel <= limit) return this.outcomeOf(outcome);
      const least = used.min + (unsure ? Math.min(0, copies) : copies) - this.freedKernel;
      if (least <= limit) return this.follow(outcome, unsure ? WHY_NAMED : WHY_USED);
      const victim = this.victim(members, taken);
      if (!victim) return this.follow(outcome, WHY_TIE);
      const late = this.comesLate(used.max + copies + kernel - limit, () => {
        this.kill(victim);
      });
      if (victim === this.process) return this.endOf(step, taken);
      if (late) return this.follow(outcome, WHY_LATE);
    }
  }

  /**
   * Whether the process may need more than a victim has surely given back by the time that the OOM killer would take
   * another: what is still gathered then is freed later, and nothing waits for it.
   */
  private comesLate(needed: number, kill: () => void): boolean {
    const before = this.growth();
    kill();
    if (this.before.reading?.victimsFirst === true) return false;
    return needed > Math.max(0, before - this.growth() - GATHERED_PAGES);
  }

  private growth(): number {
    return framesOf(this.world, livingMembers(this.world, this.cgroup)) - this.before.frames;
  }

  /** How many pages the step could take before the first kill. */
  private room(): Interval {
    const { limit, used, kernel } = this.before;
    return { min: Math.max(0, limit - used.max - kernel), max: Math.max(0, limit - used.min) };
  }

  private victim(members: readonly ModelProcess[], taken: number): ModelProcess | undefined {
    if (this.world.mutation === 'oom-takes-the-writer') return this.process;
    const room = this.room();
    // If every page that it took has made it larger, it is as much larger at the kill as there was room.
    const alike = this.killed.length === 0 && taken === this.resident;
    const pages = alike
      ? { min: Math.min(room.min, this.resident), max: Math.min(room.max, this.resident) }
      : { min: 0, max: this.resident };
    return victimOf(badness(this.world, members, this.before.reading, { process: this.process, pages }));
  }

  private kill(victim: ModelProcess): void {
    this.freedKernel += tablePages(this.world, residentPages(victim)) + PROCESS_PAGES;
    endProcess(this.world, victim);
    this.cgroup.last = undefined;
    if (victim !== this.process) this.killed.push(victim.name);
  }

  private outcomeOf(outcome: Outcome): Outcome {
    return this.killed.length > 0 ? { ...outcome, killed: this.killed } : outcome;
  }

  /** The process itself has been killed; its faults until then are the pages that it got, and those of cold code. */
  private endOf(step: Step, taken: number): Outcome {
    const ended = { signal: 'SIGKILL' };
    if (step.op !== 'write') return this.outcomeOf({ ended });
    const { min, max } = this.room();
    const all = step.selection.to - step.selection.from;
    const most = this.killed.length === 0 && taken === all ? Math.min(max, all) : all;
    return this.outcomeOf({ ended, minorFaults: { min, max: most + COLD_FAULTS, why: `${WHY_USED}; ${WHY_COLD}` } });
  }

  /** Where the model does not know, the record decides. */
  private follow(outcome: Outcome, uncertain: string): Outcome {
    for (const name of this.recorded?.killed ?? []) {
      const victim = this.world.processes.get(name);
      if (victim) this.kill(victim);
    }
    const { ended } = this.recorded ?? {};
    if (!ended) return { ...this.outcomeOf(outcome), uncertain };
    this.kill(this.process);
    return { ...this.outcomeOf({ ended }), uncertain };
  }
}

const WHY_TIE = 'two processes are nearer in size than the counters that the OOM killer reads are exact to';
const WHY_LATE =
  'a second process may be killed before the memory of the first is back: exit_mmap() says that it is done (MMF_OOM_SKIP) ' +
  'before it frees the last pages, and here nothing keeps the one that waits from running in between';
const WHY_NAMED = 'pages of a memfd or file are charged to the cgroup of whoever touched them first';
const WHY_MERGED = 'pages may be merged, and to whom a page is then charged that others have too is not modelled';
const WHY_COLD = 'code and stack that are used for the first time cost faults too';
