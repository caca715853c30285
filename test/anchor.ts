/** What an anchor is, and what anchors say of an observation. */
import { expect } from 'vitest';
import type { Observation, RegionObservation } from '../lib/schema/step.js';
import type { Machine, Process, Region } from '../lib/machine/machine.js';

export interface Anchor {
  /** The claim. */
  name: string;
  /** Whether it is about kernels that forbid the zero page, or about the others; undefined: it holds on all. */
  forbidsZeroPage?: boolean;
  /** It needs transparent huge pages. */
  hugePages?: true;
  /** It needs a kernel with KSM. */
  ksm?: true;
  run: (machine: Machine) => Promise<void>;
}

/** What one process shows of one region. */
export function at(observation: Observation, process: Process, region: Region): RegionObservation {
  const found = observation.processes
    .find((each) => each.process === process.name)
    ?.regions.find((each) => each.region === region.name);
  if (!found) throw new Error(`${process.name} has no ${region.name} in the observation ${observation.label}`);
  return found;
}

/** Whether the kernel, or the one that the model plays, is of this version or later. */
export function isSince(machine: Machine, wantedMajor: number, wantedMinor: number): boolean {
  const [major, minor] = machine.facts.kernelVersion;
  return major > wantedMajor || (major === wantedMajor && minor >= wantedMinor);
}

/** Expects figures of smaps, in kB, and page counts. */
export async function expectRegion(
  machine: Machine,
  process: Process,
  region: Region,
  smapsKb: Record<string, number>,
  counts: Record<string, number> = {},
): Promise<void> {
  const seen = at(await machine.observe(`${process.name} ${region.name}`), process, region);
  expect(seen.smapsKb).toMatchObject(smapsKb);
  expect(seen.counts).toMatchObject(counts);
}

export async function minorFaults(access: Promise<{ minorFaults: unknown }>): Promise<unknown> {
  return (await access).minorFaults;
}
