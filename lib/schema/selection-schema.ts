/** Which pages of a region an access touches, and in which order: see selection.ts. */
import Type from 'typebox';

const PageCount = Type.Integer({ minimum: 0, maximum: 2 ** 40 });

export const PatternSchema = Type.Union([Type.Literal('sequential'), Type.Literal('random'), Type.Literal('stride')]);
export type Pattern = Type.Static<typeof PatternSchema>;

export const SelectionSchema = Type.Object({
  first: PageCount,
  pages: PageCount,
  pattern: PatternSchema,
  /** Seed of `random`, 0 .. 2^32 - 1; 0 for the other patterns. */
  seed: Type.Integer({ minimum: 0, maximum: 2 ** 32 - 1 }),
  /** Distance in pages of `stride`; 1 for the other patterns. */
  stride: Type.Integer({ minimum: 1, maximum: 2 ** 40 }),
  from: PageCount,
  to: PageCount,
});
export type Selection = Type.Static<typeof SelectionSchema>;
