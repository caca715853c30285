import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { readHostFacts } from '../../lib/proc/host.js';
import { bounds } from '../../lib/schema/figure.js';
import type { Figure } from '../../lib/schema/figure.js';

test('a mark without CAP_SYS_ADMIN reads smaps once for each process that has the region', async () => {
  const program = [process.execPath, join(import.meta.dirname, 'copy-mark-reads.mjs')];
  const unprivileged = ['setpriv', '--bounding-set=-sys_admin', '--inh-caps=-sys_admin', ...program];
  const [file = '', ...args] = process.getuid?.() === 0 ? unprivileged : program;
  const { stdout } = await promisify(execFile)(file, args);
  const { readsAtMark, readsAfter, copied } = JSON.parse(stdout) as Record<string, unknown>;
  const [major, minor] = readHostFacts(process.pid).kernelVersion;
  // Before Linux 6.7 nobody without privilege can tell the zero page from a shared one.
  const tellsZero = major > 6 || (major === 6 && minor >= 7);
  expect({ readsAtMark, readsAfter }).toEqual({ readsAtMark: 2, readsAfter: tellsZero ? 2 : 0 });
  if (!tellsZero) {
    expect(copied).toEqual({ unknown: expect.stringMatching(/in a state that this kernel does not tell/) as string });
    return;
  }
  const { min, max } = bounds(copied as Figure);
  expect(min).toBeLessThanOrEqual(30);
  expect(max).toBeGreaterThanOrEqual(30);
});
