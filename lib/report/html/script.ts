/**
 * What a report does where scripts run: a slider through the steps of a page map, and what is in the cell under the
 * pointer. It is never needed to read the report. The page's policy allows this text alone, by its hash.
 */
export const SCRIPT = `
'use strict';
const NAMES = { e: 'exclusive', s: 'shared', z: 'zero', w: 'swapped out', n: 'not present', u: 'not known' };
const count = (number) => number.toLocaleString('en-US');

function add(parent, name, properties) {
  const element = Object.assign(document.createElement(name), properties);
  parent.append(element);
  return element;
}

function addSlider(steps) {
  const all = [...steps.querySelectorAll(':scope > .step')];
  if (all.length < 2) return;
  const control = document.createElement('div');
  control.className = 'control';
  const label = add(control, 'label', { textContent: 'Step ' });
  const slider = add(label, 'input', { type: 'range', min: '1', max: String(all.length), value: String(Math.ceil(all.length / 2)) });
  const button = add(control, 'button', { type: 'button', textContent: 'Show all steps' });
  const show = () => {
    all.forEach((step, index) => step.classList.toggle('current', index + 1 === slider.valueAsNumber));
    slider.setAttribute('aria-valuetext', all[slider.valueAsNumber - 1].querySelector('h5').textContent);
  };
  slider.addEventListener('input', () => {
    steps.classList.add('stepped');
    button.textContent = 'Show all steps';
    show();
  });
  button.addEventListener('click', () => {
    const one = steps.classList.toggle('stepped');
    button.textContent = one ? 'Show all steps' : 'Show one step';
  });
  show();
  steps.classList.add('stepped');
  steps.before(control);
}

function cellsOf(figure) {
  return figure.dataset.cells.split(' ').flatMap((run) => {
    const [, times, cell] = /^(\\d+)(.*)$/.exec(run);
    return Array(Number(times)).fill(cell);
  });
}

function describeCell(figure, index, cell) {
  const each = Number(figure.dataset.cell);
  const first = index * each;
  const last = Math.min(first + each, Number(figure.dataset.pages)) - 1;
  const pages = first === last ? 'page ' + count(first) : 'pages ' + count(first) + '–' + count(last);
  const parts = [...cell.matchAll(/([a-z])(\\d+)/g)].map(([, state, number]) => count(Number(number)) + ' ' + NAMES[state]);
  return figure.querySelector('strong').textContent + ', ' + pages + ': ' + parts.join(', ');
}

function addReadout(map) {
  const readout = document.createElement('p');
  readout.className = 'readout';
  readout.textContent = 'Point at a cell for its exact pages.';
  map.querySelector('.steps').before(readout);
  map.addEventListener('pointermove', ({ target, offsetX, offsetY }) => {
    const figure = target.closest('.map');
    if (!figure || target.tagName !== 'IMG') return;
    const cells = (figure.cells ??= cellsOf(figure));
    const columns = Math.min(32, cells.length);
    const size = target.clientWidth / columns;
    const index = Math.floor(offsetY / size) * columns + Math.floor(offsetX / size);
    if (cells[index] !== undefined) readout.textContent = describeCell(figure, index, cells[index]);
  });
}

document.querySelectorAll('.pagemap').forEach(addReadout);
document.querySelectorAll('.steps').forEach(addSlider);
`;
