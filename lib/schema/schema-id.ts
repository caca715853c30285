/** How our documents name their schemas. The number is that of the form, `schemaVersion`. */
export const SCHEMA_ID = {
  result: 'urn:cowlab:result:1',
  trace: 'urn:cowlab:trace:1',
  facts: 'urn:cowlab:facts:1',
  fixture: 'urn:cowlab:fixture:1',
} as const;
