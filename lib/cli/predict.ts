/** `cowlab predict`: what would a fork charge, VMA by VMA, and would it succeed here? */
import { binaryBytes, type ChargeReason, type ForkPrediction, type VmaCharge } from '../machine/linux/predict.js';
import {
  paint,
  printable,
  shorten,
  table,
  wrap,
  type Column,
  type CommandOutput,
  type TextOptions,
} from '../report/paragraph.js';

/** Rows shown one by one; the rest is summed. */
export const TOP_VMAS = 10;

const COLUMNS: readonly Column[] = [
  { name: 'start', title: 'start' },
  { name: 'perms', title: 'perms' },
  { name: 'pages', title: 'pages', alignment: 'right' },
  { name: 'size', title: 'charge', alignment: 'right' },
  { name: 'path', title: 'mapping' },
];

const REASONS: Record<Exclude<ChargeReason, 'accounted'>, string> = {
  dontfork: 'marked MADV_DONTFORK',
  noreserve: 'MAP_NORESERVE',
  'not-accounted': 'shared, read-only or special',
};

/** The prediction as text of 80 columns. */
export function predictReport(prediction: ForkPrediction, options: TextOptions = {}): string {
  const { vmas, sentence, outcome, chargedPages, chargedBytes, pageSizeBytes, admission, refusedVma, otherCauses } =
    prediction;
  const charged = vmas.filter((vma) => vma.chargedPages > 0).sort((a, b) => b.chargedPages - a.chargedPages);
  const rest = charged.slice(TOP_VMAS);
  const rows = charged.slice(0, TOP_VMAS).map((vma) => ({
    start: vma.start,
    perms: vma.perms,
    pages: vma.chargedPages,
    size: binaryBytes(vma.chargedPages * pageSizeBytes),
    path: mappingName(vma),
  }));
  const sum = (items: readonly VmaCharge[]): number => items.reduce((total, vma) => total + vma.chargedPages, 0);
  if (rest.length > 0) {
    const pages = sum(rest);
    rows.push({
      start: '',
      perms: '',
      pages,
      size: binaryBytes(pages * pageSizeBytes),
      path: `${rest.length} smaller ones`,
    });
  }
  rows.push({
    start: '',
    perms: '',
    pages: chargedPages,
    size: binaryBytes(chargedBytes),
    path: `all ${charged.length} charged`,
  });

  const left = (Object.keys(REASONS) as (keyof typeof REASONS)[])
    .map((reason) => ({ text: REASONS[reason], ...prediction.byReason[reason] }))
    .filter((group) => group.vmas > 0)
    .map((group) => `${group.vmas} ${group.text} (${binaryBytes(group.pages * pageSizeBytes)})`);
  const lines = [
    paint(
      outcome === 'succeeds' ? 'green' : outcome === 'fails' ? 'red' : 'yellow',
      wrap(printable(sentence)),
      options,
    ),
    '',
    table(COLUMNS, rows),
  ];
  if (left.length > 0) lines.push(wrap(`Not charged: ${left.join('; ')}.`));
  lines.push(wrap(printable(admission.why)));
  if (refusedVma) {
    const verb = admission.fork === 'refused' ? 'is refused' : 'may be refused';
    const { start, end, pages } = refusedVma;
    lines.push(wrap(`The VMA that ${verb}: ${start}-${end}, ${pages} pages, ${mappingName(refusedVma)}.`));
  }
  if (admission.remedy !== undefined) lines.push(wrap(`What helps: ${admission.remedy}`));
  for (const { cause, likelihood, evidence, remedy } of otherCauses) {
    lines.push(
      '',
      wrap(`${likelihood === 'certain' ? 'Refused by' : 'Not excluded:'} ${cause}. ${printable(evidence)}`),
    );
    if (remedy !== undefined) lines.push(wrap(`What helps: ${remedy}`));
  }
  return lines.join('\n');
}

function mappingName({ path, wipeonfork }: VmaCharge): string {
  const name = shorten(path === '' ? 'anonymous' : printable(path), wipeonfork ? 17 : 30);
  return wipeonfork ? `${name} (wipeonfork)` : name;
}

/** @returns Exit code 0 whatever the prediction is: it is an answer and not a failure. */
export function runPredict(prediction: ForkPrediction, options: TextOptions = {}): CommandOutput {
  return { text: predictReport(prediction, options), json: prediction, exitCode: 0 };
}
