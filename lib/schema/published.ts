/** The JSON Schemas that the package ships, as `cowlab/schema/NAME.json`; scripts/finish-build.js writes them. */
import type { TSchema } from 'typebox';
import { HostFactsSchema } from './facts.js';
import { TruthSchema } from './fixture.js';
import { ResultSchema } from './result.js';
import { SCHEMA_ID } from './schema-id.js';
import { TraceSchema } from './step.js';

/** The draft that typebox writes tuples in. */
const DRAFT = 'http://json-schema.org/draft-07/schema#';

function published(id: string, title: string, schema: TSchema): object {
  return { $schema: DRAFT, $id: id, title, ...schema };
}

/** By the names of their files. */
export const PUBLISHED_SCHEMAS = {
  result: published(SCHEMA_ID.result, 'What cowlab run --json writes for an experiment', ResultSchema),
  trace: published(SCHEMA_ID.trace, 'A program of a Machine, step by step, and what came of it', TraceSchema),
  facts: published(SCHEMA_ID.facts, 'What the model must know of a host', HostFactsSchema),
  fixture: published(SCHEMA_ID.fixture, 'What cowlab hold writes of the processes that it holds', TruthSchema),
};
