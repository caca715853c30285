/**
 * `npm install`: takes the addon from prebuilds/ where it fits, else builds it. Elsewhere than on Linux there is nothing to
 * install: the model works, and the first real call says what is missing.
 */
if (process.platform === 'linux') await import('node-gyp-build/bin.js');
