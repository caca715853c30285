/**
 * cowlab: a laboratory for fork() and copy-on-write on Linux.
 *
 * The plain API is fork(), mmap() and the readers; openMachine() and modelMachine() are the Machine that
 * experiments are written against.
 */
export { FeatureUnavailableError, ProcessEndedError, SystemError } from './errors.js';

export { fork } from './api/forked-process.js';
export type { AccessReport, ForkedProcess, ForkedRegion, Placement, RegionHandle } from './api/forked-process.js';
export { spawnFresh } from './api/fresh-process.js';
export { markCopies } from './api/copy-mark.js';
export type { CopyMark } from './api/copy-mark.js';
export { MessagePipe, SharedArea, SharedNumber } from './api/sharing.js';
export type { Gate, Guard, Ring, SharingReport } from './api/sharing.js';
export { spawn } from './api/spawn.js';
export type { SpawnOptions, SpawnStdio, SpawnedProgram } from './api/spawn.js';
export type { WriteMark, WriteMarkOptions, WriteMethod, WrittenPages } from './api/written.js';
export { mmap } from './api/mapping.js';
export type { Mapping } from './api/mapping.js';
export { createMemfd, createTemporaryFile } from './api/file-object.js';
export type { FileObject } from './api/file-object.js';
export type { RawMapSpec } from './api/map-spec.js';
export type { RawAdvice } from './api/command.js';

export { PAGE_STATES, countPages, readPageStates, readPagemap } from './proc/pagemap.js';
export { FrameSnapshot, readFrames } from './proc/frames.js';
export type { FateRuns, FrameHolder, PageFate, ProcessFate } from './proc/frames.js';
export { parseSmaps, parseSmapsRollup, readSmaps, readSmapsRollup } from './proc/smaps.js';
export { SMAPS_PERMS, parseSmapsTable, readSmapsRollupTable, readSmapsTable } from './proc/smaps-table.js';
export type { SmapsTable } from './proc/smaps-table.js';
export type { PagemapOptions, PagemapRange } from './proc/pagemap.js';
export type { Pid } from './proc/read.js';
export type { MapsVma, SmapsRollup, SmapsVma } from './proc/smaps.js';
export { parseMaps, readVma } from './proc/vma.js';
export type { VmaOptions } from './proc/vma.js';
export { readSharing } from './proc/sharers.js';
export type { MemorySharing, Relation, SharedMapping, Sharer } from './proc/sharers.js';
export { readProcessTree, readTreeMemory } from './proc/process-tree.js';
export type { ProcessMemory, TreeMemory, TreeProcess } from './proc/process-tree.js';
export { TreeWatch } from './proc/tree-watch.js';
export type { TreeSample, WatchOptions } from './proc/tree-watch.js';
export type { BrokenSharing, WatchedMemory } from './proc/watched-process.js';
export { commitFigures, parseMeminfo, readMeminfo } from './proc/meminfo.js';
export type { CommitFigures, Meminfo } from './proc/meminfo.js';
export { parseStat, parseStatm, readStat, readStatm } from './proc/stat.js';
export type { Stat, Statm } from './proc/stat.js';
export { parseStatus, readStatus } from './proc/status.js';
export type { Status } from './proc/status.js';
export { readVmstat } from './proc/vmstat.js';
export type { Vmstat } from './proc/vmstat.js';
export { pageSizeBytes, readHostFacts } from './proc/host.js';

export { findLeftBehind, restoreLeftBehind } from './api/system-changes.js';
export type { LeftBehind } from './api/system-changes.js';
export type { Journal, Restored, RestoreStep } from './api/journal.js';

export type {
  Access,
  CgroupSpec,
  ForkRefusal,
  Machine,
  MapSpec,
  MemoryObject,
  OvercommitSpec,
  PageChoice,
  PageRange,
  Process,
  Region,
  SystemChange,
  SystemMemory,
} from './machine/machine.js';
export { modelMachine, openMachine, replayOnLinux, replayOnModel } from './machine/open.js';
export type { OpenOptions, RootKind, WatchedMachine } from './machine/open.js';
export { compareTraces } from './machine/compare.js';
export { admitCountedFork, admitFork, strictMarginPages } from './machine/model/admission.js';

export type { AdmissionRule, CommitFacts, ForkVerdict } from './machine/model/admission.js';
export type { ModelOptions } from './machine/model/backend.js';

export { defineExperiment, parseParams } from './experiments/define.js';
export type {
  AnyExperiment,
  Conclusion,
  Experiment,
  MeasureContext,
  Measurement,
  Needs,
  ParamSpec,
  ParamSpecs,
  ParamsOf,
  RunContext,
} from './experiments/define.js';
export { experiments } from './experiments/catalogue.js';
export { predictExperiment, runExperiment } from './experiments/run.js';
export type { RunOptions } from './experiments/run.js';
export { predictFork } from './machine/linux/predict.js';
export type { ChargeReason, ForkPrediction, VmaCharge } from './machine/linux/predict.js';
export type { AdmissionVerdict, CauseName, ForkErrno, ForkFailureCause, Likelihood } from './proc/fork-failure.js';

export { holdFixture } from './fixtures/held.js';
export type { HeldFixture, HoldOptions } from './fixtures/held.js';
export { NoTruthError } from './fixtures/truth.js';
export { fixtures } from './fixtures/catalogue.js';
export type { AnyFixture, Fixture, FixtureStep, Started } from './fixtures/define.js';
export type { SavedTrace } from './fixtures/recorded.js';
export type { HeldProcess, HeldRegion, Truth } from './schema/fixture.js';

export type { Figure, Range, Unknown } from './schema/figure.js';
export { assumedFacts } from './schema/assumed-facts.js';
export type { PageRun } from './schema/selection.js';
export type { HostFacts } from './schema/facts.js';
export type { Check, Findings, ParamValues, ResultDocument } from './schema/result.js';
export type {
  Advice,
  CommitReading,
  ExitStatus,
  Failure,
  Observation,
  Outcome,
  PageState,
  Protection,
  Sharing,
  Step,
  Trace,
} from './schema/step.js';
