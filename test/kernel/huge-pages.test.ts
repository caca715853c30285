/** Exclusive and shared pages of huge pages, against the kernel's own counts of mappings (/proc/kpagecount). */
import { afterEach, expect, test } from 'vitest';
import { startProgram } from '../../lib/api/foreign-program.js';
import type { ForeignProgram } from '../../lib/api/foreign-program.js';
import { pythonOrWhyNot } from '../../lib/experiments/cpython.js';
import { PAGE_STATES, countPages, countsMappings, readPageStates, splitUnknown } from '../../lib/proc/pagemap.js';
import type { PagemapRange } from '../../lib/proc/pagemap.js';
import { readSmaps } from '../../lib/proc/smaps.js';
import { CAP_SYS_ADMIN, hasCapability, readStatus } from '../../lib/proc/status.js';
import { parseKernelRelease, readKernelRelease } from '../../lib/proc/system.js';
import { mappedStates } from './map-counts.js';

const HUGE = 512;
const PAGES = 4 * HUGE;

/** A root and its children, each of which does what it is told: write WHO FIRST STEP, fork, or end WHO. */
const SCRIPT = `
import ctypes, mmap, os, sys
PAGE = mmap.PAGESIZE
# One whole huge page more than is used, so that there is an aligned part.
m = mmap.mmap(-1, ${String(PAGES + HUGE)} * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
m.madvise(mmap.MADV_HUGEPAGE)
for i in range(len(m) // PAGE): m[i * PAGE] = 1
def write(first, step):
    for page in range(first, len(m) // PAGE, step): m[page * PAGE] = 2
pipes = [None]
def fork():
    (read, command), (answer, write_end) = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        while True:
            words = os.read(read, 64).split()
            if not words: os._exit(0)
            write(int(words[0]), int(words[1]))
            os.write(write_end, b'x')
    os.close(read)
    os.close(write_end)
    pipes.append((command, answer, pid))
    return pid
print(os.getpid(), ctypes.addressof(ctypes.c_char.from_buffer(m)), flush=True)
for line in sys.stdin:
    what, *words = line.split()
    if what == 'fork': print(fork(), flush=True)
    elif what == 'end':
        command, answer, pid = pipes[int(words[0])]
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        print('ended', flush=True)
    elif words[0] == '0':
        write(int(words[1]), int(words[2]))
        print('written', flush=True)
    else:
        command, answer, pid = pipes[int(words[0])]
        os.write(command, ' '.join(words[1:]).encode())
        os.read(answer, 1)
        print('written', flush=True)
`;

let program: ForeignProgram | undefined;
afterEach(async () => {
  await program?.close();
});

async function tell(line: string): Promise<string> {
  program?.send(line);
  return (await program?.line()) ?? '';
}

/** The VMA that holds an address, whole, and how much of it is huge. */
function vmaAt(pid: number, address: bigint): { range: PagemapRange; hugeKb: number } {
  const vma = readSmaps(pid).find(({ start, end }) => start <= address && address < end);
  if (!vma) expect.unreachable('the memory is mapped');
  const range = { address: vma.start, pages: Number(vma.end - vma.start) / 4096 };
  return { range, hugeKb: vma.fieldsKb['AnonHugePages'] ?? 0 };
}

function whyNot(): string | undefined {
  if (typeof pythonOrWhyNot() === 'string') return 'there is no python3';
  if (hasCapability(readStatus('self'), CAP_SYS_ADMIN) !== true) return 'kpagecount wants CAP_SYS_ADMIN';
  return countsMappings() ? undefined : 'the kernel may not count them';
}

const lacking = whyNot();

test.skipIf(lacking !== undefined)(
  `every page of a tree with huge pages is counted as the kernel counts it${lacking ? ` (${lacking})` : ''}`,
  async (context) => {
    program = startProgram('python3', ['-c', SCRIPT]);
    const [pid = '', start = ''] = (await program.line()).split(' ');
    const [root, address] = [Number(pid), BigInt(start)];
    if (vmaAt(root, address).hugeKb === 0) context.skip('transparent huge pages are off');
    const pids = [root];
    const wrongByBits: number[] = [];

    const compare = (when: string): void => {
      for (const pid of pids) {
        const { range } = vmaAt(pid, address);
        const truth = mappedStates(pid, range);
        const count = (state: string) => truth.filter((one) => one === state).length;
        const [exclusive, shared] = [count('exclusive'), count('shared')];
        expect(countPages(pid, range), `${when}: ${String(pid)}`).toMatchObject({ exclusive, shared, unknown: 0 });
        const states = Array.from(readPageStates(pid, range), (state) => PAGE_STATES[state] ?? '');
        expect(states).toEqual(truth);
        wrongByBits.push(Math.abs(countPages(pid, range, { checkHuge: false }).exclusive - exclusive));
      }
    };

    compare('alone');
    pids.push(Number(await tell('fork')));
    compare('forked');
    await tell('write 1 0 2');
    compare('a child has written the even pages');
    pids.push(Number(await tell('fork')));
    compare('a second child');
    await tell(`write 2 0 ${String(HUGE)}`);
    compare('the second child has written the first of each');
    await tell('write 0 1 64');
    compare('the root has written some');
    await tell('end 1');
    pids.splice(1, 1);
    compare('the first child has ended');
    await tell('end 2');
    pids.pop();
    compare('both have ended');
    // By the bits of pagemap alone it is wrong on 6.1 and 6.18, and right on 6.12; other kernels have not been tried.
    const version = parseKernelRelease(readKernelRelease()).join('.');
    if (['6.1', '6.18'].includes(version)) expect(Math.max(...wrongByBits)).toBeGreaterThan(0);
    if (version === '6.12') expect(Math.max(...wrongByBits)).toBe(0);
  },
);

test('what smaps has beyond the known pages is split only where all fits', () => {
  const known = { exclusive: 10, shared: 5, unknown: 100 };
  expect(splitUnknown(known, { exclusive: 70, shared: 45 })).toEqual({ exclusive: 60, shared: 40 });
  expect(splitUnknown(known, { exclusive: 70, shared: 46 })).toBeUndefined();
  expect(splitUnknown(known, { exclusive: 9, shared: 106 })).toBeUndefined();
  expect(splitUnknown(known, { exclusive: 111, shared: 4 })).toBeUndefined();
});
