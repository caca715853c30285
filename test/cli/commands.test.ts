import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Value } from 'typebox/value';
import { afterAll, describe, expect, test } from 'vitest';
import { ResultSchema } from '../../lib/schema/result.js';
import type { ResultDocument } from '../../lib/schema/result.js';
import { cowlab, run, start, unbroken } from './command.js';

const SMALL = ['--param', 'size=1MiB', '--param', 'children=2', '--param', 'steps=2'];

const folder = mkdtempSync(join(tmpdir(), 'cowlab-test-'));
const BROKEN_MODULE = join(folder, 'broken.mjs');
const NO_RESULT = join(folder, 'none.json');
writeFileSync(BROKEN_MODULE, 'one two');
writeFileSync(NO_RESULT, '[]');
afterAll(() => {
  rmSync(folder, { recursive: true });
});

describe('run', () => {
  test('both experiments pass, with a table, a plot, and lines of at most 80 columns', async () => {
    const { code, stdout } = await cowlab(['run', 'enomem', 'cow-growth', ...SMALL]);
    expect(code).toBe(0);
    expect(stdout).toMatch(/exactly as predicted/);
    expect(stdout.match(/^PASS: /gm)).toHaveLength(2);
    expect(stdout.match(/┤|┼/g)?.length).toBeGreaterThan(16);
    for (const line of stdout.split('\n')) expect(Array.from(line).length).toBeLessThanOrEqual(80);
  });

  test('piped output has no escape codes', async () => {
    const { stdout, stderr } = await cowlab(['run', 'enomem', 'cow-growth', ...SMALL]);
    expect(stdout + stderr).not.toContain('\u001b');
  });

  test('--json puts one valid document on stdout for one experiment, an array for several', async () => {
    const one = await cowlab(['run', 'cow-growth', '--json', ...SMALL]);
    expect(one.code).toBe(0);
    const document: unknown = JSON.parse(one.stdout);
    expect([...Value.Errors(ResultSchema, document)]).toEqual([]);
    const two = await cowlab(['run', 'enomem', 'cow-growth', '--json', ...SMALL]);
    expect(JSON.parse(two.stdout)).toHaveLength(2);
  });

  test.skipIf(process.getuid?.() !== 0)('an ordinary user gets the same', async () => {
    const { code, stdout } = await cowlab(['run', 'enomem', 'cow-growth', '--json', ...SMALL], { uid: 65534 });
    expect(code).toBe(0);
    const results = JSON.parse(stdout) as ResultDocument[];
    expect(results.map(({ verdict }) => verdict)).toEqual(['pass', 'pass']);
    expect(results[0]?.environment.privileged).toBe(false);
  });

  test('--model predicts without forking, and --dry-run runs nothing', async () => {
    const model = await cowlab([
      'run',
      'cow-growth',
      '--model',
      '--json',
      '--param',
      'size=2GiB',
      '--param',
      'children=8',
    ]);
    const document = JSON.parse(model.stdout) as ResultDocument;
    expect(model.code).toBe(0);
    expect(document.measurement).toBeUndefined();
    expect(document.prediction?.figures.find(({ name }) => name === '100%: growth of the sum of Pss')?.value).toBe(
      8 * 2 * 2 ** 20,
    );
    const dry = await cowlab(['run', 'cow-growth', '--dry-run']);
    expect(dry.code).toBe(0);
    expect(dry.stdout).toMatch(/would use up to 1.25 GiB of memory and change no setting/);
  });

  test('what this host cannot do is exit code 3, with the reason', async () => {
    const { code, stdout } = await cowlab(['run', 'cow-growth', '--param', 'size=8TiB']);
    expect(code).toBe(3);
    expect(stdout).toMatch(/SKIP: it needs 40 TiB of memory/);
    expect(stdout).not.toMatch(/Why it is so/);
  });

  test('says where what was measured or predicted is explained', async () => {
    const model = await cowlab(['run', 'cow-growth', '--model', ...SMALL]);
    expect(model.stdout).toMatch(/Why it is so: cowlab explain cow-growth\./);
  });

  test('an interrupt cleans up and exits with 130', async () => {
    const child = start(['run', 'cow-growth', '--param', 'size=256MiB', '--param', 'steps=1000']);
    child.stderr.once('data', () => setTimeout(() => child.kill('SIGINT'), 600));
    const [code] = (await once(child, 'close')) as [number];
    expect(code).toBe(130);
    const { stdout } = await run('pgrep', ['-f', '^[^ ]*node [^ ]*cli/main.js run cow-growth']);
    expect(stdout).toBe('');
  });
});

