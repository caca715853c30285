/** Results from files, which may come from anybody. */
import { readFileSync } from 'node:fs';
import { Value } from 'typebox/value';
import { ResultSchema } from '../schema/result.js';
import type { ResultDocument } from '../schema/result.js';
import { UsageError } from './output.js';

/** @throws UsageError that says what is wrong with the file, and where. */
export function loadResults(path: string): ResultDocument[] {
  let parsed: unknown;
  try {
    parsed = JSON.parse(readFileSync(path, 'utf8'));
  } catch (error) {
    throw new UsageError(`${path} cannot be read as JSON: ${error instanceof Error ? error.message : String(error)}`);
  }
  const documents: unknown[] = Array.isArray(parsed) ? parsed : [parsed];
  if (documents.length === 0) throw new UsageError(`${path} holds no result`);
  return documents.map((document) => {
    if (Value.Check(ResultSchema, document)) return document;
    const [first] = Value.Errors(ResultSchema, document);
    const where = first ? `${first.instancePath || 'the document'} ${first.message}` : 'it has another form';
    throw new UsageError(`${path} is not a result of cowlab run --json: ${where}`);
  });
}
