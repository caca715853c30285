/** Reporter of vitest in the guests of test-vm.js: at the end one line that a program can read. */

/** What begins that line. */
export const RESULTS = 'cowlab-results ';

/**
 * @typedef {object} FileResult
 * @property {string} file Relative to the root of the repository.
 * @property {number} passed
 * @property {number} failed
 * @property {number} skipped
 */

/**
 * @typedef {object} RunResult
 * @property {FileResult[]} files
 * @property {number} otherErrors Errors outside of any test.
 */

export default class VmReporter {
  /**
   * @param {ReadonlyArray<import('vitest/node').TestModule>} modules
   * @param {ReadonlyArray<unknown>} errors
   */
  onTestRunEnd(modules, errors) {
    /** @type {RunResult} */
    const result = { files: [], otherErrors: errors.length };
    for (const module of modules) {
      const file = { file: module.relativeModuleId, passed: 0, failed: 0, skipped: 0 };
      for (const test of module.children.allTests()) {
        const { state } = test.result();
        if (state === 'passed') file.passed++;
        else if (state === 'failed') file.failed++;
        else file.skipped++;
      }
      // A file that could not even be loaded has no tests.
      if (!module.ok() && file.failed === 0) file.failed = 1;
      result.files.push(file);
    }
    process.stdout.write(`${RESULTS}${JSON.stringify(result)}\n`);
  }
}
