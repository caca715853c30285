import { describe, expect, it } from 'vitest';
import { hugeMutations, mutations } from '../../lib/machine/model/mutation.js';
import { modelMachine } from '../../lib/machine/open.js';
import { anchors, anchorsFor } from '../anchors.js';
import { testFacts } from '../facts.js';
import { noticing } from '../noticing.js';

describe('the model gives the figures that were computed by hand', () => {
  for (const { name, forbidsZeroPage, run } of anchors) {
    it(name, async () => {
      await using machine = modelMachine({ ...testFacts, forbidsZeroPage: forbidsZeroPage ?? false });
      await run(machine);
    });
  }
});

describe('the model of a kernel that forbids the zero page', () => {
  const facts = { ...testFacts, forbidsZeroPage: true };
  it.each(anchorsFor(facts))('gives the figures that were computed by hand: $name', async ({ run }) => {
    await using machine = modelMachine(facts);
    await run(machine);
  });

  it('is another than that of the others', async () => {
    expect(await noticing(anchorsFor(testFacts), facts)).toHaveLength(6);
  });
});

describe('the anchors notice a wrong rule', () => {
  it.each([...mutations, ...hugeMutations])('%s', async (mutation) => {
    expect(await noticing(anchorsFor(testFacts), testFacts, { mutation })).not.toEqual([]);
  });
});
