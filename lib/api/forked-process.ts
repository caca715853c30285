/** fork() as in C, and the handle of what it made: a process in the native command loop. */
import { closeSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { ProcessEndedError, SystemError } from '../errors.js';
import { addonPath, native, systemError } from '../native.js';
import { ownProgram } from '../own-program.js';
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
import { countPages } from '../proc/pagemap.js';
import { PageSet } from '../schema/page-set.js';
import { selectionCount } from '../schema/selection.js';
import type { ExitStatus, Protection } from '../schema/step.js';
import { ADVICE, ADVICE_NAMES, ForkFlag, MapFlag, Op, PROTECTIONS, RestrictFlag, requireWord } from './command.js';
import type { Command, RawAdvice, Reply } from './command.js';
import { Connection, ConnectionEnded } from './connection.js';
import { ENDING_SIGNALS, decodeStatus } from './exit-status.js';
import type { EndingSignal } from './exit-status.js';
import { Mapping, openMappings } from './mapping.js';
import { requireMapSpec } from './map-spec.js';
import type { RawMapSpec } from './map-spec.js';
import { WriteMark } from './written.js';
import type { WriteMarkOptions } from './written.js';

/** A region that a forked process mapped; its descendants know it by the same handle. */
export class ForkedRegion {
  /** Distinguishes the type. */
  readonly kind = 'forked region';
}

/** Memory that a forked process has: its own regions, and the mappings of Node that it inherited. */
export type RegionHandle = ForkedRegion | Mapping;

/** Where a region lies in one process. */
export interface Placement {
  address: bigint;
  pages: number;
}

interface Holding extends Placement {
  /** Pages that a child will not have. */
  dontfork: PageSet;
  /** How often pages of it have been given back, by MADV_DONTNEED or munmap of a part. */
  givenBack: number;
  /** Where it will lie is not known until the process has answered. */
  moving?: boolean;
}

/** What the addon fills; made once, since memory from malloc is what costs most right after a fork. */
const birthFigures = new Float64Array(3);
const endFigures = new Float64Array(6);

/** How long to look for the end of a process at each turn of the event loop, before that is left to a socket or timer. */
const WATCH_MS = 0.5;

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

/** Those that Node has forked or started and not waited for. */
const childrenOfNode = new Set<ForkedProcess>();

export class ForkedProcess {
  readonly pid: number;
  /** Nanoseconds that the call took in the parent: fork, or posix_spawn. */
  readonly forkNs: number;
  /** Resolves when the process has ended and has been waited for. Never rejects. */
  readonly ended: Promise<ExitStatus>;
  #status: ExitStatus | undefined;
  readonly #connection: Connection;
  readonly #parent: ForkedProcess | undefined;
  readonly #regions: Map<RegionHandle, Holding>;
  readonly #children = new Set<ForkedProcess>();

  private constructor(
    birth: { pid: number; forkNs: number; connection: Connection },
    parent: ForkedProcess | undefined,
    regions: Map<RegionHandle, Holding>,
  ) {
    this.pid = birth.pid;
    this.forkNs = birth.forkNs;
    this.#connection = birth.connection;
    this.#parent = parent;
    this.#regions = regions;
    if (parent) parent.#children.add(this);
    else childrenOfNode.add(this);
    this.ended = birth.connection.ended.then(() => this.#reap());
  }

  /** @internal Forks Node itself. */
  static fromNode(): ForkedProcess {
    const inherited = new Map<RegionHandle, Holding>();
    for (const mapping of openMappings()) {
      const { address, pages, dontfork } = mapping;
      if (dontfork.size < pages) inherited.set(mapping, { address, pages, dontfork, givenBack: 0 });
    }
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
    return this.#status;
  }

  /** Whether the process has this region. */
  has(region: RegionHandle): boolean {
    return this.#regions.has(region);
  }

  /** @internal The living processes that have a region, Node aside. */
  static withRegion(region: RegionHandle): ForkedProcess[] {
    const found: ForkedProcess[] = [];
    const look = (processes: Iterable<ForkedProcess>): void => {
      for (const process of processes) {
        if (process.has(region)) found.push(process);
        look(process.#children);
      }
    };
    look(childrenOfNode);
    return found;
  }

  /** Where a region lies in this process. @throws TypeError if it has no such region. */
  placement(region: RegionHandle): Placement {
    const { address, pages } = this.#holding(region);
    return { address, pages };
  }

  /**
   * mmap(2) in the process. The region is one VMA with PROT_NONE guards around it, in pages of the base size unless
   * huge ones are asked for.
   * @throws SystemError ENOMEM and the like, from mmap; FeatureUnavailableError for huge pages where there are none.
   */
  async map(spec: RawMapSpec): Promise<ForkedRegion> {
    const { pages, sharing, protection, populate, noreserve, hugePages, hugetlb, object, offset } =
      requireMapSpec(spec);
    if (populate) requireMemory(Number(bytes(pages)));
    let flags = 0n;
    if (sharing === 'shared') flags |= MapFlag.shared;
    if (populate) flags |= MapFlag.populate;
    if (noreserve) flags |= MapFlag.noreserve;
    if (object) flags |= MapFlag.object;
    if (hugePages) flags |= MapFlag.hugePages;
    if (hugetlb) flags |= MapFlag.hugetlb;
    const reply = await this.#command(
      {
        op: Op.map,
        length: bytes(pages),
        argument: PROTECTIONS[protection],
        flags,
        offset: bytes(offset),
      },
      object?.duplicate(),
    );
    const region = new ForkedRegion();
    this.#regions.set(region, { address: reply.value, pages, dontfork: new PageSet(), givenBack: 0 });
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
    return WriteMark.make(this, { region, ...run, locate: () => this.#locate(region, run) }, options);
  }

  /** mprotect(2). */
  async protect(region: RegionHandle, protection: Protection, range?: PageRange): Promise<void> {
    const argument = PROTECTIONS[requireOneOf('protection', protection, ['none', 'r', 'rw'])];
    await this.#command({ op: Op.protect, ...this.#span(region, range), argument });
  }

  /**
   * madvise(2), measured. 'pageout' (Linux 5.4) sends pages to swap, if there is some, and is a wish: pages that another
   * process maps too stay, as do those that wait in another CPU's list of new pages or are still being written from the
   * last time [mm/madvise.c: madvise_cold_or_pageout_pte_range; mm/vmscan.c: shrink_folio_list].
   * @throws SystemError (rejects) EINVAL where the kernel refuses the advice for this kind of memory, or does not know it.
   */
  async advise(region: RegionHandle, advice: RawAdvice, range?: PageRange): Promise<AccessReport> {
    const argument = BigInt(ADVICE[requireOneOf('advice', advice, ADVICE_NAMES)]);
    const holding = this.#holding(region);
    const run = requireRange(range, holding.pages);
    if (advice === 'populate-write') requireMemory(Number(bytes(run.pages)), () => this.#heldBytes(region));
    if (advice === 'dontneed') holding.givenBack++;
    const reply = await this.#command({ op: Op.advise, ...this.#span(region, run), argument });
    if (advice === 'dontfork') holding.dontfork.add(run);
    if (advice === 'dofork') holding.dontfork.remove(run);
    return report(reply);
  }

  /** mremap(2) to `pages` pages in all, at a new address. */
  async grow(region: ForkedRegion, pages: number): Promise<void> {
    const holding = this.#holding(region);
    if (region instanceof Mapping) throw new TypeError('region is a mapping of Node, which keeps its length');
    requireInteger('pages', pages, holding.pages + 1, MAX_REGION_PAGES);
    const { address, length } = this.#span(region, undefined);
    holding.moving = true;
    try {
      const reply = await this.#command({ op: Op.grow, address, length, argument: bytes(pages) });
      holding.address = reply.value;
      holding.pages = pages;
    } finally {
      holding.moving = false;
    }
  }

  /** munmap(2). A part leaves a hole that nothing else can come into. */
  async unmap(region: RegionHandle, range?: PageRange): Promise<void> {
    const holding = this.#holding(region);
    const { first, pages } = requireRange(range, holding.pages);
    const whole = first === 0 && pages === holding.pages;
    holding.givenBack++;
    await this.#command({ op: whole ? Op.unmap : Op.unmapPart, ...this.#span(region, { first, pages }) });
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
    this.#requireLiving();
    const [ours, theirs] = native().openChannel();
    const connection = new Connection(ours);
    const hello = connection.hello();
    hello.catch(() => undefined);
    const reply = await this.#exchange({ op: Op.fork, flags }, theirs).catch(async (error: unknown) => {
      // A parent that died right after its fork has left a child all the same. Without one, no hello can come.
      const pid = await hello.catch(() => undefined);
      connection.close();
      if (pid !== undefined) await new ForkedProcess({ pid, forkNs: 0, connection }, this, new Map()).ended;
      throw error;
    });
    if (reply.errno !== 0) {
      connection.close();
      return { reply };
    }
    const birth = { pid: Number(reply.value), forkNs: reply.elapsedNs, connection };
    const child = new ForkedProcess(birth, this, this.#inheritance());
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
    this.#requireLiving();
    this.#connection.post({ op: Op.exit, argument: BigInt(code) });
    const listen = this.#connection.delayListening();
    const status = await this.#watchEnd();
    listen();
    return status ?? this.#awaitEnd();
  }

  /** Sends a signal that ends the process, and waits for that. */
  async kill(signal: EndingSignal = 'SIGKILL'): Promise<ExitStatus> {
    requireOneOf('signal', signal, ENDING_SIGNALS);
    this.#requireLiving();
    // While its socket is open nobody has waited for it, so the pid cannot be another's. After that it is dying.
    if (this.#connection.isOpen) process.kill(this.pid, signal);
    return this.#awaitEnd();
  }

  /** Ends the process and all its descendants, and waits for them. Never fails, and may be called again. */
  async close(): Promise<void> {
    // The set grows while this goes on: when a child ends, its own children become ours.
    for (const child of this.#children) await child.close();
    if (!this.#status) {
      await this.kill().catch(() => undefined);
      await this.#awaitEnd();
    }
  }

  /** The regions a child has: all but those that are MADV_DONTFORK throughout. */
  #inheritance(): Map<RegionHandle, Holding> {
    const inherited = new Map<RegionHandle, Holding>();
    for (const [region, { address, pages, dontfork }] of this.#regions) {
      if (dontfork.size < pages) inherited.set(region, { address, pages, dontfork: dontfork.copy(), givenBack: 0 });
    }
    return inherited;
  }

  /** Puts guards where MADV_DONTFORK has left holes, so that no later mapping comes to lie inside a region. */
  async #fillHoles(): Promise<void> {
    const filled: Promise<Reply>[] = [];
    for (const { address, dontfork } of this.#regions.values()) {
      for (const { first, pages } of dontfork.runs) {
        filled.push(this.#command({ op: Op.unmapPart, address: address + bytes(first), length: bytes(pages) }));
        dontfork.remove({ first, pages });
      }
    }
    await Promise.all(filled);
  }

  async #awaitEnd(): Promise<ExitStatus> {
    this.#connection.hold();
    const status = await this.ended;
    this.#connection.release();
    return status;
  }

  #requireLiving(): void {
    if (this.#status) throw new ProcessEndedError(`process ${String(this.pid)}`, this.#status);
  }

  #holding(region: RegionHandle): Holding {
    this.#requireLiving();
    requireObject('region', region);
    const holding = this.#regions.get(region);
    if (!holding) throw new TypeError(`region is not mapped in process ${String(this.pid)}`);
    return holding;
  }

  /** Memory that a write to the region need not take: its own pages. Those it shares may have to be copied. */
  #heldBytes(region: RegionHandle): number {
    return countPages(this.pid, this.#holding(region), { checkHuge: false }).exclusive * native().pageSizeBytes;
  }

  #span(region: RegionHandle, range: PageRange | undefined): { address: bigint; length: bigint } {
    const placement = this.#holding(region);
    if (placement.moving) throw new TypeError('region is being grown: wait for that first');
    const { first, pages } = requireRange(range, placement.pages);
    return { address: placement.address + bytes(first), length: bytes(pages) };
  }

  #locate(region: RegionHandle, range: PageRange): { address: bigint; givenBack: number } {
    return { ...this.#span(region, range), givenBack: this.#holding(region).givenBack };
  }

  async #access(
    op: bigint,
    region: RegionHandle,
    choice: PageChoice | undefined,
    value: bigint,
  ): Promise<AccessReport> {
    const selection = requireSelection(choice, this.placement(region).pages);
    if (op === Op.write) requireMemory(Number(bytes(selectionCount(selection))), () => this.#heldBytes(region));
    return report(await this.#command({ op, ...this.#span(region, undefined), selection, value }));
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
      if (this.#status && passedFd >= 0) closeSync(passedFd);
      this.#requireLiving();
      return await this.#connection.send(command, passedFd);
    } catch (error) {
      if (!(error instanceof ConnectionEnded)) throw error;
      throw new ProcessEndedError(`process ${String(this.pid)}`, await this.#awaitEnd());
    }
  }

  /** Its socket is closed, so the process is a zombie or about to be one. */
  async #reap(): Promise<ExitStatus> {
    let status = this.#parent ? await this.#waitByParent() : await this.#watchEnd();
    for (; !status; status = this.#waitAsChildOfNode()) await delay(1);
    this.#status = status;
    this.#regions.clear();
    childrenOfNode.delete(this);
    const root = this.#ancestors().at(-1) ?? this;
    for (const child of this.#children) {
      // As the kernel does it, orphans go to the root. Without a root, what is left ends as its socket does.
      if (root.#status) child.#connection.close();
      else root.#children.add(child);
    }
    root.#children.delete(this);
    if (this.#parent) this.#parent.#children.delete(this);
    return status;
  }

  /** A small process is gone before its socket says so, and before a timer could: so looks again and again, shortly. */
  async #watchEnd(): Promise<ExitStatus | undefined> {
    const start = performance.now();
    for (;;) {
      const status = this.#waitAsChildOfNode();
      if (status || this.#parent || performance.now() - start > WATCH_MS) return status;
      await new Promise(setImmediate);
    }
  }

  /** The status of an ended child of Node; undefined while it lives, and for a child of another process. */
  #waitAsChildOfNode(): ExitStatus | undefined {
    if (this.#status || this.#parent) return this.#status;
    try {
      if (!native().waitProcess(this.pid, endFigures)) return undefined;
    } catch {
      // Somebody else has waited for it: how it ended is not known.
      return (this.#status = {});
    }
    const [status = 0, minorFaults = 0, majorFaults = 0, maxRssBytes = 0, user = 0, system = 0] = endFigures;
    const usage = { minorFaults, majorFaults, maxRssBytes, userMicroseconds: user, systemMicroseconds: system };
    this.#connection.processEnded();
    return (this.#status = { ...decodeStatus(status), ...usage });
  }

  /** From the parent up to the root. */
  #ancestors(): ForkedProcess[] {
    const ancestors: ForkedProcess[] = [];
    for (let process = this.#parent; process; process = process.#parent) ancestors.push(process);
    return ancestors;
  }

  /** Waits through the parent or, if that has ended, through the root, to which the kernel gave the orphan. */
  async #waitByParent(): Promise<ExitStatus> {
    const ancestors = this.#ancestors();
    for (const waiter of new Set([ancestors.at(0), ancestors.at(-1)])) {
      try {
        if (!waiter) continue;
        const reply = await waiter.#connection.send({ op: Op.wait, argument: BigInt(this.pid) });
        if (reply.errno !== 0) continue;
        const { minorFaults, majorFaults, maxRssBytes, userMicroseconds, systemMicroseconds } = reply;
        const usage = { minorFaults, majorFaults, maxRssBytes, userMicroseconds, systemMicroseconds };
        return { ...decodeStatus(Number(reply.value)), ...usage };
      } catch {
        // That one has ended as well. The kernel gives its children away only after its socket has closed, but
        // before it can be waited for.
        await waiter?.ended;
      }
    }
    // Everybody who could have waited is gone; init has. How this one ended is not known.
    return {};
  }
}

function bytes(pages: number): bigint {
  return BigInt(pages) * BigInt(native().pageSizeBytes);
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

/**
 * A fresh Node, by posix_spawn, that never runs JavaScript of yours: it enters the command loop, as what fork() makes
 * does, and has none of this process's memory. What "spawn" is to Python's multiprocessing.
 *
 * @throws SystemError from posix_spawn.
 * @throws FeatureUnavailableError on anything but Linux.
 */
export function spawnFresh(): ForkedProcess {
  // Not our own script, so that nothing but the addon is loaded there.
  const script = 'require(process.argv[1]).enterCommandLoop(3, Number(process.argv[2]))';
  return ForkedProcess.fromProgram([process.execPath, '-e', script, addonPath(), String(process.pid)], null);
}

/**
 * @internal A small native program in the command loop, by posix_spawn. Where it could be linked statically it has no page
 * in common with any other program: so all that its tree shares, and what that counts for, is known.
 */
export async function spawnBare(): Promise<ForkedProcess> {
  const bare = ForkedProcess.fromProgram([ownProgram('cowlab-bare'), String(process.pid)], []);
  try {
    // It answers once it has settled, and maps nothing more by itself.
    await bare.perform({ op: Op.restrict });
    return bare;
  } catch (error) {
    await bare.close();
    throw error;
  }
}
