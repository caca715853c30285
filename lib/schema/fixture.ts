/**
 * What `cowlab hold` prints, a line of JSON each: the truth about processes that hold still, or why there is none. What is
 * written here is the model's, and the kernel has been asked whether it is so.
 */
import Type from 'typebox';
import { FigureSchema } from './figure-schema.js';
import { FailureSchema, ProcessObservationSchema, RegionObservationSchema } from './step.js';
import { CheckSchema, ParamsSchema } from './result.js';
import { SCHEMA_ID } from './schema-id.js';

const Count = Type.Integer({ minimum: 0 });
const FiguresKb = Type.Record(Type.String(), FigureSchema);

/** Sums over the regions of a process, or of all processes. */
const sums = {
  /** Figures of smaps under the kernel's names. */
  smapsKb: FiguresKb,
  /** Private_Clean, Private_Dirty and Private_Hugetlb together. */
  ussKb: FigureSchema,
  /** Pages by state; a page counts once in each process that has it. */
  counts: Type.Record(Type.String(), FigureSchema),
};

export const HeldRegionSchema = Type.Object({
  ...RegionObservationSchema.properties,
  /** Where it begins, in hexadecimal as in /proc/PID/maps. */
  address: Type.String({ pattern: '^[0-9a-f]+$' }),
  lengthBytes: Count,
  /** Figures of smaps that the kernel shows, and of which the model knows no single number, such as Referenced. */
  measuredKb: Type.Record(Type.String(), Type.Number()),
});
export type HeldRegion = Type.Static<typeof HeldRegionSchema>;

/** What a process has beside its regions (its program, stack, guard pages): measured only. */
export const OutsideSchema = Type.Object({
  smapsKb: Type.Record(Type.String(), Type.Number()),
  ussKb: Type.Number(),
  vmas: Count,
});
export type Outside = Type.Static<typeof OutsideSchema>;

export const HeldProcessSchema = Type.Object({
  process: ProcessObservationSchema.properties.process,
  pid: Type.Integer({ minimum: 1 }),
  ppid: Type.Integer({ minimum: 0 }),
  /** Field 22 of /proc/PID/stat: with the pid, which no other process had or will have. */
  startTimeTicks: Count,
  regions: Type.Array(HeldRegionSchema),
  ...sums,
  outside: OutsideSchema,
});
export type HeldProcess = Type.Static<typeof HeldProcessSchema>;

export const TruthSchema = Type.Object({
  $schema: Type.Literal(SCHEMA_ID.fixture),
  schemaVersion: Type.Literal(1),
  fixture: Type.String(),
  params: ParamsSchema,
  kernel: Type.String(),
  pageSizeBytes: Type.Integer({ minimum: 4096 }),
  /** How many steps have been made since the start. */
  step: Count,
  /** What has happened since the truth before, in a sentence. */
  did: Type.String(),
  /** Whether `step` would do anything. */
  more: Type.Boolean(),
  /** A fork that was refused in this step. */
  refused: Type.Optional(FailureSchema),
  processes: Type.Array(HeldProcessSchema),
  totals: Type.Object({
    processes: Count,
    ...sums,
    /** Page frames behind the regions: a page that several processes share is one. What the tree really takes. */
    frames: FigureSchema,
  }),
  /** The frames behind each region, in all processes together. */
  frames: Type.Record(Type.String(), FigureSchema),
  checked: Type.Object({
    /** Figures that the kernel was found to give too. None was found to differ. */
    figures: Count,
    /** What the model says and this kernel, or this privilege, does not show. */
    unchecked: Type.Array(Type.String()),
  }),
});
export type Truth = Type.Static<typeof TruthSchema>;

export const HoldErrorSchema = Type.Object({
  error: Type.String(),
  /** Where model and kernel differ, so that neither is the truth. */
  differences: Type.Optional(Type.Array(CheckSchema)),
});
export type HoldError = Type.Static<typeof HoldErrorSchema>;
