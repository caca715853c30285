/** The program of the question in real Python: a parent with a big list, and a Pool of each start method. */
import { check } from '../machine/compare.js';
import { readTreeMemory } from '../proc/process-tree.js';
import { readStatm } from '../proc/stat.js';
import type { Figure } from '../schema/figure.js';
import type { Check, NamedFigure } from '../schema/result.js';
import { formatBytes, formatCount } from '../schema/units.js';
import { pythonOrWhyNot } from './cpython.js';
import { defineExperiment } from './define.js';
import type { MeasureContext, Measurement, Needs, ParamsOf } from './define.js';
import { FLOAT, Layout, OBMALLOC, pagesIn } from './python-layout.js';
import { METHODS, QuestionProgram } from './question-program.js';
import type { PoolAttempt } from './question-program.js';
import { approximately, formatKb } from './tree-figures.js';

const params = {
  mode: {
    type: 'choice',
    default: 'heuristic',
    choices: ['heuristic', 'strict'],
    describe: "heuristic: the system's own overcommit mode; strict: vm.overcommit_memory=2, with a limit of our own",
  },
  size: {
    type: 'size',
    default: 64 * 2 ** 20,
    min: 2 ** 20,
    max: 2 ** 40,
    describe: 'the list of floats of the parent',
  },
  children: { type: 'integer', default: 8, min: 2, max: 64, describe: 'workers of the Pool' },
} as const;
type Context = MeasureContext<typeof params>;

/** A float of CPython is a block of 32 bytes, and its place in the list a pointer of 8. */
const ELEMENT_BYTES = 40;

interface Findings {
  rows: (string | number)[][];
  checks: Check[];
  figures: NamedFigure[];
  notes: string[];
}

/** Whether fork came out as predict said it would. */
export function checkPrediction(where: string, { predicted, errno }: PoolAttempt): Check {
  const expected: Figure =
    predicted.outcome === 'uncertain'
      ? { unknown: 'the limit is too close to tell' }
      : predicted.errno === 'ENOMEM'
        ? 12
        : predicted.errno === 'EAGAIN'
          ? 11
          : 0;
  return check(
    `${where}: errno of Pool() with fork, as cowlab predict says before it`,
    'errno',
    'comparison',
    expected,
    errno,
  );
}

/** Each start method, with all that it takes. */
async function tryMethods(program: QuestionProgram, context: Context): Promise<Findings> {
  const { params: values, progress, sample, machine } = context;
  const found: Findings = { rows: [], checks: [], figures: [], notes: [] };
  const layout = new Layout(OBMALLOC['3.10'], FLOAT, program.elements, machine.facts.pageSizeBytes);
  const floatKb = (pagesIn(layout.counts) * machine.facts.pageSizeBytes) / 1024;
  for (const method of METHODS) {
    progress(`Pool(${String(values.children)}) with ${method}`);
    const before = readTreeMemory(program.pid);
    const attempt = await program.startPool(method, values.children);
    const started = readTreeMemory(program.pid);
    const seen = attempt.errno === 0 ? await program.work() : { workers: 0, elements: NaN };
    const after = readTreeMemory(program.pid);
    await program.closePool();
    found.checks.push(check(`${method}: workers that started`, 'workers', 'anchor', values.children, attempt.workers));
    const inherited = method === 'fork' ? program.elements : 0;
    found.checks.push(check(`${method}: elements that a worker finds`, 'elements', 'anchor', inherited, seen.elements));
    if (method === 'fork') {
      found.checks.push(checkPrediction('fork', attempt));
      const why =
        'each worker that looks at the floats copies every page with a count; what else it writes comes on top';
      const least = { min: seen.workers * floatKb, max: Number.MAX_SAFE_INTEGER, why };
      found.checks.push(
        check('fork: growth of the sum of Pss by looking', 'kB', 'bound', least, after.pssKb - started.pssKb),
      );
    }
    found.rows.push([
      method,
      `${attempt.startMs.toFixed(0)} ms`,
      formatKb(before.pssKb),
      formatKb(started.pssKb),
      formatKb(after.pssKb),
      formatCount(seen.elements),
    ]);
    found.figures.push({ name: `${method}: sum of Pss at work`, unit: 'kB', value: after.pssKb, headline: true });
    sample({
      method,
      'Pool() took (ms)': attempt.startMs,
      'sum of Pss, before (kB)': before.pssKb,
      started: started.pssKb,
      'at work (kB)': after.pssKb,
      'sum of Rss, at work (kB)': after.rssKb,
    });
  }
  return found;
}

