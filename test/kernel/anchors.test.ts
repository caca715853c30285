import { expect, test } from 'vitest';
import { openMachine } from '../../lib/machine/open.js';
import { anchors } from '../anchors.js';

test.each(anchors)('on the kernel: $name', async ({ run }) => {
  const machine = await openMachine();
  try {
    await run(machine);
    expect(machine.disturbances()).toEqual([]);
  } finally {
    await machine.close();
  }
});
