/**
 * A predicted or measured number: known exactly, bounded with the reason, or not known with the reason.
 * It is written in JSON as it stands here, so that an exact figure is simply a number.
 *
 * Schemas stand in files of their own, which only validation loads: their library takes longer to load than all
 * the rest.
 */
import Type from 'typebox';

export const RangeSchema = Type.Object({ min: Type.Number(), max: Type.Number(), why: Type.String() });
export const UnknownSchema = Type.Object({ unknown: Type.String() });
export const FigureSchema = Type.Union([Type.Number(), RangeSchema, UnknownSchema]);

export type Range = Type.Static<typeof RangeSchema>;
export type Unknown = Type.Static<typeof UnknownSchema>;
export type Figure = Type.Static<typeof FigureSchema>;
