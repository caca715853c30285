/** The packed package, as a stranger has it: what is in it, and a project (test/packed) that uses it in every way. */
import { chmodSync, cpSync, existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ROOT, run, type Finished } from './command.js';

const PREBUILDS = join(ROOT, 'prebuilds');
const FOLDER = mkdtempSync(join(tmpdir(), 'cowlab-packed-'));
const PROJECT = join(FOLDER, 'project');
let tarball: string;
let packed: string[];

async function must(file: string, args: readonly string[], options: Parameters<typeof run>[2] = {}): Promise<Finished> {
  const done = await run(file, args, options);
  expect({ ...done, args }).toMatchObject({ code: 0, signal: null });
  return done;
}

/** `npm` of the stranger: it must not know that it was started by an npm of ours. */
const STRANGER = {
  ...Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !/^(npm_(?!config_)|VITEST|NODE_ENV)/.test(name)),
  ),
  // For make.
  JOBS: 'max',
};

const npm = (args: readonly string[], cwd: string) =>
  must('npm', [...args, '--no-audit', '--no-fund'], { cwd, env: STRANGER });
const npx = (...args: string[]) =>
  run('npx', ['--no-install', ...args], { cwd: PROJECT, env: { ...STRANGER, NO_COLOR: '1' } });

function filesBelow(folder: string): string[] {
  return readdirSync(join(ROOT, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => relative(ROOT, join(entry.parentPath, entry.name)));
}

/** What becomes of a file of lib/ in dist/. */
function built(file: string): string[] {
  const to = file.replace(/^lib\//, 'dist/');
  if (to.endsWith('.d.ts')) return [];
  return to.endsWith('.ts') ? [to.replace(/\.ts$/, '.js'), to.replace(/\.ts$/, '.d.ts')] : [to];
}

const installedVersion = (name: string) =>
  (JSON.parse(readFileSync(join(ROOT, 'node_modules', name, 'package.json'), 'utf8')) as { version: string }).version;

beforeAll(async () => {
  chmodSync(FOLDER, 0o755);
  // Not built again: that is what the other tests run.
  const { stdout } = await npm(['pack', '--ignore-scripts', '--json', '--pack-destination', FOLDER], ROOT);
  const [report] = JSON.parse(stdout) as { filename: string; files: { path: string }[] }[];
  if (!report) throw new Error('npm pack has packed nothing');
  tarball = join(FOLDER, report.filename);
  packed = report.files.map(({ path }) => path).sort();

  cpSync(join(ROOT, 'test/packed'), PROJECT, { recursive: true });
  const tools = ['typescript', 'vitest', '@types/node'].map((name) => `${name}@${installedVersion(name)}`);
  await npm(['install', '--prefer-offline', tarball, ...tools], PROJECT);
  await must('node', ['node_modules/typescript/bin/tsc'], { cwd: PROJECT });
}, 600_000);

afterAll(() => {
  rmSync(FOLDER, { recursive: true });
});

describe('the package', () => {
  test('holds what it needs and nothing else', () => {
    const documents = ['CHANGELOG.md', 'LICENSE', 'README.md', 'binding.gyp', 'package.json', 'scripts/install.js'];
    const schemas = ['facts', 'fixture', 'result', 'trace'].map((name) => `dist/schema/${name}.json`);
    const prebuilds = existsSync(PREBUILDS) ? filesBelow('prebuilds') : [];
    const sources = filesBelow('native');
    const expected = [...documents, ...schemas, ...prebuilds, ...sources, ...filesBelow('lib').flatMap(built)];
    expect(packed).toEqual(expected.sort());
  });

  test('is clean by publint', async () => {
    const { code, stdout } = await run(join(ROOT, 'node_modules/.bin/publint'), ['run', tarball, '--strict']);
    expect({ code, stdout }).toMatchObject({ code: 0, stdout: expect.stringContaining('All good') as string });
  });
});

describe('a project that has installed it', () => {
  test('took the prebuilt addon if there is one, and else built it', () => {
    const isPrebuilt = existsSync(join(PREBUILDS, `linux-${process.arch}`));
    expect(existsSync(join(PROJECT, 'node_modules/cowlab/build'))).toBe(!isPrebuilt);
  });

  test('imports it, with types that are checked strictly', async () => {
    const { stdout } = await must('node', ['out/esm.mjs'], { cwd: PROJECT });
    expect(JSON.parse(stdout)).toEqual({ exclusive: 100, shared: 900 });
  });

  test('requires it, its version and its schemas', async () => {
    const { stdout } = await must('node', ['out/cjs.cjs'], { cwd: PROJECT });
    expect(JSON.parse(stdout)).toEqual({ exclusive: 10, version: installedCowlab(), schema: 'urn:cowlab:result:1' });
  });

  test('uses it as an ordinary user', async ({ skip }) => {
    if (process.getuid?.() !== 0) skip('this is an ordinary user already');
    const { stdout } = await must(process.execPath, ['out/esm.mjs'], { cwd: PROJECT, uid: 65534 });
    expect(JSON.parse(stdout)).toEqual({ exclusive: 100, shared: 900 });
  });

  test('runs its fixtures and matchers under vitest', async () => {
    const { code, stdout, stderr } = await npx('vitest', 'run', '--dir', 'src');
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toMatch(/Tests {2}4 passed \| 1 skipped/);
  });

  test('sees the pages where a matcher fails', async () => {
    const env = { ...STRANGER, NO_COLOR: '1', SHOW_A_FAILURE: '1' };
    const { code, stderr } = await run('npx', ['--no-install', 'vitest', 'run', '--dir', 'src'], { cwd: PROJECT, env });
    expect(code).toBe(1);
    expect(stderr).toMatch(
      /expected process \d+ to share all of 100 pages\n *pages 0\.\.49 exclusive, 50\.\.99 shared/,
    );
  });

  test('has the command line by npx', async () => {
    const { code, stdout, stderr } = await npx('cowlab', 'run', 'enomem', '--json');
    expect({ code, stderr }).toMatchObject({ code: 0 });
    expect(JSON.parse(stdout)).toMatchObject({ experiment: 'enomem', verdict: 'pass', $schema: 'urn:cowlab:result:1' });
  });
});

function installedCowlab(): string {
  return (JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string }).version;
}

test('a project on a Mac installs it, and has the model', async () => {
  const mac = join(FOLDER, 'mac');
  cpSync(join(ROOT, 'test/cli/not-linux.mjs'), join(mac, 'not-linux.mjs'));
  writeFileSync(join(mac, 'package.json'), '{ "type": "module" }');
  const env = { ...STRANGER, NODE_OPTIONS: `--import=${join(mac, 'not-linux.mjs')}` };
  await must('npm', ['install', '--prefer-offline', '--no-audit', '--no-fund', tarball], { cwd: mac, env });
  expect(existsSync(join(mac, 'node_modules/cowlab/build'))).toBe(false);
  const { stdout } = await must('npx', ['--no-install', 'cowlab', 'run', 'enomem', '--model'], { cwd: mac, env });
  expect(stdout).toContain('predicted');
});
