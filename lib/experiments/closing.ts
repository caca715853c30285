/** What has to be closed when an experiment ends, however it ends. */

export class Closing {
  readonly #open = new Set<() => Promise<void>>();

  /** @returns Closes it now, and only once. */
  add(close: () => Promise<void> | void): () => Promise<void> {
    const once = async (): Promise<void> => {
      if (this.#open.delete(once)) await close();
    };
    this.#open.add(once);
    return once;
  }

  /** The last that was added comes first. One that fails keeps none of the others open. @throws The first error. */
  async close(): Promise<void> {
    const errors: unknown[] = [];
    for (let last = [...this.#open].at(-1); last; last = [...this.#open].at(-1)) {
      await last().catch((error: unknown) => errors.push(error));
    }
    if (errors.length > 0) throw errors[0];
  }
}
