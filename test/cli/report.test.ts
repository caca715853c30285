import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { cowlab, unbroken } from './command.js';

const SMALL = ['--param', 'size=1MiB', '--param', 'children=2', '--param', 'steps=2'];

let folder: string;
let saved: string;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'cowlab-test-'));
  saved = join(folder, 'saved.json');
  await cowlab(['run', 'cow-growth', '--model', ...SMALL, '--export-json', saved]);
});
afterAll(() => {
  rmSync(folder, { recursive: true });
});

const read = (name: string): string => readFileSync(join(folder, name), 'utf8');

describe('report', () => {
  test('is HTML on standard output, and files where they are asked for', async () => {
    const plain = await cowlab(['report', saved]);
    expect(plain).toMatchObject({ code: 0, stderr: '' });
    expect(plain.stdout).toMatch(/^<!doctype html>/);
    const [html, markdown, csv] = ['a.html', 'a.md', 'a.csv'].map((name) => join(folder, name)) as [
      string,
      string,
      string,
    ];
    const files = ['--html', html, '--markdown', markdown, '--csv', csv];
    expect(await cowlab(['report', saved, saved, ...files])).toMatchObject({ code: 0, stdout: '' });
    expect(read('a.html')).toContain('results 1, 2 compared');
    expect(read('a.md')).toMatch(/^# cowlab report/);
    expect(read('a.csv')).toMatch(/^result number,experiment,/);
  });

  test('of one kind is on standard output where the file is called -', async () => {
    const csv = await cowlab(['report', saved, '--csv', '-', '--markdown', join(folder, 'c.md')], { cwd: folder });
    expect(csv).toMatchObject({ code: 0, stderr: '' });
    expect(csv.stdout).toMatch(/^result number,experiment,/);
    expect(read('c.md')).toMatch(/^# cow-growth: /);
    const markdown = await cowlab(['report', saved, '--markdown', '-'], { cwd: folder });
    expect(markdown.stdout).toBe(read('c.md'));
    const html = await cowlab(['report', saved, '--html', '-'], { cwd: folder });
    expect(html.stdout).toMatch(/^<!doctype html>/);
    expect(existsSync(join(folder, '-'))).toBe(false);
  });

  test('of what is no result, or to where nothing can be written, exits with 2 and says why', async () => {
    const other = join(folder, 'other.json');
    writeFileSync(other, '{"experiment": "cow-growth"}');
    const wrong = await cowlab(['report', other]);
    expect(wrong.code).toBe(2);
    expect(unbroken(wrong.stderr)).toMatch(/other.json is not a result of cowlab run --json/);
    const nowhere = await cowlab(['report', saved, '--html', join(folder, 'none', 'a.html')]);
    expect(nowhere.code).toBe(2);
    expect(nowhere.stderr).toMatch(/ENOENT/);
  });
});

describe('run', () => {
  test('writes each kind of file, more than one where asked', async () => {
    const to = (name: string): string => join(folder, name);
    const files = ['--export-html', to('b.html'), '--export-html', to('c.html'), '--export-markdown', to('b.md')];
    const args = ['run', 'cow-growth', ...SMALL, ...files, '--export-csv', to('b.csv'), '--export-json', to('b.json')];
    expect((await cowlab(args)).code).toBe(0);
    expect(read('b.html')).toBe(read('c.html'));
    expect(read('b.html')).toContain('measured on the kernel');
    expect(read('b.md')).toContain('**PASS**');
    // Five observations with one process before the fork and three after it, and a row of the tree for each.
    expect(read('b.csv').trimEnd().split('\n')).toHaveLength(1 + 2 + 3 * 4);
    expect(JSON.parse(read('b.json'))).toMatchObject({ experiment: 'cow-growth' });
  });

  test.each([
    ['--export-json', /^\{[^]*"experiment": "cow-growth"[^]*\}\n$/],
    ['--export-html', /^<!doctype html>[^]*<\/html>\s*$/],
    ['--export-markdown', /^# cow-growth: [^]*<\/details>\n$/],
    ['--export-csv', /^result number,experiment,.*\n[^]*\n$/],
  ])('%s - is standard output, and nothing else is', async (option, form) => {
    const { code, stdout } = await cowlab(['run', 'cow-growth', ...SMALL, '--model', option, '-'], { cwd: folder });
    expect(code).toBe(0);
    expect(stdout).toMatch(form);
    expect(stdout).not.toMatch(/Why it is so/);
    expect(existsSync(join(folder, '-'))).toBe(false);
  });

  test.each([
    [['run', 'cow-growth', '--export-csv', '-', '--export-html', '-'], /name files for the others/],
    [['run', 'cow-growth', '--export-csv', '-', '--json'], /--json or one file named -/],
    [['watch', '--export-csv', '-', '--json', '--', 'echo', 'started'], /--json or one file named -/],
    [['watch', '--export-csv', '-', '--export-json', '-', '--', 'echo', 'started'], /name files for the others/],
  ])('%j asks more of standard output than it can be', async (args, message) => {
    const { code, stdout, stderr } = await cowlab(args, { cwd: folder });
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
    expect(unbroken(stderr)).toMatch(message);
    expect(existsSync(join(folder, '-'))).toBe(false);
  });
});

describe('a file that cannot be written ends a command with 2 before anything is begun:', () => {
  const WATCHED = ['--pid', String(process.pid)];

  test.each(['--export-json', '--export-html', '--export-markdown', '--export-csv'])('run %s', async (option) => {
    const { code, stdout, stderr } = await cowlab(['run', 'cow-growth', option, folder]);
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
    expect(unbroken(stderr)).toMatch(/^cowlab: EISDIR: .*: name a file in it\n$/);
  });

  test.each(['--html', '--markdown', '--csv'])('report %s', async (option) => {
    const { code, stdout, stderr } = await cowlab(['report', saved, option, folder]);
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
    expect(unbroken(stderr)).toMatch(/^cowlab: EISDIR: .*: name a file in it\n$/);
  });

  test.each([
    ['--export-json', '', WATCHED, /^cowlab: EISDIR: .*: name a file in it\n$/],
    ['--export-csv', '', WATCHED, /^cowlab: EISDIR: .*: name a file in it\n$/],
    ['--export-json', 'none/a', ['--', 'echo', 'started'], /^cowlab: ENOENT: .*: make its directory first, or name/],
    ['--export-csv', 'saved.json/a', ['--', 'echo', 'started'], /^cowlab: ENOTDIR: .*: name a file that you may write/],
  ])('watch %s, a file named %j, %j', async (option, name, watched, message) => {
    const { code, stdout, stderr } = await cowlab(['watch', option, join(folder, name), ...watched]);
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
    expect(unbroken(stderr)).toMatch(message);
  });
});
