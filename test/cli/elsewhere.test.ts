/** On anything but Linux: the package imports, the model works, and the first real call says in one sentence what is missing. */
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { MAIN, ROOT, run, unbroken } from './command.js';

const NOT_LINUX = join(ROOT, 'test/cli/not-linux.mjs');
const SENTENCE =
  'The Linux kernel is not available: this is darwin. ' +
  'Here the model works (modelMachine, cowlab run --model); run the real thing on Linux.';

const onDarwin = (...args: string[]) => run(process.execPath, ['--import', NOT_LINUX, ...args]);

describe('where there is no Linux', () => {
  test('every first real call gives the same sentence, and the model counts pages', async () => {
    const { code, stdout, stderr } = await onDarwin(join(ROOT, 'test/cli/first-calls.mjs'));
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    const { said, counts } = JSON.parse(stdout) as { said: Record<string, string>; counts: Record<string, number> };
    expect(Object.keys(said).length).toBeGreaterThan(25);
    for (const [call, message] of Object.entries(said)) {
      expect({ call, message }).toEqual({ call, message: `FeatureUnavailableError: ${SENTENCE}` });
    }
    expect(counts).toMatchObject({ exclusive: 4, shared: 6 });
  });

  test('the command line predicts for a plain Linux, and says so', async () => {
    const { code, stdout, stderr } = await onDarwin(MAIN, 'run', 'enomem', '--model', '--json');
    expect(code).toBe(0);
    expect(unbroken(stderr)).toMatch(/this is darwin: predicting for a plain Linux with .* of RAM/);
    expect(JSON.parse(stdout)).toMatchObject({ experiment: 'enomem', environment: { platform: 'darwin' } });
  });

  test.each(['run enomem', 'inspect 1', 'predict', 'watch --pid 1'])(
    'cowlab %s says it and exits with 3',
    async (line) => {
      const { code, stdout, stderr } = await onDarwin(MAIN, ...line.split(' '));
      expect({ code, stdout }).toEqual({ code: 3, stdout: '' });
      expect(unbroken(stderr)).toContain(`cowlab: ${SENTENCE}\n`);
    },
  );

  test('npm install has nothing to do, and does not fail', async () => {
    // Without a PATH no compiler could be found.
    const result = await run(process.execPath, ['--import', NOT_LINUX, 'scripts/install.js'], { env: {} });
    expect(result).toEqual({ code: 0, signal: null, stdout: '', stderr: '' });
  });
});
