/** What was refused, and what was closed: counts since this node started, and the newest handshakes that any node refused. */

import { inWords } from './api.js';
import { at, h, replace, say } from './dom.js';
import { linkTo, onView } from './views.js';

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

const clock = new Intl.DateTimeFormat('en-GB', { dateStyle: 'short', timeStyle: 'medium' });

/** `closes`: close codes in words. Draws whenever `meter` has looked and the view is in sight. */
export function startRefusals(api, meter, closes) {
  let found = []; // the newest refused handshakes
  const search = at('refusals-search');

  const drawNewest = () => {
    const wanted = search.value.trim().toLowerCase();
    const shown = found.filter((each) => Object.values(each).join(' ').toLowerCase().includes(wanted));
    replace(at('refusals'), shown.map(refusalRow));
    at('refusals-none').hidden = shown.length > 0;
    at('refusals-none').textContent = found.length ? 'None of them has that.' : 'None is remembered.';
  };
  const draw = async () => {
    if (at('view-watch').hidden) return;
    if (meter.scrape) replace(at('counts'), [...countRows(meter.scrape, closes)]);
    at('counts-none').hidden = at('counts').childElementCount > 0;
    if (!api.open) {
      say(at('refusals-words'), 'The list needs the API key.');
      return;
    }
    try {
      found = (await api.call('GET', 'api/refusals?limit=200')).refusals;
      say(at('refusals-words'), '');
      drawNewest();
    } catch (error) {
      say(at('refusals-words'), inWords(error), true);
    }
  };
  search.addEventListener('input', drawNewest);
  meter.onlook(draw);
  onView('watch', draw);
  addEventListener('keychange', draw);
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

function refusalRow({ time_ms, node, status, code, message, client, claimed, address }) {
  const who = client === null ? '–' : h('a', { href: linkTo('trace', 'client', client) }, claimed ? `“${client}”` : client);
  return h(
    'tr',
    {},
    h('td', { class: 'time' }, clock.format(time_ms)),
    h('th', { scope: 'row' }, h('code', {}, `${status} ${code}`)),
    h('td', {}, who),
    h('td', {}, [address, node].filter(Boolean).join(' at ')),
    h('td', { class: 'says' }, message),
  );
}
