/**
 * `cowlab/vitest`: fixtures and matchers for tests of memory that processes share. Importing it, also from a setup file,
 * teaches `expect` of vitest the matchers.
 */
import { expect } from 'vitest';
import * as matchers from './matchers.js';
import type { ForkCode } from './matchers.js';

export { expect };
export { test } from './fixtures.js';
export type { Closable, CowlabFixtures } from './fixtures.js';
export type { ForkCode } from './matchers.js';
export { pagesOf } from './pages.js';
export type { PagesOf } from './pages.js';
export { markCopies } from '../index.js';
export type { CopyMark } from '../index.js';

declare module 'vitest' {
  // Its parameter must have the name and the default that vitest gives it.
  // eslint-disable-next-line @typescript-eslint/no-explicit-any, @typescript-eslint/no-unused-vars
  interface Matchers<T = any> {
    /**
     * Every page is mapped by another process as well. For pagesOf(), or a region of an observation of a Machine; fails, with
     * `.not` too, where the kernel does not tell the states that matter.
     */
    toShareAllPages(): void;
    /** Exactly so many pages are mapped by this process alone. For what toShareAllPages() is for, and as exact. */
    toHaveExclusivePages(pages: number): void;
    /**
     * All processes that have the region have copied exactly so much of it since markCopies(), together: the growth of the
     * sum of their Pss, without what was touched for the first time. Fails, with `.not` too, where that is not known.
     * @param bytes A multiple of the page size.
     */
    toHaveCopied(bytes: number): void;
    /** A fork of the process is refused with this code. A child that is born after all is ended. Await it. */
    toFailToFork(code: ForkCode): Promise<void>;
  }
}

expect.extend({ ...matchers });
