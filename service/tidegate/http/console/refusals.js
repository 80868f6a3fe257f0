/** What was refused, and what was closed: counts since this node started. */

import { at, h, replace } from './dom.js';
import { onView } from './views.js';

/** Codes in words, where they don't speak for themselves; those of closes are client.js'. Source: docs/protocol.md, Errors. */
const WORDS = {
  bad_request: 'not as the protocol says',
  unauthorized: 'no token, or one that is not good',
  origin_not_allowed: 'a page of another origin: the setting origins',
  host_not_allowed: 'another Host: server.hosts, internal.hosts',
  upgrade_required: 'no WebSocket handshake',
  not_found: 'no such path',
  not_allowed: 'no right to it',
  too_many_connections: 'limits.connections_per_client',
  full: 'limits.connections, or memory for what is unsent',
  busy: 'more handshakes than the node takes at once',
  draining: 'the node was stopping',
  unavailable: 'sent on to another node',
  broker_down: 'Redis did not answer',
  auth_unavailable: 'the application did not say who it is',
  rejected: 'pushes through Redis that cannot be taken: Find shows them',
};

/** Where refusals are counted: what is refused there, by which label, and which values are none. */
const COUNTED = [
  ['Handshake', 'tidegate_handshakes_total', 'result', ['accepted']],
  ['Push', 'tidegate_pushes_total', 'result', ['accepted', 'published']],
  ['Command, API call', 'tidegate_refusals_total', 'code', []],
  ['Connection closed', 'tidegate_closes_total', 'code', []],
];

/** `closes`: close codes in words. Draws whenever `meter` has looked and the view is in sight. */
export function startRefusals(meter, closes) {
  const draw = () => {
    if (at('view-watch').hidden || !meter.scrape) return;
    replace(at('counts'), [...countRows(meter.scrape, closes)]);
    at('counts-none').hidden = at('counts').childElementCount > 0;
  };
  meter.onlook(draw);
  onView('watch', draw);
}

function* countRows(scrape, closes) {
  for (const [what, metric, label, none] of COUNTED) {
    const sums = new Map();
    for (const [labels, value] of scrape.samples(metric)) {
      if (!none.includes(labels[label])) sums.set(labels[label], (sums.get(labels[label]) ?? 0) + value);
    }
    for (const [code, count] of [...sums].filter(([, sum]) => sum > 0).sort(([, some], [, other]) => other - some)) {
      const words = WORDS[code] ?? closes.get(Number(code)) ?? '';
      yield h(
        'tr',
        {},
        h('td', {}, what),
        h('th', { scope: 'row' }, h('code', {}, code)),
        h('td', { class: 'number' }, count.toLocaleString('en')),
        h('td', { class: 'says' }, words),
      );
    }
  }
}