/** The genuine OSError of today's default: one mapping of the parent is larger than RAM plus swap. */
async function tryBeyond(program: QuestionProgram, context: Context): Promise<Findings> {
  const { params: values, progress, machine } = context;
  const found: Findings = { rows: [], checks: [], figures: [], notes: [] };
  if (machine.facts.overcommitMode !== 0) {
    found.notes.push(
      'vm.overcommit_memory is not 0, so that one big mapping decides nothing; mode=strict shows the other.',
    );
    return found;
  }
  await program.growBeyond();
  for (const method of METHODS) {
    progress(`Pool with ${method}, with one mapping beyond RAM plus swap`);
    const attempt = await program.startPool(method, values.children);
    if (attempt.errno === 0) await program.closePool();
    if (method === 'fork') found.checks.push(checkPrediction('beyond RAM plus swap', attempt));
    const predicted = method === 'fork' ? (attempt.predicted.errno ?? attempt.predicted.outcome) : '-';
    found.rows.push([method, predicted, attempt.errno === 0 ? `${String(attempt.workers)} workers` : attempt.error]);
    found.figures.push({
      name: `beyond RAM plus swap, ${method}: errno`,
      unit: 'errno',
      value: attempt.errno,
      headline: method === 'fork',
    });
  }
  found.notes.push(
    'One mapping of the parent was grown beyond RAM plus swap by mmap.resize, and not a page of it touched: that is ' +
      "today's heuristic limit, not the one of 2017. forkserver and spawn start their first process by vfork, which " +
      'shares the memory of the parent and is charged nothing.',
  );
  return found;
}

const AVAILABLE = 'strict: MemAvailable when one was refused';

/** How many workers are to start before one is refused, and how much of one more is left. */
const SPARE_SHARE = 0.7;

/** The article's own: strict overcommit, with a limit at which some worker is refused. */
async function tryStrict(program: QuestionProgram, context: Context): Promise<Findings> {
  const { params: values, progress, machine } = context;
  const found: Findings = { rows: [], checks: [], figures: [], notes: [] };
  const fits = Math.floor(values.children / 2);
  const { chargedBytes } = program.predict();
  const { committedBytes } = await machine.readMemory();
  // What the kernel holds back from this process as well [mm/util.c: __vm_enough_memory].
  const reserveBytes = machine.facts.userReservePages * machine.facts.pageSizeBytes;
  const unit = machine.facts.pageSizeBytes;
  const held = Math.min(reserveBytes, (readStatm(program.pid).sizePages * unit) / 32);
  const limitBytes = Math.ceil((committedBytes + (fits + SPARE_SHARE) * chargedBytes + held) / unit) * unit;
  progress(`Pool(${String(values.children)}) with fork, CommitLimit ${formatBytes(limitBytes)}`);
  await machine.setOvercommit({ mode: 2, limitBytes });
  const attempt = await program.startPool('fork', values.children);
  const { availableBytes } = await machine.readMemory();
  const availableKb: Figure = typeof availableBytes === 'number' ? availableBytes / 1024 : availableBytes;
  const enough: Figure = {
    min: chargedBytes / 1024,
    max: Number.MAX_SAFE_INTEGER,
    why: 'the limit leaves less than the memory that is there',
  };
  found.rows.push(['fork', String(attempt.workers), attempt.error]);
  found.checks.push(
    check('strict: errno of Pool()', 'errno', 'anchor', 12, attempt.errno),
    check('strict: workers before one was refused', 'workers', 'anchor', fits, attempt.workers),
    check('strict: MemAvailable when it was refused', 'kB', 'bound', enough, availableKb),
  );
  found.figures.push(
    { name: 'strict: errno of Pool()', unit: 'errno', value: attempt.errno, headline: true },
    { name: 'strict: workers before one was refused', unit: 'workers', value: attempt.workers, headline: true },
    { name: AVAILABLE, unit: 'kB', value: availableKb, headline: true },
  );
  found.notes.push(
    `Each fork was charged ${formatBytes(chargedBytes)}, as cowlab predict said; the limit left room for ` +
      `${String(fits)} of them and ${String(SPARE_SHARE)} of one more.`,
  );
  return found;
}

