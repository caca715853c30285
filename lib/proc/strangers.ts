/** Who does not belong to a tree, and need not be looked at again and again: a host may have hundreds of them. */
import { PROC_ROOT, ProcFormatError, readHostFile } from './read.js';

/** How long at most one is taken for who he was. */
const ANEW_MS = 1000;

/** @throws ProcFormatError for another form. @returns The pid that was given out last [fs/proc/loadavg.c; proc_loadavg(5)]. */
function readLastPid(): number {
  const text = readHostFile(`${PROC_ROOT}/loadavg`);
  const [, pid] = / ([0-9]+)\n$/.exec(text) ?? [];
  if (pid === undefined) throw new ProcFormatError(`${PROC_ROOT}/loadavg`, 1, text, 'a pid at the end');
  return Number(pid);
}

/**
 * A process never joins a tree that it was not born into, so that a stranger stays one until another has his pid. These are
 * given out in order [kernel/pid.c: alloc_pid, idr_alloc_cyclic]: the last one tells whose may have been. Where it is not
 * told right (lxcfs), or pids are chosen (clone3 with set_tid), all are looked at anew once a second.
 */
export class Strangers {
  #pids = new Set<number>();
  #lastPid = 0;
  #anewMs = -Infinity;

  /** Those who are still the same. To be called before one looks who is there. */
  known(): Int32Array {
    const [before, now] = [this.#lastPid, readLastPid()];
    this.#lastPid = now;
    if (performance.now() - this.#anewMs > ANEW_MS) {
      this.#anewMs = performance.now();
      this.#pids.clear();
    }
    const isOld = (pid: number): boolean => (before <= now ? pid <= before || pid > now : pid <= before && pid > now);
    this.#pids = new Set([...this.#pids].filter(isOld));
    return Int32Array.from(this.#pids);
  }

  add(pids: readonly number[]): void {
    for (const pid of pids) this.#pids.add(pid);
  }
}
