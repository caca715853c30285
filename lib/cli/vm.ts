/** `cowlab vm`: experiments as root on another kernel, in a virtual machine, and where the kernels come from. */
import { closeSync, realpathSync } from 'node:fs';
import { join } from 'node:path';
import { FeatureUnavailableError } from '../errors.js';
import { findExperiment } from '../experiments/catalogue.js';
import type { Finding } from '../proc/doctor.js';
import { readHostFacts } from '../proc/host.js';
import { readMeminfo } from '../proc/meminfo.js';
import type { CommandOutput } from '../report/paragraph.js';
import { requireOneOf } from '../schema/arguments.js';
import type { HostFacts } from '../schema/facts.js';
import type { ResultDocument } from '../schema/result.js';
import { formatBytes, parseSize } from '../schema/units.js';
import { findPython } from '../api/foreign-program.js';
import type { Python } from '../api/foreign-program.js';
import { PACKAGE_ROOT } from '../own-program.js';
import { addOwnPackage, addPython, bareSystem, guestPath, setCommand } from '../vm/contents.js';
import { runGuest, writeImage } from '../vm/guest.js';
import type { GuestEnd, GuestOptions } from '../vm/guest.js';
import { chooseKernel, fetchKernel, findKernels, kernelFolders } from '../vm/kernel.js';
import type { Kernel } from '../vm/kernel.js';
import { ACCELERATORS, findQemu, kvmOpens } from '../vm/qemu.js';
import { EXIT, UsageError, note, requireNumber } from './output.js';
import { openExportFlags } from './exports.js';
import type { ExportFlags } from './exports.js';
import { deliver, exitCodeOfResults, findOrLoad, parsePairs, plan } from './run.js';

export interface VmRunFlags extends ExportFlags {
  kernel?: string[];
  memory: string;
  cpus: string;
  cgroup: string;
  accel?: string;
  timeout: string;
  param?: string[];
}

type MachineOptions = Pick<GuestOptions, 'memoryBytes' | 'cpus' | 'cgroup' | 'accelerator' | 'timeoutMs'>;

/** The initramfs, packed and unpacked, and Node: with less, the kernel dies of it. */
const LEAST_MEMORY_BYTES = 2 ** 29;

const MIB = 2 ** 20;

function parseMachine(flags: VmRunFlags): MachineOptions {
  const memoryBytes = parseSize(flags.memory);
  if (memoryBytes < LEAST_MEMORY_BYTES || memoryBytes % MIB !== 0) {
    const least = formatBytes(LEAST_MEMORY_BYTES);
    throw new UsageError(`--memory must be whole MiB, and at least ${least}, not ${flags.memory}`);
  }
  return {
    memoryBytes,
    cpus: requireNumber('--cpus', flags.cpus, 1, 64),
    cgroup: requireOneOf('--cgroup', flags.cgroup, ['v1', 'v2']),
    timeoutMs: requireNumber('--timeout', flags.timeout, 1, 86_400) * 1000,
    accelerator: flags.accel === undefined ? undefined : requireOneOf('--accel', flags.accel, ACCELERATORS),
  };
}

/** What a guest writes to, the host must have: a guest that is short of it would be the first that the OOM killer takes. */
function requireHostMemory(memoryBytes: number): void {
  const available = (readMeminfo().fieldsKb['MemAvailable'] ?? Infinity) * 1024;
  if (memoryBytes <= available) return;
  throw new FeatureUnavailableError(
    `A guest of ${formatBytes(memoryBytes)}`,
    `${formatBytes(available)} of memory are available now`,
    'Give a smaller --memory, or end something that uses memory.',
  );
}

/** What the guest will be, as far as parameters can be wrong for it. */
function guestFacts(memoryBytes: number): HostFacts {
  const facts = readHostFacts(process.pid);
  const memTotalPages = Math.floor(memoryBytes / facts.pageSizeBytes);
  return { ...facts, memTotalPages, swapTotalPages: 0, capSysAdmin: true };
}

/** The image with everything that the experiments need. */
async function buildImage(names: readonly string[], params: readonly string[], python?: Python): Promise<number> {
  const files = names.filter((name) => findExperiment(name) === undefined);
  const image = await bareSystem();
  await addOwnPackage(image, files);
  if (python) await addPython(image, python);
  const inGuest = names.map((name) => (files.includes(name) ? guestPath(realpathSync(name)) : name));
  const main = guestPath(join(PACKAGE_ROOT, 'dist/cli/main.js'));
  const options = ['--json', '--allow-system-changes', ...params.flatMap((pair) => ['--param', pair])];
  setCommand(image, { argv: [process.execPath, main, 'run', ...inGuest, ...options], folder: '/root' });
  return writeImage(image);
}

