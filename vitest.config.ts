import { defineConfig } from 'vitest/config';

/** A soak runs until it is stopped, and says how far it has come. */
const soak = process.env['COWLAB_SOAK'] === '1';
/** A library for the processes that run tests: the runtime of AddressSanitizer (scripts/asan.sh). */
const preload = process.env['COWLAB_PRELOAD'];

/**
 * Tests that measure must have the machine for themselves: one file at a time, and nothing beside it. Groups run one
 * after another in the order of their numbers.
 */
function alone(name: string, groupOrder: number) {
  return {
    extends: true as const,
    test: {
      name,
      include: [`test/${name}/**/*.test.ts`],
      pool: 'forks' as const,
      fileParallelism: false,
      maxWorkers: 1,
      testTimeout: soak ? 0 : 120_000,
      hookTimeout: 60_000,
      sequence: { groupOrder },
    },
  };
}

export default defineConfig({
  test: {
    disableConsoleIntercept: soak,
    env: preload === undefined ? {} : { LD_PRELOAD: preload },
    projects: [
      {
        extends: true,
        test: {
          name: 'unit',
          include: ['test/unit/**/*.test.ts'],
          pool: 'forks',
          maxWorkers: '100%',
          testTimeout: 30_000,
          sequence: { groupOrder: 0 },
        },
      },
      alone('kernel', 1),
      alone('cli', 2),
      alone('browser', 3),
    ],
  },
});
