import { expect, test } from 'vitest';
import { openMachine } from '../../lib/machine/open.js';
import { whyNoHugePages } from '../../lib/proc/huge-pages.js';
import { anchors } from '../anchors.js';

test.for(anchors)('on the kernel: $name', async ({ forbidsZeroPage, hugePages, ksm, run }, { skip }) => {
  const why = hugePages ? whyNoHugePages() : undefined;
  if (why !== undefined) skip(why);
  const machine = await openMachine();
  try {
    const { facts } = machine;
    if (forbidsZeroPage === true && !facts.forbidsZeroPage) skip('this kernel has a zero page, as most have');
    if (forbidsZeroPage === false && facts.forbidsZeroPage) skip('this kernel forbids the zero page');
    if (ksm && facts.hasKsm === false) skip('this kernel has no KSM');
    if (ksm && facts.ksmRuns) skip('ksmd runs, and so merges what the anchors count');
    await run(machine);
    expect(machine.disturbances()).toEqual([]);
  } finally {
    await machine.close();
  }
});
