import { describe, expect, it } from 'vitest';
import { mutations } from '../../lib/machine/model/mutation.js';
import { modelMachine } from '../../lib/machine/open.js';
import { anchors } from '../anchors.js';
import { testFacts } from '../facts.js';

describe('the model gives the figures that were computed by hand', () => {
  for (const { name, run } of anchors) {
    it(name, async () => {
      await using machine = modelMachine(testFacts);
      await run(machine);
    });
  }
});

describe('the anchors notice a wrong rule', () => {
  it.each(mutations)('%s', async (mutation) => {
    const noticed: string[] = [];
    for (const { name, run } of anchors) {
      await using machine = modelMachine(testFacts, { mutation });
      await run(machine).catch(() => noticed.push(name));
    }
    expect(noticed).not.toEqual([]);
  });
});