describe('bad input is exit code 2, and says what would be right', () => {
  test.each([
    [['run', 'no-such'], /there is no experiment no-such.*enomem, eighteen-gb/],
    [['run', 'cow-growth', '--param', 'size'], /write name=value/],
    [['run', 'cow-growth', '--param', 'sise=1MiB'], /has no parameter sise; it has: size/],
    [['run', 'cow-growth', '--param', 'size=banana'], /"banana" is not a size/],
    [['run', 'cow-growth', '--param', 'size=-1'], /is not a size/],
    [['run', 'cow-growth', '--param', 'children=2.5'], /children must be a whole number from 1 to 64/],
    [['run', 'cow-growth', '--param', 'children=1e9'], /children must be a whole number from 1 to 64/],
    [['run', 'cow-growth', '--param', 'pattern=zigzag'], /pattern must be one of sequential, random, stride/],
    [['run', 'cow-growth', '--param', 'reads=maybe'], /reads must be true or false/],
    [['run', 'enomem', '--export-json', '/no/such/folder/x.json'], /no such file or directory/],
    [['run', 'cow-growth', '--param', 'children='], /from 1 to 64, not nothing/],
    [['run', 'cow-growth', '--param', '__proto__=1'], /has no parameter __proto__/],
    [['run', 'lib'], /lib is no module that can be loaded .*Directory import/],
    [['run', 'package.json'], /package\.json is no module that can be loaded/],
    [['run', BROKEN_MODULE], /broken\.mjs is no module that can be loaded .*Unexpected identifier/],
    [['run'], /missing required argument/],
    [['frobnicate'], /unknown command/],
    [['predict', '--pid', '0'], /--pid must be the number of a process/],
    [['predict', '--pid', '2147483000'], /2147483000/],
    [['explain', 'no-such'], /there is no explanation of 'no-such'.*arenas, oom/],
    [['explain', 'no-such', '--json'], /enomem/],
    [['replay', '/no/such/file'], /cannot be read as JSON/],
    [['replay', 'package.json'], /is not a result of cowlab/],
    [['replay', NO_RESULT], /none\.json holds no result/],
    [['report', NO_RESULT], /none\.json holds no result/],
    [['compare', NO_RESULT, NO_RESULT], /none\.json holds no result/],
  ])('%j', async (args, message) => {
    const { code, stdout, stderr } = await cowlab(args);
    expect(unbroken(stderr)).toMatch(message);
    expect(stdout).toBe('');
    expect(code).toBe(2);
    for (const line of stderr.split('\n')) expect(Array.from(line).length).toBeLessThanOrEqual(80);
  });

  test('a size that is not a multiple of the page size is refused with the page size', async () => {
    const { code, stderr } = await cowlab(['run', 'cow-growth', '--param', 'size=5000']);
    expect(unbroken(stderr)).toMatch(/size must be a multiple of the page size, \d+, not 5000/);
    expect(code).toBe(2);
  });
});

describe('replay', () => {
  test('a saved result comes out the same here, and on the model', async () => {
    const file = join(folder, 'result.json');
    expect((await cowlab(['run', 'cow-growth', ...SMALL, '--export-json', file])).code).toBe(0);
    for (const flags of [[], ['--model']]) {
      const { code, stdout } = await cowlab(['replay', file, ...flags]);
      expect(stdout).toMatch(/figures compared on (linux|model), 0 differ/);
      expect(code).toBe(0);
    }
  });

  test('a result in which one figure was changed differs in that figure, and exits with 1', async () => {
    const file = join(folder, 'changed.json');
    await cowlab(['run', 'cow-growth', ...SMALL, '--export-json', file]);
    const document = JSON.parse(readFileSync(file, 'utf8')) as ResultDocument;
    const observed = document.trace.find(({ outcome }) => outcome.observation)?.outcome.observation;
    const region = observed?.processes[0]?.regions[0];
    if (!region) expect.unreachable('there is an observation');
    region.smapsKb['Rss'] = 4;
    writeFileSync(file, JSON.stringify(document));
    const { code, stdout } = await cowlab(['replay', file]);
    expect(stdout).toMatch(/Rss: recorded 4 kB, now 1024/);
    expect(code).toBe(1);
  });

  test('a trace that names what does not exist is bad input', async () => {
    const file = join(folder, 'foreign.json');
    await cowlab(['run', 'cow-growth', ...SMALL, '--export-json', file]);
    const document = JSON.parse(readFileSync(file, 'utf8')) as ResultDocument;
    const write = document.trace.map(({ step }) => step).find(({ op }) => op === 'write');
    if (write?.op !== 'write') expect.unreachable('something is written');
    write.process = 'root.7.7';
    writeFileSync(file, JSON.stringify(document));
    const { code, stderr } = await cowlab(['replay', file]);
    expect(stderr).toBe('cowlab: there is no process root.7.7\n');
    expect(code).toBe(2);
  });
});

describe('the other commands', () => {
  test.each(['list', 'doctor', 'predict', 'explain enomem', 'explain cow-growth'])(
    '%s: text of 80 columns, JSON with --json, exit code 0',
    async (command) => {
      const text = await cowlab(command.split(' '));
      expect(text.code).toBe(0);
      for (const line of text.stdout.split('\n')) expect(Array.from(line).length).toBeLessThanOrEqual(80);
      const json = await cowlab([...command.split(' '), '--json']);
      expect(json.code).toBe(0);
      expect(() => JSON.parse(json.stdout) as unknown).not.toThrow();
    },
  );

  test('list has each name as a word of its own', async () => {
    const names = (JSON.parse((await cowlab(['list', '--json'])).stdout) as { name: string }[]).map(({ name }) => name);
    const { stdout } = await cowlab(['list']);
    expect(stdout.split('\n').flatMap((line) => /^[^ ]+/.exec(line)?.[0] ?? [])).toEqual(names);
  });

  test('predict for our own parent names it and says whether a fork would succeed', async () => {
    const { stdout } = await cowlab(['predict', '--pid', String(process.pid)]);
    expect(stdout).toMatch(new RegExp(`^A fork of ${String(process.pid)} \\(.*\\) would charge .* and would succeed`));
  });

  test('a reader that closes the pipe early is no error', async () => {
    const { code, stderr } = await run('sh', ['-c', `node dist/cli/main.js explain enomem | head -1 >/dev/null`]);
    expect(code).toBe(0);
    expect(stderr).toBe('');
  });
});
