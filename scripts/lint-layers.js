/**
 * The ESLint rule `cowlab/layers`: an import may only go down. The table below is the one place where the
 * layers are written for a machine; CONTRIBUTING.md draws them for people.
 */
import path from 'node:path';

/**
 * @typedef {import('eslint').Rule.RuleModule} RuleModule
 * @typedef {import('eslint').Rule.Node} RuleNode
 */

const BELOW_PROC = ['native', 'own-program', 'errors', 'schema'];
const BELOW_MACHINE = ['api', 'proc', 'errors', 'schema'];
const MACHINE = ['machine', 'machine interface', 'machine/linux', 'machine/model'];
const BELOW_CLI = ['fixtures', 'experiments', ...MACHINE, 'api', 'proc', ...BELOW_PROC];

/**
 * @typedef {object} Layer
 * @property {string} name
 * @property {RegExp} file Which files belong to it; the first layer that matches holds.
 * @property {string[]} values Layers it may import, itself aside.
 * @property {string[]} [types] Layers it may import types from, and nothing else.
 * @property {true} [noPackages] It may import neither packages nor Node's own modules.
 */

/** @type {Layer[]} */
const LAYERS = [
  { name: 'schema', file: /^schema\//, values: [] },
  { name: 'errors', file: /^errors\.ts$/, values: [], types: ['schema'] },
  { name: 'own-program', file: /^own-program\.ts$/, values: ['errors'] },
  { name: 'native', file: /^native\.ts$/, values: ['errors', 'schema'] },
  { name: 'proc', file: /^proc\//, values: BELOW_PROC },
  { name: 'api', file: /^api\//, values: ['proc', ...BELOW_PROC] },
  // The model runs anywhere: it may ask nothing of the host.
  {
    name: 'machine/model',
    file: /^machine\/model\//,
    values: ['errors', 'schema'],
    types: ['machine interface'],
    noPackages: true,
  },
  {
    name: 'machine/linux',
    file: /^machine\/linux\//,
    values: ['machine', 'machine interface', 'machine/model', ...BELOW_MACHINE],
  },
  { name: 'machine interface', file: /^machine\/machine\.ts$/, values: ['errors', 'schema'] },
  {
    name: 'machine',
    file: /^machine\//,
    values: ['machine interface', 'machine/linux', 'machine/model', 'errors', 'schema'],
  },
  { name: 'experiments', file: /^experiments\//, values: [...MACHINE, ...BELOW_MACHINE] },
  { name: 'fixtures', file: /^fixtures\//, values: ['experiments', ...MACHINE, ...BELOW_MACHINE] },
  // A report is made from a saved result, wherever that came from.
  { name: 'report', file: /^report\//, values: ['errors', 'schema'] },
  // It boots a command and brings out what that writes, and knows nothing of experiments.
  { name: 'vm', file: /^vm\//, values: ['own-program', 'errors', 'schema'] },
  { name: 'index', file: /^index\.ts$/, values: ['report', ...BELOW_CLI] },
  // Fixtures and matchers for the tests of others.
  { name: 'vitest', file: /^vitest\//, values: ['index', 'machine/linux', ...BELOW_MACHINE] },
  { name: 'cli', file: /^cli\//, values: ['index', 'report', 'vm', ...BELOW_CLI] },
];

/** @param {string} file Path under lib/, with forward slashes. */
function layerOf(file) {
  return LAYERS.find((layer) => layer.file.test(file));
}

/** @param {string} specifier */
function loadsAddon(specifier) {
  return /^node-gyp-build(-optional-packages)?(\/|$)/.test(specifier) || specifier.endsWith('.node');
}

/** @type {RuleModule} */
const layersRule = {
  meta: {
    type: 'problem',
    docs: { description: 'An import may only go down the layers of lib/ (CONTRIBUTING.md)' },
    schema: [],
    messages: {
      noLayer: '{{file}} belongs to no layer: give it one in scripts/lint-layers.js.',
      outside: 'lib/ may import nothing of the repository outside itself, and {{specifier}} is outside.',
      addon: 'Only lib/native.ts may load the addon.',
      packages: 'The {{from}} layer may import no packages: it must run anywhere.',
      upwards: 'The {{from}} layer may not import {{to}}: it stands on {{allowed}} only.',
      typesOnly: 'The {{from}} layer may import only types from {{to}}: write `import type`.',
    },
  },
  create(context) {
    const lib = path.join(context.cwd, 'lib');
    const file = path.relative(lib, context.filename).split(path.sep).join('/');
    if (file.startsWith('../')) return {};
    const layer = layerOf(file);
    if (!layer) {
      return {
        Program(node) {
          context.report({ node, messageId: 'noLayer', data: { file: `lib/${file}` } });
        },
      };
    }

    /**
     * @param {RuleNode} node
     * @param {string} to
     * @param {boolean} typesOnly
     */
    function checkLayer(node, to, typesOnly) {
      if (to === layer?.name || layer?.values.includes(to)) return;
      const from = layer?.name ?? '';
      if (layer?.types?.includes(to)) {
        if (!typesOnly) context.report({ node, messageId: 'typesOnly', data: { from, to } });
        return;
      }
      const below = [...(layer?.values ?? []), ...(layer?.types ?? []).map((name) => `types of ${name}`)];
      const allowed = below.join(', ') || 'nothing';
      context.report({ node, messageId: 'upwards', data: { from, to, allowed } });
    }

    /**
     * @param {RuleNode} node
     * @param {string} specifier
     * @param {boolean} typesOnly
     */
    function check(node, specifier, typesOnly) {
      if (loadsAddon(specifier)) {
        if (layer?.name !== 'native') context.report({ node, messageId: 'addon' });
      } else if (/^\.{0,2}\//.test(specifier)) {
        const target = path.resolve(path.dirname(context.filename), specifier);
        const targetFile = path.relative(lib, target).split(path.sep).join('/').replace(/\.js$/, '.ts');
        const targetLayer = layerOf(targetFile);
        if (targetFile.startsWith('../')) context.report({ node, messageId: 'outside', data: { specifier } });
        else if (!targetLayer) context.report({ node, messageId: 'noLayer', data: { file: `lib/${targetFile}` } });
        else checkLayer(node, targetLayer.name, typesOnly);
      } else if (specifier === 'cowlab') {
        checkLayer(node, 'index', typesOnly);
      } else if (layer?.noPackages) {
        context.report({ node, messageId: 'packages', data: { from: layer.name } });
      }
    }

    /**
     * The parser is TypeScript's, whose nodes say more than ESLint's own types tell.
     * @typedef {object} TypeScriptImport
     * @property {'type' | 'value'} [importKind]
     * @property {'type' | 'value'} [exportKind]
     * @property {{ importKind?: 'type' | 'value', exportKind?: 'type' | 'value' }[]} [specifiers]
     * @property {{ value?: unknown, expression?: { value?: unknown } } | null} [source]
     * @property {{ type: string, expression?: { value?: unknown } }} [moduleReference]
     */

    /** @param {RuleNode} node */
    function checkDeclaration(node) {
      const declaration = /** @type {TypeScriptImport} */ (/** @type {unknown} */ (node));
      const specifier = declaration.source?.value;
      if (typeof specifier !== 'string') return;
      const { specifiers = [] } = declaration;
      const typesOnly =
        declaration.importKind === 'type' ||
        declaration.exportKind === 'type' ||
        (specifiers.length > 0 && specifiers.every((one) => one.importKind === 'type' || one.exportKind === 'type'));
      check(node, specifier, typesOnly);
    }

    return {
      ImportDeclaration: checkDeclaration,
      ExportNamedDeclaration: checkDeclaration,
      ExportAllDeclaration: checkDeclaration,
      /** `import('./x.js')`; what is computed at run time cannot be judged here. */
      ImportExpression(node) {
        if (node.source.type === 'Literal' && typeof node.source.value === 'string') {
          check(node, node.source.value, false);
        }
      },
      /** `let x: import('./x.js').X`. */
      TSImportType(/** @type {RuleNode} */ node) {
        const specifier = /** @type {TypeScriptImport} */ (/** @type {unknown} */ (node)).source?.value;
        if (typeof specifier === 'string') check(node, specifier, true);
      },
      /** `import x = require('./x.js')`. */
      TSImportEqualsDeclaration(/** @type {RuleNode} */ node) {
        const { moduleReference, importKind } = /** @type {TypeScriptImport} */ (/** @type {unknown} */ (node));
        const specifier = moduleReference?.expression?.value;
        if (typeof specifier === 'string') check(node, specifier, importKind === 'type');
      },
      /** `require('./x.node')` of a createRequire, under whichever name ends in `require`. */
      'CallExpression[callee.name=/require$/i]'(/** @type {import('estree').CallExpression & RuleNode} */ node) {
        const [first] = node.arguments;
        if (first?.type === 'Literal' && typeof first.value === 'string') check(node, first.value, false);
      },
      'MemberExpression[object.name="process"][property.name="dlopen"]'(/** @type {RuleNode} */ node) {
        if (layer.name !== 'native') context.report({ node, messageId: 'addon' });
      },
    };
  },
};

export default { rules: { layers: layersRule } };
