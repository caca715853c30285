/** fork() as in C, and the handle of what it made: a process in the native command loop. */
import { closeSync } from 'node:fs';
import { ProcessEndedError, SystemError } from '../errors.js';
import { native, systemError } from '../native.js';
import {
  MAX_REGION_PAGES,
  requireInteger,
  requireObject,
  requireOneOf,
  requireRange,
  requireSelection,
} from '../schema/arguments.js';
import type { PageChoice, PageRange } from '../schema/arguments.js';
import { requireMemory } from '../proc/meminfo.js';
import { selectionCount } from '../schema/selection.js';
import type { ExitStatus, Protection } from '../schema/step.js';
import { ADVICE, ADVICE_NAMES, ForkFlag, Op, PROTECTIONS, RestrictFlag, requireWord } from './command.js';
import type { Command, RawAdvice, Reply } from './command.js';
import { Connection, ConnectionEnded } from './connection.js';
import { ENDING_SIGNALS } from './exit-status.js';
import type { EndingSignal } from './exit-status.js';
import { ForkedRegion, HeldRegion, bytesOf, inheritedMappings, inheritedRegions } from './held-region.js';
import type { Placement, RegionHandle } from './held-region.js';
import { Mapping } from './mapping.js';
import { mapFlags, requireMapSpec } from './map-spec.js';
import type { RawMapSpec } from './map-spec.js';
import { ProcessLife } from './process-life.js';
import { WriteMark } from './written.js';
import type { WriteMarkOptions } from './written.js';

export type { ForkedRegion, Placement, RegionHandle } from './held-region.js';

/** What the addon fills; made once, since memory from malloc is what costs most right after a fork. */
const birthFigures = new Float64Array(3);

/** What touching pages cost, measured in the process, around the loop alone. */
export interface AccessReport {
  minorFaults: number;
  majorFaults: number;
  elapsedNs: number;
  /** Sum, modulo 2^64, of the first 64-bit word of each page read; 0 for a write. */
  sum: bigint;
}

/** A fork and Committed_AS around it, read by the process that forks. */
export interface CountedFork {
  /** What came of it: a child, or the refusal. */
  outcome: ForkedProcess | SystemError;
  committedBeforeKb: number;
  committedAfterKb: number;
}

/** Those that have not been waited for yet. */
const unreaped = new Set<ForkedProcess>();

export class ForkedProcess {
  readonly pid: number;
  /** Nanoseconds that the call took in the parent: fork, or posix_spawn. */
  readonly forkNs: number;
  /** Resolves when the process has ended and has been waited for. Never rejects. */
  readonly ended: Promise<ExitStatus>;
  readonly #connection: Connection;
  readonly #life: ProcessLife;
  readonly #regions: Map<RegionHandle, HeldRegion>;

