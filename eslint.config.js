import eslint from '@eslint/js';
import { defineConfig, globalIgnores } from 'eslint/config';
import tseslint from 'typescript-eslint';
import layers from './scripts/lint-layers.js';

export default defineConfig(
  // Programs that tests start are plain JavaScript over the built library: no project types them. test/packed is a project of
  // its own, which its test checks where it is installed.
  globalIgnores([
    'build/',
    'coverage/',
    'dist/',
    'docs/',
    'node_modules/',
    'prebuilds/',
    'test/**/*.mjs',
    'test/packed/',
  ]),
  eslint.configs.recommended,
  tseslint.configs.strictTypeChecked,
  tseslint.configs.stylisticTypeChecked,
  {
    languageOptions: {
      parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname },
    },
    linterOptions: { reportUnusedDisableDirectives: 'error' },
    rules: {
      // tsc reports what is not defined, and knows the globals of Node.
      'no-undef': 'off',
      eqeqeq: 'error',
      '@typescript-eslint/consistent-type-imports': 'error',
      '@typescript-eslint/no-import-type-side-effects': 'error',
      '@typescript-eslint/switch-exhaustiveness-check': [
        'error',
        { considerDefaultExhaustiveForUnions: true, requireDefaultForNonUnion: true },
      ],
      // A number in a message is what most messages here are about.
      '@typescript-eslint/restrict-template-expressions': [
        'error',
        { allowNumber: true, allowAny: false, allowBoolean: false, allowNullish: false, allowRegExp: false },
      ],
    },
  },
  {
    files: ['lib/**/*.ts'],
    plugins: { cowlab: layers },
    rules: { 'cowlab/layers': 'error', 'max-lines': ['error', 400] },
  },
  {
    // A cast in JSDoc is no node of the tree that rules see, so they take its operand for the result; tsc sees both.
    files: ['scripts/**/*.js'],
    rules: {
      '@typescript-eslint/no-unsafe-argument': 'off',
      '@typescript-eslint/no-unsafe-assignment': 'off',
    },
  },
  {
    // The config file is checked by scripts/tsconfig.json, which the project service does not look for here.
    files: ['eslint.config.js'],
    extends: [tseslint.configs.disableTypeChecked],
  },
);
