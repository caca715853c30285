import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ROOT, run } from './command.js';
import { pythonWith } from './python.js';

const README = readFileSync(join(ROOT, 'README.md'), 'utf8');
const CI = readFileSync(join(ROOT, '.ci/run'), 'utf8');

/** Inside the package, so that `import ... from 'cowlab'` finds it. */
const FOLDER = join(ROOT, 'build', 'readme');

interface Block {
  language: string;
  text: string;
}

const blocks: Block[] = [...README.matchAll(/^```(\w+)\n(.*?)^```$/gms)].map(([, language = '', text = '']) => ({
  language,
  text,
}));
const scripts = blocks.filter(({ language }) => language === 'js');
const pythons = blocks.filter(({ language }) => language === 'python');
const commands = blocks.filter(({ language }) => language === 'sh').flatMap(({ text }) => text.trim().split('\n'));

/** A comment on the first line names the file that a command then runs. */
function fileName(text: string, index: number): string {
  return /^\/\/ (\S+\.mjs)\n/.exec(text)?.[1] ?? `block-${String(index + 1)}.mjs`;
}

beforeAll(() => {
  mkdirSync(FOLDER, { recursive: true });
  // Else vitest would find ours.
  writeFileSync(join(FOLDER, 'vitest.config.mjs'), 'export default {};');
  scripts.forEach(({ text }, index) => {
    writeFileSync(join(FOLDER, fileName(text, index)), text);
  });
});
afterAll(() => {
  rmSync(FOLDER, { recursive: true });
});

describe('every code block of the README runs as it stands', () => {
  test('there are some', () => {
    expect(scripts.length).toBeGreaterThan(3);
    expect(commands.length).toBeGreaterThan(8);
    expect(pythons.length).toBeGreaterThan(0);
  });

  test.each(scripts.map(({ text }, index) => ({ name: fileName(text, index), text })))(
    '$name',
    async ({ name, text }) => {
      const tests = [join(ROOT, 'node_modules/vitest/vitest.mjs'), 'run', '--root', FOLDER, name];
      const args = name.endsWith('.test.mjs') ? tests : [join(FOLDER, name)];
      const { code, signal, stdout, stderr } = await run(process.execPath, args);
      expect(stderr).toBe('');
      expect({ code, signal }).toEqual({ code: 0, signal: null });
      // What a comment after console.log says is printed: numbers, where it gives them.
      const promised = [...text.matchAll(/console\.log\(.*\); \/\/ (.*)$/gm)].map(([, comment = '']) => comment);
      for (const comment of promised) {
        for (const [figure] of comment.matchAll(/(?:\w+: )?\d+n?/g)) expect(stdout).toContain(figure);
      }
    },
  );
});

describe('every Python script of the README runs as it stands', () => {
  const found = pythonWith('psutil');
  test.for(pythons.map(({ text }, index) => ({ text, name: `script ${index + 1}` })))(
    '$name',
    async ({ text }, context) => {
      if ('lacking' in found) return context.skip(found.lacking);
      const { code, stdout, stderr } = await run(found.python, ['-c', text]);
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
      const promised = [...text.matchAll(/^ *print\(.*\) {2}# (.*)$/gm)].map(([, comment = '']) => comment);
      expect(promised.length).toBeGreaterThan(0);
      for (const comment of promised) expect(stdout.split('\n')).toContain(comment);
    },
  );
});

describe('every command of the README runs as it stands', () => {
  test.each(commands.filter((command) => command.startsWith('npx cowlab')))(
    '%s',
    // A guest without KVM is emulated.
    { timeout: 600_000 },
    async (command) => {
      const { code, stderr } = await run('sh', ['-c', command.replace('./mine.mjs', join(FOLDER, 'mine.mjs'))]);
      expect({ code, stderr }).toMatchObject({ code: 0 });
    },
  );

  test.each(commands.filter((command) => !command.startsWith('npx cowlab')))('%s is run by .ci/run', (command) => {
    expect(CI.split('\n').map((line) => line.replace(/^retry /, '').trim())).toContain(command);
  });
});
