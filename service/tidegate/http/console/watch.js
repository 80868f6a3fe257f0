/** The view of what this node does: charts of the last five minutes. */

import { Chart } from './chart.js';
import { at } from './dom.js';
import { onView } from './views.js';

/** A chart's lines: what each is called, and the meter's reading. */
const CHARTS = [
  { title: 'Connections', lines: { open: 'connections' } },
  { title: 'Pushes per second', lines: { taken: 'pushes', refused: 'pushesRefused' } },
  { title: 'Deliveries per second', lines: { queued: 'deliveries' } },
  { title: 'From journal to socket', unit: 'ms', lines: { median: 'write50', '99 %': 'write99' } },
  { title: 'Heartbeat round trip', unit: 'ms', lines: { median: 'heartbeat50', '99 %': 'heartbeat99' } },
  { title: 'Event loop late by', unit: 'ms', lines: { median: 'lag50', '99 %': 'lag99' } },
  { title: 'Handshakes and closes per second', lines: { accepted: 'handshakes', refused: 'handshakesRefused', closed: 'closes' } },
];

/** Draws whenever `meter` has looked and the view is in sight. */
export function startWatch(meter) {
  const charts = CHARTS.map(({ title, unit, lines }) => {
    const chart = new Chart({ title, unit, series: Object.keys(lines) });
    at('charts').append(chart.element);
    return { chart, names: Object.values(lines) };
  });
  const draw = () => {
    if (at('view-watch').hidden) return;
    const times = meter.rows.map(({ at_ms }) => at_ms);
    for (const { chart, names } of charts) chart.draw(times, names.map((name) => meter.column(name)));
    at('watch-words').textContent = meter.scrape ? '' : 'This node does not answer.';
  };
  meter.onlook(draw);
  onView('watch', draw);
  addEventListener('resize', draw);
}
