/**
 * The trace: what a program did to a Machine, step by step, and what came of each step.
 * It is plain JSON, so that it can be saved, replayed on the model or on another machine, and compared.
 * Names: processes are 'root', 'root.1', 'root.1.2' (the second child of root's first); regions are 'r1', 'r2';
 * memory objects (a memfd or a file that regions map) are 'o1', 'o2'.
 */
import Type from 'typebox';
import { HugetlbPoolSchema } from './facts.js';
import { FigureSchema } from './figure-schema.js';
import { SelectionSchema } from './selection-schema.js';

const PageCount = Type.Integer({ minimum: 0, maximum: 2 ** 40 });
const ProcessName = Type.String({ pattern: '^root(\\.[0-9]+)*$' });
const RegionName = Type.String({ pattern: '^r[0-9]+$' });
const ObjectName = Type.String({ pattern: '^o[0-9]+$' });

export const SharingSchema = Type.Union([Type.Literal('private'), Type.Literal('shared')]);
export type Sharing = Type.Static<typeof SharingSchema>;

/** 'none' is PROT_NONE, 'r' PROT_READ, 'rw' PROT_READ|PROT_WRITE. */
export const ProtectionSchema = Type.Union([Type.Literal('none'), Type.Literal('r'), Type.Literal('rw')]);
export type Protection = Type.Static<typeof ProtectionSchema>;

/** The madvise(2) advice that the machine knows; each name is the kernel's MADV_ constant. */
export const AdviceSchema = Type.Union([
  Type.Literal('dontfork'),
  Type.Literal('dofork'),
  Type.Literal('wipeonfork'),
  Type.Literal('keeponfork'),
  Type.Literal('mergeable'),
  Type.Literal('unmergeable'),
  Type.Literal('dontneed'),
  Type.Literal('pageout'),
  Type.Literal('populate-read'),
  Type.Literal('populate-write'),
]);
export type Advice = Type.Static<typeof AdviceSchema>;

const onRegion = { process: ProcessName, region: RegionName };
const onRange = { ...onRegion, first: PageCount, pages: PageCount };

export const StepSchema = Type.Union([
  /** A memfd (born as one hole) or a temporary file (born with every page in the page cache). */
  Type.Object({
    op: Type.Literal('create-object'),
    object: ObjectName,
    backing: Type.Union([Type.Literal('memfd'), Type.Literal('file')]),
    pages: PageCount,
  }),
  /** write(2) into an object by the harness, whole pages. */
  Type.Object({ op: Type.Literal('write-object'), object: ObjectName, first: PageCount, pages: PageCount }),
  Type.Object({
    op: Type.Literal('map'),
    ...onRegion,
    pages: PageCount,
    sharing: SharingSchema,
    /** 'anonymous' or the name of an object. */
    backing: Type.Union([Type.Literal('anonymous'), ObjectName]),
    /** First page of the object that is mapped; 0 for anonymous memory. */
    offset: PageCount,
    protection: ProtectionSchema,
    populate: Type.Boolean(),
    noreserve: Type.Boolean(),
    /** MADV_HUGEPAGE. Absent: no, and MADV_NOHUGEPAGE. */
    hugePages: Type.Optional(Type.Boolean()),
    /** MAP_HUGETLB. Absent: no. */
    hugetlb: Type.Optional(Type.Boolean()),
  }),
  Type.Object({ op: Type.Literal('write'), ...onRegion, selection: SelectionSchema }),
  Type.Object({ op: Type.Literal('read'), ...onRegion, selection: SelectionSchema }),
  Type.Object({ op: Type.Literal('protect'), ...onRange, protection: ProtectionSchema }),
  Type.Object({ op: Type.Literal('advise'), ...onRange, advice: AdviceSchema }),
  /** mremap to a greater length; the pages keep their numbers. */
  Type.Object({ op: Type.Literal('grow'), ...onRegion, pages: PageCount }),
  Type.Object({ op: Type.Literal('unmap'), ...onRange }),
  Type.Object({ op: Type.Literal('fork'), process: ProcessName, child: ProcessName }),
  /** vm.overcommit_memory of the whole machine and, where they are given, what CommitLimit and the reserve are made of. */
  Type.Object({
    op: Type.Literal('overcommit'),
    mode: Type.Union([Type.Literal(0), Type.Literal(1), Type.Literal(2)]),
    /** vm.overcommit_kbytes, which unsets the ratio. */
    kbytes: Type.Optional(Type.Integer({ minimum: 1 })),
    /** vm.overcommit_ratio in percent, which unsets kbytes. */
    ratio: Type.Optional(Type.Integer({ minimum: 0 })),
    adminReserveKbytes: Type.Optional(Type.Integer({ minimum: 0 })),
  }),
  /** vm.nr_hugepages of the whole machine: pages of the default huge size in the pool. */
  Type.Object({ op: Type.Literal('hugetlb'), pages: PageCount }),
  /** ksmd goes through all mergeable memory until it finds nothing more to merge. */
  Type.Object({ op: Type.Literal('merge') }),
  /** Swap is added to the machine: a file of so many pages, one of which is its header's. */
  Type.Object({ op: Type.Literal('swap'), pages: PageCount }),
  /** Limits of a cgroup that the machine makes for its processes: memory.max and pids.max. */
  Type.Object({
    op: Type.Literal('cgroup'),
    memoryMaxBytes: Type.Optional(Type.Integer({ minimum: 4096 })),
    pidsMax: Type.Optional(Type.Integer({ minimum: 1 })),
  }),
  /** The process moves into that cgroup; those it forks from then on are born there. */
  Type.Object({ op: Type.Literal('join'), process: ProcessName }),
  /** The process leaves by _exit(code). */
  Type.Object({ op: Type.Literal('exit'), process: ProcessName, code: Type.Integer({ minimum: 0, maximum: 255 }) }),
  Type.Object({ op: Type.Literal('kill'), process: ProcessName, signal: Type.String({ pattern: '^SIG[A-Z0-9]+$' }) }),
  Type.Object({ op: Type.Literal('observe'), label: Type.String() }),
]);
export type Step = Type.Static<typeof StepSchema>;
export type StepOf<Op extends Step['op']> = Extract<Step, { op: Op }>;

