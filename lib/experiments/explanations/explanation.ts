/** What `cowlab explain` says of one experiment, as data. */

export interface Explanation {
  /** Name of the experiment. */
  name: string;
  question: string;
  claim: {
    text: string;
    /** Where it was said. */
    source: string;
    /** What becomes of it when it is tried. */
    fate: string;
  };
  /** Paragraphs. */
  mechanism: readonly string[];
  formula: {
    /** Shown as they stand; at most 76 columns. */
    lines: readonly string[];
    notes: readonly string[];
  };
  /** [what the table or the JSON calls it, what it means]. */
  figures: readonly (readonly [figure: string, meaning: string])[];
  practice: readonly string[];
}