  private constructor(
    birth: { pid: number; forkNs: number; connection: Connection },
    parent: ProcessLife | undefined,
    regions: Map<RegionHandle, HeldRegion>,
  ) {
    this.pid = birth.pid;
    this.forkNs = birth.forkNs;
    this.#connection = birth.connection;
    this.#life = new ProcessLife(birth.pid, birth.connection, parent);
    this.#regions = regions;
    unreaped.add(this);
    this.ended = this.#life.ended.then((status) => {
      unreaped.delete(this);
      regions.clear();
      return status;
    });
  }

  /** @internal Forks Node itself. */
  static fromNode(): ForkedProcess {
    const inherited = inheritedMappings();
    native().fork(birthFigures);
    const [pid = 0, forkNs = 0, fd = 0] = birthFigures;
    const root = new ForkedProcess({ pid, forkNs, connection: new Connection(fd) }, undefined, inherited);
    // Not waited for: fork() is synchronous, and the process carries out these commands before any other.
    void root.#fillHoles().catch(() => undefined);
    return root;
  }

  /**
   * @internal Starts a program that enters the command loop, and has no memory of this one.
   * @param argv The file and what it is to be told. Its socket is descriptor 3.
   * @param environment Null: that of this process.
   */
  static fromProgram(argv: readonly [string, ...string[]], environment: string[] | null): ForkedProcess {
    const [ours, theirs] = native().openChannel();
    const into = new Float64Array(2);
    try {
      native().spawn(argv[0], [...argv], environment, null, Int32Array.of(-1, -1, -1, theirs), false, into);
    } catch (error) {
      closeSync(ours);
      throw error;
    } finally {
      closeSync(theirs);
    }
    const [pid = 0, spawnNs = 0] = into;
    return new ForkedProcess({ pid, forkNs: spawnNs, connection: new Connection(ours) }, undefined, new Map());
  }

  /** How it ended; undefined while it lives. */
  get status(): ExitStatus | undefined {
    return this.#life.status;
  }

  /** Whether the process has this region. */
  has(region: RegionHandle): boolean {
    return this.#regions.has(region);
  }

  /** @internal The living processes that have a region, Node aside. */
  static withRegion(region: RegionHandle): ForkedProcess[] {
    return [...unreaped].filter((one) => one.#connection.isOpen && one.has(region));
  }

  /** Where a region lies in this process. @throws TypeError if it has no such region. */
  placement(region: RegionHandle): Placement {
    const { address, pages } = this.#held(region);
    return { address, pages };
  }

  /**
   * mmap(2) in the process. The region is one VMA with PROT_NONE guards around it, in pages of the base size unless
   * huge ones are asked for.
   * @throws SystemError ENOMEM and the like, from mmap; FeatureUnavailableError for huge pages where there are none.
   */
  async map(spec: RawMapSpec): Promise<ForkedRegion> {
    const required = requireMapSpec(spec);
    const { pages, protection, populate, object, offset } = required;
    if (populate) requireMemory(Number(bytesOf(pages)));
    const reply = await this.#command(
      {
        op: Op.map,
        length: bytesOf(pages),
        argument: PROTECTIONS[protection],
        flags: mapFlags(required),
        offset: bytesOf(offset),
      },
      object?.duplicate(),
    );
    const region = new ForkedRegion();
    this.#regions.set(region, new HeldRegion({ address: reply.value, pages }));
    return region;
  }

  /**
   * Writes `value` into the first 64-bit word of each chosen page.
   * @throws ProcessEndedError (rejects) if the process dies of it.
   */
  write(region: RegionHandle, choice?: PageChoice, value = 1n): Promise<AccessReport> {
    return this.#access(Op.write, region, choice, requireWord('value', value));
  }

  /** Reads the first 64-bit word of each chosen page. */
  read(region: RegionHandle, choice?: PageChoice): Promise<AccessReport> {
    return this.#access(Op.read, region, choice, 0n);
  }

  /**
   * Marks pages: read() of the mark tells which of them this process, and not its children, has written since.
   * @throws FeatureUnavailableError (rejects) if this kernel lacks the method of `by`.
   * @throws TypeError (rejects) for pages that have a mark by userfaultfd, and a process that has one by soft-dirty bits.
   */
  async markWritten(region: RegionHandle, range?: PageRange, options: WriteMarkOptions = {}): Promise<WriteMark> {
    const run = requireRange(range, this.placement(region).pages);
    const locate = () => {
      const held = this.#held(region);
      return { ...held.span(run), givenBack: held.givenBack };
    };
    return WriteMark.make(this, { region, ...run, locate }, options);
  }

  /** mprotect(2). */
  async protect(region: RegionHandle, protection: Protection, range?: PageRange): Promise<void> {
    const argument = PROTECTIONS[requireOneOf('protection', protection, ['none', 'r', 'rw'])];
    await this.#command({ op: Op.protect, ...this.#held(region).span(range), argument });
  }

  /**
   * madvise(2), measured. 'pageout' (Linux 5.4) sends pages to swap, if there is some, and is a wish: pages that another
   * process maps too stay, as do those that wait in another CPU's list of new pages or are still being written from the
   * last time [mm/madvise.c: madvise_cold_or_pageout_pte_range; mm/vmscan.c: shrink_folio_list].
   * @throws SystemError (rejects) EINVAL where the kernel refuses the advice for this kind of memory, or does not know it.
   */
  async advise(region: RegionHandle, advice: RawAdvice, range?: PageRange): Promise<AccessReport> {
    const argument = BigInt(ADVICE[requireOneOf('advice', advice, ADVICE_NAMES)]);
    const held = this.#held(region);
    const run = requireRange(range, held.pages);
    if (advice === 'populate-write') requireMemory(Number(bytesOf(run.pages)), () => held.ownBytes(this.pid));
    if (advice === 'dontneed') held.givenBack++;
    const reply = await this.#command({ op: Op.advise, ...held.span(run), argument });
    if (advice === 'dontfork') held.dontfork.add(run);
    if (advice === 'dofork') held.dontfork.remove(run);
    return report(reply);
  }

  /** mremap(2) to `pages` pages in all, at a new address. */
  async grow(region: ForkedRegion, pages: number): Promise<void> {
    const held = this.#held(region);
    if (region instanceof Mapping) throw new TypeError('region is a mapping of Node, which keeps its length');
    requireInteger('pages', pages, held.pages + 1, MAX_REGION_PAGES);
    const { address, length } = held.span();
    held.moving = true;
    try {
      const reply = await this.#command({ op: Op.grow, address, length, argument: bytesOf(pages) });
      held.address = reply.value;
      held.pages = pages;
    } finally {
      held.moving = false;
    }
  }

  /** munmap(2). A part leaves a hole that nothing else can come into. */
  async unmap(region: RegionHandle, range?: PageRange): Promise<void> {
    const held = this.#held(region);
    const { first, pages } = requireRange(range, held.pages);
    const whole = first === 0 && pages === held.pages;
    held.givenBack++;
    await this.#command({ op: whole ? Op.unmap : Op.unmapPart, ...held.span({ first, pages }) });
    if (whole) this.#regions.delete(region);
  }

  /**
   * fork(2) in the process.
   * @throws SystemError (rejects) ENOMEM or EAGAIN when the kernel refuses.
   */
  async fork(): Promise<ForkedProcess> {
    const { child, reply } = await this.#fork(0n);
    if (!child) throw systemError(reply.errno, reply.syscall);
    return child;
  }

  /**
   * @internal As fork(), under strict overcommit. The kernel goes by a counter that each CPU keeps a part of.
   * @param fold Whether the parts are added up right before the fork, for which one must be root.
   * @throws SystemError (rejects) when the counter cannot be read; then nothing has been forked.
   */
  async forkCounted(fold: boolean): Promise<CountedFork> {
    const { child, reply } = await this.#fork(ForkFlag.readCommit | (fold ? ForkFlag.foldCommit : 0n));
    const { errno, syscall, committedBeforeKb, committedAfterKb } = reply;
    if (!child && syscall !== 'fork') throw systemError(errno, syscall);
    return { outcome: child ?? systemError(errno, syscall), committedBeforeKb, committedAfterKb };
  }

  /** @internal Stays on one CPU, and gives CAP_SYS_ADMIN up; so do the processes that it forks from now on. */
  async restrict(): Promise<void> {
    await this.#command({ op: Op.restrict, flags: RestrictFlag.oneCpu | RestrictFlag.dropAdmin });
  }

  /**
   * @internal Lets it run before all ordinary processes, or as one of them.
   * @returns Whether that was allowed (CAP_SYS_NICE).
   */
  prefer(preferred: boolean): boolean {
    if (!this.#connection.isOpen) return false;
    try {
      native().preferProcess(this.pid, preferred);
      return true;
    } catch (error) {
      if (error instanceof SystemError && ['EPERM', 'ESRCH'].includes(error.code)) return false;
      throw error;
    }
  }

  /** @internal Carries out a command about memory that the caller has looked at. @param passedFd Closed here. */
  perform(command: Command, passedFd = -1): Promise<Reply> {
    return this.#command(command, passedFd);
  }

  /** Without a child when the kernel refused it. */
  async #fork(flags: bigint): Promise<{ child?: ForkedProcess; reply: Reply }> {
    this.#life.requireLiving();
    const [ours, theirs] = native().openChannel();
    const connection = new Connection(ours);
    const hello = connection.hello();
    hello.catch(() => undefined);
    const reply = await this.#exchange({ op: Op.fork, flags }, theirs).catch(async (error: unknown) => {
      // A parent that died right after its fork has left a child all the same. Without one, no hello can come.
      const pid = await hello.catch(() => undefined);
      connection.close();
      if (pid !== undefined) await new ForkedProcess({ pid, forkNs: 0, connection }, this.#life, new Map()).ended;
      throw error;
    });
    if (reply.errno !== 0) {
      connection.close();
      return { reply };
    }
    const birth = { pid: Number(reply.value), forkNs: reply.elapsedNs, connection };
    const child = new ForkedProcess(birth, this.#life, inheritedRegions(this.#regions));
    try {
      await hello.catch(() => undefined);
      await child.#fillHoles();
      return { child, reply };
    } catch (error) {
      await child.close();
      throw error;
    }
  }

  /** _exit(code). Its children live on, as orphans of the tree's root. */
  async exit(code = 0): Promise<ExitStatus> {
    requireInteger('code', code, 0, 255);
    return this.#life.exit(code);
  }

  /** Sends a signal that ends the process, and waits for that. */
  async kill(signal: EndingSignal = 'SIGKILL'): Promise<ExitStatus> {
    requireOneOf('signal', signal, ENDING_SIGNALS);
    return this.#life.kill(signal);
  }

  /** Ends the process and all its descendants, and waits for them. Never fails, and may be called again. */
  async close(): Promise<void> {
    await this.#life.close();
  }

  /** Puts guards where MADV_DONTFORK has left holes, so that no later mapping comes to lie inside a region. */
  async #fillHoles(): Promise<void> {
    const filled: Promise<Reply>[] = [];
    for (const { address, dontfork } of this.#regions.values()) {
      for (const { first, pages } of dontfork.runs) {
        filled.push(this.#command({ op: Op.unmapPart, address: address + bytesOf(first), length: bytesOf(pages) }));
        dontfork.remove({ first, pages });
      }
    }
    await Promise.all(filled);
  }

  #held(region: RegionHandle): HeldRegion {
    this.#life.requireLiving();
    requireObject('region', region);
    const held = this.#regions.get(region);
    if (!held) throw new TypeError(`region is not mapped in process ${String(this.pid)}`);
    return held;
  }

  async #access(
    op: bigint,
    region: RegionHandle,
    choice: PageChoice | undefined,
    value: bigint,
  ): Promise<AccessReport> {
    const held = this.#held(region);
    const selection = requireSelection(choice, held.pages);
    if (op === Op.write) requireMemory(Number(bytesOf(selectionCount(selection))), () => held.ownBytes(this.pid));
    return report(await this.#command({ op, ...held.span(), selection, value }));
  }

  /** Sends a command and turns a failed one into an error. */
  async #command(command: Command, passedFd = -1): Promise<Reply> {
    const reply = await this.#exchange(command, passedFd);
    if (reply.errno !== 0) throw systemError(reply.errno, reply.syscall);
    return reply;
  }

  /** Sends a command; the reply may tell of a failure. */
  async #exchange(command: Command, passedFd: number): Promise<Reply> {
    try {
      if (this.status && passedFd >= 0) closeSync(passedFd);
      this.#life.requireLiving();
      return await this.#connection.send(command, passedFd);
    } catch (error) {
      if (!(error instanceof ConnectionEnded)) throw error;
      throw new ProcessEndedError(`process ${String(this.pid)}`, await this.#life.awaitEnd());
    }
  }
}

function report({ minorFaults, majorFaults, elapsedNs, sum }: Reply): AccessReport {
  return { minorFaults, majorFaults, elapsedNs, sum };
}

/**
 * fork(2) of this very Node process, synchronously. The child never returns into JavaScript: it carries out
 * commands in native code, has all memory of Node but the JavaScript heap (which V8 maps MADV_DONTFORK), and
 * ends when Node does.
 *
 * @throws SystemError ENOMEM or EAGAIN when the kernel refuses.
 * @throws FeatureUnavailableError on anything but Linux.
 */
export function fork(): ForkedProcess {
  return ForkedProcess.fromNode();
}
