/** The package by `require`, with its types, its version and its schemas. */
import cowlab = require('cowlab');
import manifest = require('cowlab/package.json');
import schema = require('cowlab/schema/result.json');

const memory: cowlab.Mapping = cowlab.mmap({ pages: 10 });
memory.write();
const { exclusive } = cowlab.countPages(process.pid, memory);
memory.unmap();
console.log(JSON.stringify({ exclusive, version: manifest.version, schema: schema.$id }));
