/** The result document: one experiment, what was predicted, what was measured, and whether they agree. */
import Type from 'typebox';
import { HostFactsSchema } from './facts.js';
import { FigureSchema } from './figure-schema.js';
import { TraceSchema } from './step.js';

export const CheckSchema = Type.Object({
  name: Type.String(),
  unit: Type.String(),
  /** Where the expectation comes from: the model, a bound, another measurement, or a calculation by hand. */
  basis: Type.Union([Type.Literal('model'), Type.Literal('bound'), Type.Literal('comparison'), Type.Literal('anchor')]),
  expected: FigureSchema,
  measured: FigureSchema,
  /** 0 for what is exact; what a range or an unknown allows is said in `expected` with its reason. */
  tolerance: Type.Literal(0),
  /** Null where the expectation or the measurement is unknown: then nothing was checked. */
  pass: Type.Union([Type.Boolean(), Type.Null()]),
});
export type Check = Type.Static<typeof CheckSchema>;

const CellSchema = Type.Union([Type.String(), Type.Number()]);

export const TableSchema = Type.Object({
  title: Type.String(),
  columns: Type.Array(Type.String()),
  rows: Type.Array(Type.Array(CellSchema)),
});
export type Table = Type.Static<typeof TableSchema>;

export const PlotSchema = Type.Object({
  title: Type.String(),
  xLabel: Type.String(),
  yLabel: Type.String(),
  /** All series share these positions. */
  x: Type.Array(Type.Number()),
  series: Type.Array(Type.Object({ name: Type.String(), y: Type.Array(Type.Number()) })),
});
export type Plot = Type.Static<typeof PlotSchema>;

/** A named result of an experiment, such as the threshold that it found. */
export const NamedFigureSchema = Type.Object({
  name: Type.String(),
  unit: Type.String(),
  value: FigureSchema,
  /** Whether a summary shows it. */
  headline: Type.Boolean(),
});
export type NamedFigure = Type.Static<typeof NamedFigureSchema>;

/** What an experiment found on one machine: the model's is the prediction, the kernel's the measurement. */
export const FindingsSchema = Type.Object({
  figures: Type.Array(NamedFigureSchema),
  tables: Type.Array(TableSchema),
  plots: Type.Array(PlotSchema),
  notes: Type.Array(Type.String()),
});
export type Findings = Type.Static<typeof FindingsSchema>;

export const ClaimOutcomeSchema = Type.Union([
  Type.Literal('holds'),
  Type.Literal('holds only if'),
  Type.Literal('refuted'),
  Type.Literal('undecided'),
]);

export const EnvironmentSchema = Type.Object({
  platform: Type.String(),
  kernel: Type.String(),
  arch: Type.String(),
  node: Type.String(),
  cowlab: Type.String(),
  pageSizeBytes: Type.Number(),
  memTotalBytes: Type.Number(),
  swapTotalBytes: Type.Number(),
  overcommit: Type.String(),
  commitLimitBytes: Type.Number(),
  thp: Type.String(),
  privileged: Type.Boolean(),
  startedAt: Type.String(),
  /** Where `cowlab vm` ran it: emulated (tcg) or not (kvm). */
  virtualMachine: Type.Optional(
    Type.Object({
      accelerator: Type.Union([Type.Literal('kvm'), Type.Literal('tcg')]),
      memoryBytes: Type.Number(),
      cpus: Type.Number(),
    }),
  ),
});
export type Environment = Type.Static<typeof EnvironmentSchema>;

export const VerdictSchema = Type.Union([
  Type.Literal('pass'),
  Type.Literal('fail'),
  Type.Literal('inconclusive'),
  Type.Literal('skip'),
]);
export type Verdict = Type.Static<typeof VerdictSchema>;

export const ParamsSchema = Type.Record(Type.String(), Type.Union([Type.String(), Type.Number(), Type.Boolean()]));
export type ParamValues = Type.Static<typeof ParamsSchema>;

export const ResultSchema = Type.Object({
  $schema: Type.String(),
  schemaVersion: Type.Literal(1),
  experiment: Type.String(),
  title: Type.String(),
  params: ParamsSchema,
  seed: Type.Number(),
  environment: EnvironmentSchema,
  claim: Type.Object({
    text: Type.String(),
    source: Type.String(),
    outcome: ClaimOutcomeSchema,
    inShort: Type.String(),
  }),
  facts: Type.Optional(HostFactsSchema),
  trace: TraceSchema,
  prediction: Type.Optional(FindingsSchema),
  measurement: Type.Optional(FindingsSchema),
  /** Raw measured rows, one observation of one process a row. */
  samples: Type.Array(Type.Record(Type.String(), Type.Union([Type.String(), Type.Number()]))),
  checks: Type.Array(CheckSchema),
  verdict: VerdictSchema,
  reason: Type.String(),
  elapsedMs: Type.Number(),
});
export type ResultDocument = Type.Static<typeof ResultSchema>;