const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`;

/** What one guest brought out. */
interface Brought {
  results: ResultDocument[];
  exitCode: number;
}

/** @throws Error when what the command in the guest wrote is no result. */
function readResults(output: string, end: GuestEnd, machine: MachineOptions): Brought {
  if (end.code === undefined) throw new Error(`in the guest, cowlab was ended by ${end.signal ?? 'a signal'}`);
  // Without a result it has said on standard error why, which has been shown.
  if (output === '') return { results: [], exitCode: end.code };
  const parsed = JSON.parse(output) as ResultDocument | ResultDocument[];
  const results = Array.isArray(parsed) ? parsed : [parsed];
  const { memoryBytes, cpus } = machine;
  for (const { environment } of results) {
    environment.virtualMachine = { accelerator: end.accelerator, memoryBytes, cpus };
  }
  return { results, exitCode: exitCodeOfResults(results) };
}

async function runOn(kernel: Kernel, machine: MachineOptions, imageFd: number, signal: AbortSignal): Promise<Brought> {
  note(`booting Linux ${kernel.release}`);
  const output: Buffer[] = [];
  const end = await runGuest({
    ...machine,
    kernel: kernel.path,
    imageFd,
    signal,
    stdout: (bytes) => output.push(bytes),
    stderr: (bytes) => process.stderr.write(bytes),
    note,
  });
  note(
    `Linux ${kernel.release} (${end.accelerator}): up after ${seconds(end.bootMs)}, done after ${seconds(end.elapsedMs)}`,
  );
  return readResults(Buffer.concat(output).toString(), end, machine);
}

/** Ends the guest at an interrupt. @returns Its signal. */
function abortWhenInterrupted(): AbortSignal {
  const controller = new AbortController();
  const abort = (): void => {
    note('interrupted, cleaning up');
    controller.abort();
  };
  process.once('SIGINT', abort);
  process.once('SIGTERM', abort);
  return controller.signal;
}

/** The worst of exit codes: what failed or was misused before what cannot be had. */
function worst(codes: readonly number[]): number {
  return (
    [EXIT.usage, EXIT.failed, EXIT.unavailable].find((code) => codes.includes(code)) ?? Math.max(EXIT.ok, ...codes)
  );
}

/** @returns The exit code: that of the worst result. */
export async function vmRunCommand(names: readonly string[], flags: VmRunFlags): Promise<number> {
  // Everything that can be wrong is looked at first: a mistake must not cost a boot.
  const machine = parseMachine(flags);
  const chosen = [];
  for (const name of names) chosen.push(await findOrLoad(name));
  const facts = guestFacts(machine.memoryBytes);
  for (const { experiment, params } of plan(chosen, parsePairs(flags.param ?? []))) experiment.needs(params, facts);
  const python = chosen.some(({ programs }) => programs?.includes('python3')) ? findPython() : undefined;
  findQemu();
  const wanted: (string | undefined)[] = flags.kernel ?? [undefined];
  const kernels = wanted.map((kernel) => chooseKernel(kernel));
  requireHostMemory(machine.memoryBytes);
  const files = openExportFlags(flags);

  const signal = abortWhenInterrupted();
  const imageFd = await buildImage(names, flags.param ?? [], python);
  const brought: Brought[] = [];
  try {
    for (const kernel of kernels) brought.push(await runOn(kernel, machine, imageFd, signal));
  } catch (error) {
    if (signal.aborted) return EXIT.interrupted;
    throw error;
  } finally {
    closeSync(imageFd);
  }
  const results = brought.flatMap((one) => one.results);
  if (results.length > 0) await deliver(results, files);
  return worst(brought.map(({ exitCode }) => exitCode));
}

/** For `cowlab doctor`. */
export function vmFinding(): Finding {
  const finding = { name: 'vm', neededFor: 'cowlab vm: experiments as root, and on other kernels, without root' };
  const accelerator = kvmOpens() ? 'KVM (/dev/kvm opens)' : 'emulation (/dev/kvm does not open)';
  try {
    const qemu = findQemu();
    const { release } = chooseKernel(undefined);
    return { ...finding, status: 'ok', found: `${qemu} with ${accelerator}; the newest kernel is ${release}` };
  } catch (error) {
    if (!(error instanceof FeatureUnavailableError)) throw error;
    return { ...finding, status: 'missing', found: `${error.feature} was not found`, remedy: error.remedy };
  }
}

/** `cowlab vm kernels`. */
export function vmKernels(): CommandOutput {
  const kernels = findKernels();
  const width = Math.max(0, ...kernels.map(({ release }) => release.length));
  const lines = kernels.map(({ release, path }) => `${release.padEnd(width)}  ${path}`);
  const none = `There is no kernel in ${kernelFolders().join(' or ')} that you may read; \`cowlab vm fetch 6.12\` gets one.`;
  return { text: lines.join('\n') || none, json: kernels, exitCode: EXIT.ok };
}

/** `cowlab vm fetch VERSION`. */
export async function vmFetch(version: string): Promise<CommandOutput> {
  if (!/^\d+(\.\d+)*$/.test(version)) throw new UsageError(`${version} is no version: write 6.1 or 6.12`);
  const kernel = await fetchKernel(version);
  return { text: `${kernel.release}  ${kernel.path}`, json: kernel, exitCode: EXIT.ok };
}
