import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { readForkFailureEvidence } from '../../lib/proc/fork-evidence.js';
import { explainForkFailure } from '../../lib/proc/fork-failure.js';

describe('the evidence about this process', () => {
  const evidence = readForkFailureEvidence('self', { fork: 'admitted', why: 'not asked' });

  it('is what /proc shows', () => {
    expect(evidence.pid).toBe(process.pid);
    expect(evidence.uid).toBe(process.getuid?.());
    expect(evidence.childPidNamespace).toBe('own');
    expect(evidence.mapCount).toBeGreaterThan(10);
    expect(evidence.maxMapCount).toBe(Number(readFileSync('/proc/sys/vm/max_map_count', 'utf8')));
    expect(evidence.threadsMax).toBe(Number(readFileSync('/proc/sys/kernel/threads-max', 'utf8')));
    expect(evidence.schedulingPolicy).toBe(0);
    expect(evidence.kernelBytesNeeded).toBeGreaterThan(0);
    expect(evidence.memAvailableBytes).toBeGreaterThan(0);
  });

  it('has the limit that Node sees, and at least our own threads as tasks of the user', () => {
    const { userLimits } = process.report.getReport() as { userLimits: Record<string, { soft: number | string }> };
    const said = userLimits['max_user_processes']?.soft;
    expect(evidence.nprocLimit).toBe(said === 'unlimited' ? Infinity : said);
    expect(evidence.userTasks).toBeGreaterThan(1);
    expect(evidence.systemTasks).toBeGreaterThan(1);
  });

  it('makes no cause of ENOMEM certain, since a fork has just succeeded', () => {
    for (const { cause, likelihood } of explainForkFailure('ENOMEM', evidence).causes) {
      expect({ cause, likelihood }).not.toMatchObject({ likelihood: 'certain' });
    }
    for (const { cause, likelihood } of explainForkFailure('EAGAIN', evidence).causes) {
      expect({ cause, likelihood }).not.toMatchObject({ likelihood: 'certain' });
    }
  });
});