/** 'unknown' is for what this kernel or privilege does not tell. */
export const PageStateSchema = Type.Union([
  Type.Literal('exclusive'),
  Type.Literal('shared'),
  Type.Literal('zero'),
  Type.Literal('swapped'),
  Type.Literal('not-present'),
  Type.Literal('unknown'),
]);
export type PageState = Type.Static<typeof PageStateSchema>;

/** Page states, run-length encoded: [how many pages, their state]. Pages that are not mapped count as not-present. */
export const StateRunsSchema = Type.Array(Type.Tuple([PageCount, PageStateSchema]));
export type StateRuns = Type.Static<typeof StateRunsSchema>;

export const VmaSchema = Type.Object({
  /** First page of the VMA, counted from the region's start. */
  first: PageCount,
  pages: PageCount,
  protection: ProtectionSchema,
  /** VM_ACCOUNT: its length is charged, and asked for again at each fork (smaps `ac`). */
  accounted: Type.Boolean(),
  /** smaps `dc`. */
  dontfork: Type.Boolean(),
  /** smaps `wf`. */
  wipeonfork: Type.Boolean(),
  /** smaps `mg`. Absent: no. */
  mergeable: Type.Optional(Type.Boolean()),
});
export type Vma = Type.Static<typeof VmaSchema>;

export const RegionObservationSchema = Type.Object({
  region: RegionName,
  /** Length in pages, holes included. */
  pages: PageCount,
  states: StateRunsSchema,
  /** Pages by state. */
  counts: Type.Record(Type.String(), FigureSchema),
  /** The figures of smaps under the kernel's names, in kB, summed over the region's VMAs. */
  smapsKb: Type.Record(Type.String(), FigureSchema),
  /** The VMAs that the region consists of, in address order. */
  vmas: Type.Array(VmaSchema),
});
export type RegionObservation = Type.Static<typeof RegionObservationSchema>;

export const ProcessObservationSchema = Type.Object({
  process: ProcessName,
  regions: Type.Array(RegionObservationSchema),
});
export type ProcessObservation = Type.Static<typeof ProcessObservationSchema>;

export const ObservationSchema = Type.Object({
  label: Type.String(),
  processes: Type.Array(ProcessObservationSchema),
  /**
   * How many page frames stand behind each region in all processes together: the memory that it really takes, in pages, by
   * the identity of the pages. Absent where frames are not shown (without CAP_SYS_ADMIN).
   */
  frames: Type.Optional(Type.Record(RegionName, FigureSchema)),
});
export type Observation = Type.Static<typeof ObservationSchema>;

/** A system call that failed, as the kernel said it. */
export const FailureSchema = Type.Object({
  code: Type.String(),
  syscall: Type.String(),
  /** Which rule refused, where it is known. */
  why: Type.Optional(Type.String()),
  vmaPages: Type.Optional(FigureSchema),
  allowedPages: Type.Optional(FigureSchema),
});
export type Failure = Type.Static<typeof FailureSchema>;

