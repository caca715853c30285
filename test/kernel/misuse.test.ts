import { describe, expect, test } from 'vitest';
import { fork } from '../../lib/api/forked-process.js';
import { createMemfd } from '../../lib/api/file-object.js';
import { mmap } from '../../lib/api/mapping.js';
import { openMachine } from '../../lib/machine/open.js';
import { readSmaps } from '../../lib/proc/smaps.js';

const loose = (value: unknown) => value as never;

/** Values that are wrong wherever a number of pages, a region, a choice or a specification is wanted. */
const WRONG = [undefined, null, NaN, -1, 1.5, Infinity, 2 ** 60, 10n, 'ten', Symbol('ten'), {}, [], () => undefined];

describe('the public API refuses what is wrong, by the name of the argument, and nothing has changed', () => {
  test('mmap, and the methods of a mapping', () => {
    const before = readSmaps('self').filter(({ vmFlags }) => vmFlags.includes('dd')).length;
    for (const wrong of WRONG) {
      expect(() => mmap(loose(wrong))).toThrow(/^(spec must be an object|give either length|pages |length )/);
      expect(() => mmap(loose({ pages: wrong }))).toThrow(/^(pages |give either length)/);
      if (wrong !== undefined) {
        expect(() => mmap({ pages: 1, sharing: loose(wrong) })).toThrow(/^sharing /);
        expect(() => mmap({ pages: 1, object: loose(wrong) })).toThrow(/^object must be/);
      }
    }
    const object = createMemfd(2);
    expect(() => mmap({ pages: 3, object })).toThrow(/do not lie inside the memfd/);
    object.close();
    expect(() => mmap({ pages: 1, object })).toThrow(/object has been closed/);
    const memory = mmap({ pages: 4 });
    expect(() => memory.write(loose({ first: 5 }))).toThrow(/^first /);
    expect(() => memory.write({}, loose(1))).toThrow(TypeError);
    expect(() => {
      memory.advise(loose('sequential'));
    }).toThrow(/^advice must be one of/);
    memory.unmap();
    memory.unmap();
    expect(() => memory.write()).toThrow('the mapping has been unmapped');
    expect(() => memory.buffer).toThrow('the mapping has been unmapped');
    expect(readSmaps('self').filter(({ vmFlags }) => vmFlags.includes('dd'))).toHaveLength(before);
  });

  test('a forked process and its regions', async () => {
    const process = fork();
    const other = fork();
    try {
      const region = await process.map({ pages: 4 });
      const foreign = await other.map({ pages: 4 });
      const vmas = readSmaps(process.pid).length;
      for (const wrong of [...WRONG, foreign]) {
        await expect(process.write(loose(wrong))).rejects.toThrow(/^region /);
        await expect(process.grow(loose(wrong), 9)).rejects.toThrow(/^region /);
      }
      for (const wrong of WRONG) {
        await expect(process.grow(region, loose(wrong))).rejects.toThrow(/^pages /);
        if (wrong === undefined || typeof wrong === 'object' || typeof wrong === 'function') continue;
        await expect(process.write(region, loose(wrong))).rejects.toThrow(/^range must be an object/);
        await expect(process.exit(loose(wrong))).rejects.toThrow(/^code /);
        await expect(process.kill(loose(wrong))).rejects.toThrow(/^signal /);
        await expect(process.protect(region, loose(wrong))).rejects.toThrow(/^protection /);
      }
      await expect(process.kill(loose('SIGSTOP'))).rejects.toThrow(/^signal must be one of/);
      await expect(process.unmap(region, { first: 3, pages: 2 })).rejects.toThrow(RangeError);
      expect(readSmaps(process.pid)).toHaveLength(vmas);
      expect((await process.write(region)).minorFaults).toBe(4);
    } finally {
      await process.close();
      await other.close();
    }
  });

  test('a machine: an object of another machine is none of this one', async () => {
    const [one, two] = [await openMachine(), await openMachine()];
    try {
      const foreign = await two.createMemfd(2);
      await expect(one.root.map({ pages: 1, backing: foreign })).rejects.toThrow(/^backing /);
      expect(one.trace).toEqual([]);
    } finally {
      await one.close();
      await two.close();
    }
  });
});
