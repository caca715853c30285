/** `node --import` it: a Mac, as far as a program can tell. The platform is darwin, and there is no /proc and no /sys. */
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import os from 'node:os';

Object.defineProperty(process, 'platform', { value: 'darwin' });
os.platform = () => 'darwin';

for (const name of ['openSync', 'readFileSync', 'readdirSync', 'readlinkSync', 'statSync']) {
  const real = fs[name];
  fs[name] = (path, ...rest) => {
    if (!/^\/(proc|sys)(\/|$)/.test(String(path))) return real(path, ...rest);
    throw Object.assign(new Error(`ENOENT: no such file or directory, ${name} '${path}'`), { code: 'ENOENT' });
  };
}
syncBuiltinESMExports();