/** How a process ended: exactly one of code and signal. Figures of rusage come from wait4 and are measured only. */
export const ExitStatusSchema = Type.Object({
  code: Type.Optional(Type.Integer()),
  signal: Type.Optional(Type.String()),
  minorFaults: Type.Optional(Type.Number()),
  majorFaults: Type.Optional(Type.Number()),
  maxRssBytes: Type.Optional(Type.Number()),
  userMicroseconds: Type.Optional(Type.Number()),
  systemMicroseconds: Type.Optional(Type.Number()),
});
export type ExitStatus = Type.Static<typeof ExitStatusSchema>;

/**
 * What a fork under strict overcommit was judged by. Committed_AS is that of the whole machine, which no model can
 * know, so a replay takes it from here; what the process is charged it predicts, and the two are compared.
 */
export const CommitReadingSchema = Type.Object({
  /** Committed_AS right before the fork. */
  committedPages: PageCount,
  /**
   * The kernel judges by a counter that is kept in parts, one for each CPU [vm_committed_as]. True: they were added up
   * right before the fork, which was made on one CPU, so that only its own charges can be missing.
   */
  folded: Type.Boolean(),
  /** By how much others have changed Committed_AS during the fork: so far may the counter be from what is said here. */
  slackPages: PageCount,
  /** total_vm of the process that forks. */
  totalPages: PageCount,
  /** Lengths of its VMAs that are charged, in address order. */
  vmaPages: Type.Array(PageCount),
});
export type CommitReading = Type.Static<typeof CommitReadingSchema>;

/**
 * What a step of a process in a cgroup with a memory limit started from. Kernel memory (page tables, stacks, slab) is
 * charged to the cgroup too, and no model can know it; so a replay takes from here what is used and how large each
 * process is, and predicts what the step adds.
 */
export const MemoryReadingSchema = Type.Object({
  /** memory.current (v1: memory.usage_in_bytes) right before the step. The model says here what it expects. */
  usagePages: FigureSchema,
  /** Whoever of the others is killed runs before the process whose step it is, and so gives its memory back at once. */
  victimsFirst: Type.Boolean(),
  /** By which the OOM killer chooses, as it was right before the step, of each process of the cgroup. */
  processes: Type.Array(Type.Object({ process: ProcessName, residentPages: PageCount, pageTablePages: PageCount })),
});
export type MemoryReading = Type.Static<typeof MemoryReadingSchema>;

export const OutcomeSchema = Type.Object({
  /** The system call was refused and nothing changed. */
  failure: Type.Optional(FailureSchema),
  /** The outcome cannot be predicted, and why; a replay then follows the recorded one. */
  uncertain: Type.Optional(Type.String()),
  /** The process ended in this step: by exit, by kill, or because it touched what it may not. */
  ended: Type.Optional(ExitStatusSchema),
  /** Minor faults of the access (write, read, advise populate). */
  minorFaults: Type.Optional(FigureSchema),
  majorFaults: Type.Optional(FigureSchema),
  /** Both together, where the model does not know which are major. */
  faults: Type.Optional(FigureSchema),
  /** Time of the access or the call alone, measured inside the process. No model predicts it. */
  elapsedNs: Type.Optional(Type.Number()),
  observation: Type.Optional(ObservationSchema),
  /** Of a fork under strict overcommit. */
  commit: Type.Optional(CommitReadingSchema),
  /** CommitLimit and Committed_AS after vm.overcommit_memory was set. */
  commitLimitPages: Type.Optional(FigureSchema),
  committedPages: Type.Optional(PageCount),
  /** The pool after vm.nr_hugepages was set, which a replay takes from here. */
  hugetlbPool: Type.Optional(HugetlbPoolSchema),
  /** Of all merged pages: how many there are, and the mappings of each beyond the first (pages_shared, pages_sharing). */
  merged: Type.Optional(Type.Object({ sharedPages: FigureSchema, sharingPages: FigureSchema })),
  /** Of a step of a process in a cgroup with a memory limit. */
  memory: Type.Optional(MemoryReadingSchema),
  /** Processes that the OOM killer ended in this step, beside the one whose step it is. */
  killed: Type.Optional(Type.Array(ProcessName)),
});
export type Outcome = Type.Static<typeof OutcomeSchema>;

export const TraceSchema = Type.Array(Type.Object({ step: StepSchema, outcome: OutcomeSchema }));
export type Trace = Type.Static<typeof TraceSchema>;
export type TraceEntry = Trace[number];
