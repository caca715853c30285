/** Packages that bring no types. */
declare module 'prebuildify' {
  export default function prebuildify(options: object, done: (error: Error | null) => void): void;
}
declare module 'node-gyp-build/bin.js';
