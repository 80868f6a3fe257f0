/** The numbers in the head of the page: this node's, and nothing else. */

import { at } from './dom.js';

const SAMPLES = 60;
const WIDTH = 72;
const HEIGHT = 22;

const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const fine = new Intl.NumberFormat('en', { maximumFractionDigits: 1 });

/** What a tile shows, and whether it is a rate: then a small number has a decimal. */
const TILES = [
  { id: 'connections', rate: false },
  { id: 'pushes', rate: true },
  { id: 'deliveries', rate: true },
];

/** Draws whenever `meter` has looked. */
export function startTiles(meter) {
  meter.onlook(() => {
    for (const { id, rate } of TILES) {
      const values = meter.column(id).slice(-SAMPLES);
      const value = values.at(-1);
      at(id).textContent = value === null ? '–' : (value < 10 && rate ? fine : whole).format(value);
      drawLine(at(`${id}-line`), values);
    }
  });
}

/** A line through the samples, from the right; a sample of null breaks nothing but is left out. */
function drawLine(svg, samples) {
  const most = Math.max(1, ...samples.filter((sample) => sample !== null));
  const step = WIDTH / (SAMPLES - 1);
  const points = samples
    .map((sample, index) => [WIDTH - (samples.length - 1 - index) * step, sample])
    .filter(([, sample]) => sample !== null)
    .map(([x, sample]) => `${x.toFixed(1)},${(HEIGHT - 1.5 - (sample / most) * (HEIGHT - 3)).toFixed(1)}`);
  if (!svg.firstChild) {
    svg.setAttribute('viewBox', `0 0 ${WIDTH} ${HEIGHT}`);
    svg.append(document.createElementNS('http://www.w3.org/2000/svg', 'polyline'));
  }
  svg.firstChild.setAttribute('points', points.join(' '));
}
