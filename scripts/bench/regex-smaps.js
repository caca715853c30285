/**
 * What reading smaps takes as most do it in JavaScript, with regular expressions; one run for each line on standard input:
 *
 *   regex-smaps.js PID
 *
 * Answers with nanoseconds, as floor.c does.
 */
import fs from 'node:fs';
import readline from 'node:readline';

const HEADER = /^([0-9a-f]+)-([0-9a-f]+) (\S+) ([0-9a-f]+) (\S+) ([0-9]+) *(.*)$/;
const FIGURE = /^(\w+): +([0-9]+) kB$/;
const FLAGS = /^VmFlags: (.*)$/;

/** @typedef {{ start: string, end: string, perms: string, path: string, flags: string[], kb: Record<string, number> }} Vma */

/** @param {string} text */
function parse(text) {
  /** @type {Vma[]} */
  const vmas = [];
  for (const line of text.split('\n')) {
    const figure = FIGURE.exec(line);
    const vma = vmas.at(-1);
    if (figure && vma) {
      vma.kb[figure[1] ?? ''] = Number(figure[2]);
      continue;
    }
    const header = HEADER.exec(line);
    if (header) {
      const [, start = '', end = '', perms = '', , , , path = ''] = header;
      vmas.push({ start, end, perms, path, flags: [], kb: {} });
      continue;
    }
    const flags = FLAGS.exec(line);
    if (flags && vma) vma.flags = (flags[1] ?? '').trim().split(' ');
  }
  return vmas;
}

const file = `/proc/${process.argv[2] ?? 'self'}/smaps`;
const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();
while (!(await lines.next()).done) {
  const start = process.hrtime.bigint();
  const vmas = parse(fs.readFileSync(file, 'utf8'));
  const elapsedNs = process.hrtime.bigint() - start;
  if (vmas.length === 0) throw new Error(`${file} is empty`);
  console.log(String(elapsedNs));
}
