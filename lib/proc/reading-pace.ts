/** When memory may be read again: it is what a look at a tree costs, and the one who looks is to take little of a core. */

/** What was not used is kept for so long. It pays for the first looks at a program, which come close to one another. */
const KEPT_MS = 5000;
/** The rest is for what comes of a look: timers, garbage, and what is made of a sample. */
const OF_LOOKS = 0.7;

/**
 * Time to look is earned as time goes by. Who has read waits until that is paid for; what the looks in between cost comes
 * first, but leaves a quarter to read with, or memory would never be read where looks come too fast.
 */
export class ReadingPace {
  #creditMs: number;
  #settledMs = performance.now();
  readonly #share: number;

  /** @param maxLoad Share of a core, in (0, 1]; with 1 memory may always be read. */
  constructor(readonly maxLoad: number) {
    this.#share = maxLoad * OF_LOOKS;
    this.#creditMs = KEPT_MS * this.#share;
  }

  isDue(): boolean {
    return this.maxLoad === 1 || this.#creditMs + this.#earnedMs() > 0;
  }

  /** After each look. @param costMs What it took. @param hasRead Whether it read the memory of all. */
  settle(costMs: number, hasRead: boolean): void {
    const earnedMs = this.#earnedMs();
    const leftMs = hasRead ? earnedMs - costMs : Math.max(earnedMs - costMs, earnedMs / 4);
    const creditMs = Math.min(KEPT_MS * this.#share, this.#creditMs + leftMs);
    // What had to be read at once does not add up: nobody waits for longer than his last reading is worth.
    this.#creditMs = hasRead ? Math.max(creditMs, -costMs) : creditMs;
    this.#settledMs = performance.now();
  }

  #earnedMs(): number {
    return (performance.now() - this.#settledMs) * this.#share;
  }
}
