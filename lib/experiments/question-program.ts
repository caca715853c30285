/** Real CPython running the program of the question: a parent with a big list, and a Pool of workers. */
import { startProgram } from '../api/foreign-program.js';
import type { ForeignProgram, Python } from '../api/foreign-program.js';
import { predictFork } from '../machine/linux/predict.js';
import type { ForkPrediction } from '../machine/linux/predict.js';
import { readHostFacts } from '../proc/host.js';
import type { HostFacts } from '../schema/facts.js';
import { pythonScript } from './cpython.js';

export const METHODS = ['fork', 'forkserver', 'spawn'] as const;
export type Method = (typeof METHODS)[number];

export interface PoolAttempt {
  method: Method;
  predicted: ForkPrediction;
  /** 0, or what OSError says. */
  errno: number;
  error: string;
  workers: number;
  startMs: number;
}

/** python/pool.py. */
export class QuestionProgram {
  readonly pid: number;
  readonly elements: number;
  readonly defaultMethod: string;
  readonly #program: ForeignProgram;

  private constructor(program: ForeignProgram, hello: Record<string, unknown>) {
    this.#program = program;
    this.pid = hello['pid'] as number;
    this.elements = hello['elements'] as number;
    this.defaultMethod = hello['default'] as string;
  }

  /** @param closeLater Is given what ends the program and all of its workers, before anything can fail. */
  static async start(
    python: Python,
    elements: number,
    closeLater: (close: () => Promise<void>) => unknown,
  ): Promise<QuestionProgram> {
    const program = startProgram(python.executable, [pythonScript('pool.py'), String(elements)]);
    closeLater(() => program.close());
    return new QuestionProgram(program, await program.json());
  }

  get #facts(): HostFacts {
    return readHostFacts(this.pid);
  }

  /** What `cowlab predict --pid` says of it now. */
  predict(): ForkPrediction {
    return predictFork(this.pid, this.#facts);
  }

  async startPool(method: Method, count: number): Promise<PoolAttempt> {
    const predicted = this.predict();
    const before = performance.now();
    this.#program.send(`pool ${method} ${String(count)}`);
    const answer = (await this.#program.json()) as {
      workers?: number[];
      errno?: number;
      error?: string;
      started?: number;
    };
    const startMs = performance.now() - before;
    const { workers, errno = 0, error = '', started = 0 } = answer;
    return { method, predicted, errno, error, workers: workers?.length ?? started, startMs };
  }

  /** Every worker looks at the list. @returns How many did, and how many elements they saw. */
  async work(): Promise<{ workers: number; elements: number }> {
    this.#program.send('work');
    const { workers, elements } = (await this.#program.json()) as { workers: number[]; elements: number };
    return { workers: workers.length, elements };
  }

  /** Grows a mapping beyond RAM plus swap, in two steps, touching nothing of it. */
  async growBeyond(): Promise<number> {
    const { memTotalPages, swapTotalPages } = this.#facts;
    const pages = memTotalPages + swapTotalPages + 1;
    this.#program.send(`beyond ${String(pages)}`);
    await this.#program.json();
    return pages;
  }

  async closePool(): Promise<void> {
    this.#program.send('close');
    await this.#program.json();
  }
}
