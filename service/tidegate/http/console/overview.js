/** What the node and its neighbours do right now, by asking them every two seconds. */

import { inWords } from './api.js';
import { at, h, say } from './dom.js';

const EVERY_MS = 2000;
const SAMPLES = 60;

const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const fine = new Intl.NumberFormat('en', { maximumFractionDigits: 1 });

/** What a tile shows and from which metric; a `rate` is the metric's growth in a second. */
const TILES = [
  { id: 'connections', metric: 'tidegate_connections', rate: false },
  { id: 'pushes', metric: 'tidegate_pushes_total', rate: true },
  { id: 'deliveries', metric: 'tidegate_deliveries_total', rate: true },
];

/** Starts asking; nothing is asked while the page is hidden, nor for nodes while nobody looks at them. */
export function startOverview(api) {
  const samples = new Map(TILES.map(({ id }) => [id, []]));
  let last = null; // {sums, at_ms} of the previous answer

  const tick = async () => {
    if (!document.hidden) {
      last = await drawTiles(api, samples, last);
      if (!at('panel-nodes').hidden) await drawNodes(api);
    }
    setTimeout(tick, EVERY_MS);
  };
  at('tab-nodes').addEventListener('click', () => drawNodes(api));
  tick();
}

async function drawTiles(api, samples, last) {
  let sums = null;
  try {
    sums = await api.metrics();
  } catch {
    // The tiles say it: no numbers.
  }
  const now_ms = performance.now();
  for (const { id, metric, rate } of TILES) {
    const value = rate ? rateOf(metric, sums, last, now_ms) : sums?.get(metric) ?? null;
    const kept = samples.get(id);
    kept.push(value);
    if (kept.length > SAMPLES) kept.shift();
    at(id).textContent = value === null ? '–' : (value < 10 && rate ? fine : whole).format(value);
    drawLine(at(`${id}-line`), kept);
  }
  return sums && { sums, at_ms: now_ms };
}

/** Growth per second; null without two answers, or when the node was started anew in between. */
function rateOf(metric, sums, last, now_ms) {
  const now = sums?.get(metric);
  const before = last?.sums.get(metric) ?? 0;
  if (!last || now === undefined || now < before) return null;
  return ((now - before) * 1000) / (now_ms - last.at_ms);
}

/** A line through the samples, from the right; a sample of null breaks nothing but is left out. */
function drawLine(svg, samples) {
  const width = 72;
  const height = 22;
  const most = Math.max(1, ...samples.filter((sample) => sample !== null));
  const step = width / (SAMPLES - 1);
  const points = samples
    .map((sample, index) => [width - (samples.length - 1 - index) * step, sample])
    .filter(([, sample]) => sample !== null)
    .map(([x, sample]) => `${x.toFixed(1)},${(height - 1.5 - (sample / most) * (height - 3)).toFixed(1)}`);
  if (!svg.firstChild) {
    svg.setAttribute('viewBox', `0 0 ${width} ${height}`);
    svg.append(document.createElementNS('http://www.w3.org/2000/svg', 'polyline'));
  }
  svg.firstChild.setAttribute('points', points.join(' '));
}

async function drawNodes(api) {
  if (!api.open) {
    say(at('nodes-words'), 'The list of nodes needs the API key.');
    return;
  }
  try {
    const { nodes } = await api.call('GET', 'api/nodes');
    say(at('nodes-words'), '');
    at('nodes').replaceChildren(...nodes.map(nodeItem));
  } catch (error) {
    say(at('nodes-words'), inWords(error), true);
  }
}

function nodeItem(node) {
  const state = node.draining
    ? h('span', { class: 'pill waiting' }, 'draining')
    : h('span', { class: 'pill online' }, 'serving');
  const lag = node.lag_ms === null ? 'no canary yet' : `${fine.format(node.lag_ms)} ms`;
  return h(
    'li',
    {},
    h('div', { class: 'node-head' }, h('strong', {}, node.node), state),
    h(
      'dl',
      { class: 'facts' },
      fact('Connections', whole.format(node.connections)),
      fact('Version', node.version),
      fact('Started', new Date(node.started_ms).toLocaleString('en-GB')),
      fact('Through the broker', lag),
    ),
  );
}

function fact(name, value) {
  return h('div', {}, h('dt', {}, name), h('dd', {}, value));
}
