/** The lint rule that holds the layers apart catches each way of breaking them, and nothing else. */
import path from 'node:path';
import { type Rule, RuleTester } from 'eslint';
import tseslint from 'typescript-eslint';
import { describe, it } from 'vitest';

// A computed name: the rule is JavaScript, which ESLint's configuration needs, and these sources are not.
const ruleFile = new URL('../../scripts/lint-layers.js', import.meta.url).href;
const { default: plugin } = (await import(ruleFile)) as { default: { rules: { layers: Rule.RuleModule } } };

RuleTester.describe = describe;
RuleTester.it = it;
const tester = new RuleTester({ languageOptions: { parser: tseslint.parser } });

const at = (file: string) => path.resolve(import.meta.dirname, '../..', file);

function allowed(name: string, file: string, code: string): RuleTester.ValidTestCase {
  return { name, filename: at(file), code };
}

function caught(name: string, file: string, code: string, messageId: string): RuleTester.InvalidTestCase {
  return { name, filename: at(file), code, errors: [{ messageId }] };
}

tester.run('layers', plugin.rules.layers, {
  valid: [
    allowed(
      'schema imports itself and packages',
      'lib/schema/step.ts',
      `import Type from 'typebox'; import './figure.js'`,
    ),
    allowed('errors imports types of schema', 'lib/errors.ts', `import type { Failure } from './schema/step.js'`),
    allowed(
      'errors imports types of schema, each marked',
      'lib/errors.ts',
      `import { type Failure } from './schema/step.js'`,
    ),
    allowed('native loads the addon', 'lib/native.ts', `import load from 'node-gyp-build'; require('../build/a.node')`),
    allowed('proc imports native', 'lib/proc/smaps.ts', `import '../native.js'; import '../errors.js'`),
    allowed('api imports proc and native', 'lib/api/fork.ts', `import '../proc/smaps.js'; import '../native.js'`),
    allowed(
      'linux imports api and proc',
      'lib/machine/linux/backend.ts',
      `import '../../api/fork.js'; import '../../proc/smaps.js'`,
    ),
    allowed('linux imports the machine interface', 'lib/machine/linux/backend.ts', `import '../machine.js'`),
    allowed('linux imports packages', 'lib/machine/linux/backend.ts', `import net from 'node:net'`),
    allowed(
      'model imports its own folder',
      'lib/machine/model/fork.ts',
      `import './frames.js'; import '../../errors.js'`,
    ),
    allowed(
      'model imports types of the machine interface',
      'lib/machine/model/fork.ts',
      `import type { Backend } from '../machine.js'`,
    ),
    allowed(
      'machine opens both backends',
      'lib/machine/open.ts',
      `import './linux/backend.js'; import './model/backend.js'`,
    ),
    allowed('an experiment imports machine', 'lib/experiments/enomem.ts', `import '../machine/program.js'`),
    allowed('report imports schema', 'lib/report/html.ts', `import '../schema/step.js'; import '../errors.js'`),
    allowed('vm knows where our own programs lie', 'lib/vm/contents.ts', `import '../own-program.js'`),
    allowed('api starts our own programs', 'lib/api/foreign-program.ts', `import '../own-program.js'`),
    allowed('own-program imports errors', 'lib/own-program.ts', `import './errors.js'; import fs from 'node:fs'`),
    allowed('vm imports schema and errors', 'lib/vm/guest.ts', `import '../schema/units.js'; import '../errors.js'`),
    allowed(
      'the command line imports everything',
      'lib/cli/main.ts',
      `import '../report/html.js'; import '../index.js'; import '../native.js'; import '../vm/guest.js'`,
    ),
    allowed(
      'the index imports what is below it',
      'lib/index.ts',
      `export * from './report/html.js'; export * from './api/fork.js'`,
    ),
    allowed(
      'fixtures and matchers import the index and what it stands on',
      'lib/vitest/matchers.ts',
      `import '../index.js'; import '../api/fork.js'; import 'vitest'`,
    ),
    allowed('tests may import anything', 'test/kernel/fork.test.ts', `import '../../lib/cli/main.js'`),
    allowed('what is computed at run time is not judged', 'lib/cli/run.ts', `await import(file)`),
  ],
  invalid: [
    caught('own-program imports native', 'lib/own-program.ts', `import './native.js'`, 'upwards'),
    caught('schema imports errors', 'lib/schema/step.ts', `import '../errors.js'`, 'upwards'),
    caught(
      'errors imports values of schema',
      'lib/errors.ts',
      `import { bounds } from './schema/figure.js'`,
      'typesOnly',
    ),
    caught(
      'errors imports values beside types',
      'lib/errors.ts',
      `import { type Figure, bounds } from './schema/figure.js'`,
      'typesOnly',
    ),
    caught('native imports proc', 'lib/native.ts', `import './proc/smaps.js'`, 'upwards'),
    caught('proc imports api', 'lib/proc/smaps.ts', `import '../api/fork.js'`, 'upwards'),
    caught('api imports machine', 'lib/api/fork.ts', `import { program } from '../machine/program.js'`, 'upwards'),
    caught(
      'api imports types of machine',
      'lib/api/fork.ts',
      `import type { Process } from '../machine/machine.js'`,
      'upwards',
    ),
    caught('machine imports native', 'lib/machine/open.ts', `import '../native.js'`, 'upwards'),
    caught('machine imports api past linux', 'lib/machine/open.ts', `import '../api/fork.js'`, 'upwards'),
    caught('machine imports an experiment', 'lib/machine/open.ts', `import '../experiments/enomem.js'`, 'upwards'),
    caught('model imports linux', 'lib/machine/model/fork.ts', `import '../linux/backend.js'`, 'upwards'),
    caught('model imports proc', 'lib/machine/model/fork.ts', `import '../../proc/meminfo.js'`, 'upwards'),
    caught(
      'model imports values of the machine interface',
      'lib/machine/model/fork.ts',
      `import { x } from '../machine.js'`,
      'typesOnly',
    ),
    caught(
      'model imports another file of machine',
      'lib/machine/model/fork.ts',
      `import type { X } from '../program.js'`,
      'upwards',
    ),
    caught('model imports a package', 'lib/machine/model/fork.ts', `import fs from 'node:fs'`, 'packages'),
    caught('an experiment imports report', 'lib/experiments/enomem.ts', `import '../report/text.js'`, 'upwards'),
    caught('an experiment imports native', 'lib/experiments/enomem.ts', `import '../native.js'`, 'upwards'),
    caught('report imports machine', 'lib/report/html.ts', `import '../machine/compare.js'`, 'upwards'),
    caught(
      'report imports types of experiments',
      'lib/report/html.ts',
      `import type { E } from '../experiments/define.js'`,
      'upwards',
    ),
    caught('vm imports an experiment', 'lib/vm/guest.ts', `import '../experiments/enomem.js'`, 'upwards'),
    caught('vm imports proc', 'lib/vm/guest.ts', `import '../proc/meminfo.js'`, 'upwards'),
    caught('the index imports vm', 'lib/index.ts', `export * from './vm/guest.js'`, 'upwards'),
    caught('the index imports vitest', 'lib/index.ts', `export * from './vitest/index.js'`, 'upwards'),
    caught('fixtures import the command line', 'lib/vitest/fixtures.ts', `import '../cli/run.js'`, 'upwards'),
    caught('the index imports the command line', 'lib/index.ts', `export * from './cli/main.js'`, 'upwards'),
    caught(
      'an experiment imports the package by its name',
      'lib/experiments/enomem.ts',
      `import { fork } from 'cowlab'`,
      'upwards',
    ),
    caught('a re-export goes up', 'lib/api/fork.ts', `export { run } from '../cli/run.js'`, 'upwards'),
    caught('a re-export of all goes up', 'lib/api/fork.ts', `export * from '../cli/run.js'`, 'upwards'),
    caught('a dynamic import goes up', 'lib/api/fork.ts', `await import('../cli/run.js')`, 'upwards'),
    caught('an import in a type goes up', 'lib/api/fork.ts', `let x: import('../cli/run.js').Run`, 'upwards'),
    caught('an import assignment goes up', 'lib/api/fork.ts', `import x = require('../cli/run.js')`, 'upwards'),
    caught('a second importer of node-gyp-build', 'lib/api/fork.ts', `import load from 'node-gyp-build'`, 'addon'),
    caught(
      'a second loader of the .node file',
      'lib/cli/main.ts',
      `require('../../build/Release/cowlab.node')`,
      'addon',
    ),
    caught('a second loader by another require', 'lib/cli/main.ts', `nodeRequire('./cowlab.node')`, 'addon'),
    caught('a second loader by dlopen', 'lib/cli/main.ts', `process.dlopen(module, file)`, 'addon'),
    caught('lib imports test', 'lib/cli/main.ts', `import '../../test/kernel/tree.js'`, 'outside'),
    caught('lib imports scripts', 'lib/api/fork.ts', `import '../../scripts/lint-layers.js'`, 'outside'),
    caught('a file without a layer', 'lib/utils.ts', `export {}`, 'noLayer'),
    caught('an import of a file without a layer', 'lib/api/fork.ts', `import '../utils.js'`, 'noLayer'),
  ],
});