async function measure(context: Context): Promise<Measurement> {
  const { params: values, progress, closeLater } = context;
  const python = pythonOrWhyNot();
  if (typeof python === 'string') throw new Error(python);
  const elements = Math.floor(values.size / ELEMENT_BYTES);
  progress(`Python ${python.release} makes a list of ${formatCount(elements)} floats`);
  const program = await QuestionProgram.start(python, elements, closeLater);
  const title = `Python ${python.release}, a list of ${formatBytes(values.size)}, Pool(${String(values.children)})`;
  if (values.mode === 'strict') {
    const { rows, checks, figures, notes } = await tryStrict(program, context);
    const tables = [{ title: `${title}, strict`, columns: ['method', 'workers', 'then'], rows }];
    return { figures, tables, plots: [], notes, checks };
  }
  const methods = await tryMethods(program, context);
  const beyond = await tryBeyond(program, context);
  return {
    figures: [...methods.figures, ...beyond.figures],
    tables: [
      {
        title: `${title}: sum of Pss`,
        columns: ['method', 'Pool()', 'before', 'started', 'at work', 'elements'],
        rows: methods.rows,
      },
      ...(beyond.rows.length > 0
        ? [
            {
              title: 'The same with one mapping beyond RAM plus swap',
              columns: ['method', 'cowlab predict', 'Pool()'],
              rows: beyond.rows,
            },
          ]
        : []),
    ],
    plots: [],
    notes: [
      'At work every worker has added the list up, as far as it finds one: fresh interpreters do not.',
      `The default start method of this Python is ${program.defaultMethod}.`,
      ...methods.notes,
      ...beyond.notes,
    ],
    checks: [...methods.checks, ...beyond.checks],
  };
}

function needs(values: ParamsOf<typeof params>): Needs {
  const python = pythonOrWhyNot();
  // Looking at floats copies them, in every worker; an interpreter has some 10 MiB of its own.
  const memoryBytes =
    values.size * (values.mode === 'strict' ? 1 : 1 + values.children) + values.children * 10 * 2 ** 20;
  const base: Needs = { memoryBytes, ...(values.mode === 'strict' ? { changes: ['overcommit'] } : {}) };
  if (typeof python === 'string') return { ...base, lacking: python };
  if (values.mode === 'strict' && values.size < LEAST_STRICT_BYTES) {
    const least = formatBytes(LEAST_STRICT_BYTES);
    throw new RangeError(`size must be at least ${least} with mode=strict: what is left must be enough for Node`);
  }
  return base;
}

/** What is left of the limit when a worker has been refused is a part of this, and everybody has to live on it. */
const LEAST_STRICT_BYTES = 64 * 2 ** 20;

export const multiprocessing = defineExperiment({
  name: 'multiprocessing',
  title: "The question's own program: does Pool(8) of a big Python fail?",
  claim: {
    text: 'multiprocessing.Pool of a parent with a big list gives OSError: [Errno 12] Cannot allocate memory',
    source: 'https://stackoverflow.com/questions/42584525',
  },
  params,
  programs: ['python3'],
  needs,
  run: () => Promise.resolve({ figures: [], tables: [], plots: [], notes: [] }),
  measure,

  conclude(result, agreed, { mode, children }) {
    if (!agreed) return { outcome: 'undecided', inShort: 'Prediction and measurement differ; see the checks.' };
    const value = (name: string): Figure | undefined => result.figures.find((figure) => figure.name === name)?.value;
    if (mode === 'strict') {
      const started = value('strict: workers before one was refused');
      return {
        outcome: 'holds',
        inShort:
          `Under strict overcommit worker ${typeof started === 'number' ? String(started + 1) : 'number so-and-so'} of ` +
          `${String(children)} is refused, with the genuine OSError: [Errno 12], while ` +
          `${formatBytes(approximately(value(AVAILABLE) ?? 0) * 1024)} of memory are available.`,
      };
    }
    return {
      outcome: 'holds only if',
      inShort:
        'On default settings Pool() of a big parent works with every start method; fork says OSError: [Errno 12] only ' +
        'when one mapping exceeds RAM plus swap, or under strict overcommit (mode=strict). Forked workers find the list ' +
        'and copy it as they look at it; those of forkserver and spawn do not have it.',
    };
  },
});
