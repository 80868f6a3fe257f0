/**
 * What became of a message, or of a client: the verdict in words, then each step, on whichever node it was, along one
 * line of time. Source: docs/protocol.md, HTTP API.
 */

import { inWords } from './api.js';
import { isId } from './cursor.js';
import { at, counted, epochCell, h, replace, say, streamBadge } from './dom.js';
import { linkTo, onView } from './views.js';

/** Words of steps, states and verdicts by their colour; all others may want a look. */
const GOOD = ['confirmed', 'delivered', 'connected', 'joined', 'resumed', 'broker_ready', 'kept'];
const PLAIN = ['journalled', 'heard', 'moved', 'node_came', 'written', 'handed', 'ended', 'closed', 'left', 'later'];
const FAULT = [
  'refused',
  'handshake_refused',
  'join_refused',
  'not_journalled',
  'not_heard',
  'gap',
  'gap_reset',
  'gap_expired',
  'reset',
  'expired',
  'thrown_away',
  'slow_closed',
  'lost',
  'node_died',
  'broker_lost',
];

const clock = new Intl.DateTimeFormat('en-GB', {
  day: '2-digit',
  month: '2-digit',
  hour: '2-digit',
  minute: '2-digit',
  second: '2-digit',
  fractionalSecondDigits: 3,
});

function toneOf(word) {
  if (GOOD.includes(word)) return 'good';
  if (PLAIN.includes(word)) return 'note';
  return FAULT.includes(word) ? 'fault' : 'warn';
}

/** Binds the view to `api`. */
export function startTrace(api) {
  const form = at('trace-form');
  const what = () => form.elements.what.value;
  const ofMessage = () => what() === 'message';
  let turn = 0;

  const choose = () => {
    for (const id of ['trace-stream-field', 'trace-place']) at(id).hidden = !ofMessage();
    at('trace-client').placeholder = ofMessage() ? 'all of them' : 'client';
  };
  const asked = () => {
    const [stream, epoch, offset, client] = ['stream', 'epoch', 'offset', 'client'].map((name) => at(`trace-${name}`).value.trim());
    if (!ofMessage()) return ['client', client];
    return ['message', stream, epoch || '-', offset || '-', ...(client ? [client] : [])];
  };

  /** Shows what the fields name. */
  const show = async () => {
    turn += 1;
    const own = turn;
    say(at('trace-words'), '');
    try {
      const [kind, first, epoch, offset, client] = asked();
      if (kind === 'client' && !isId(first)) throw new Error('a client is 1 to 128 of A-Z a-z 0-9 _ . @ -');
      if (kind === 'message' && !isStream(first)) throw new Error('a stream is client:<id>, group:<name> or all');
      const query = kind === 'client' ? { client: first } : { stream: first, ...given({ epoch, offset, client }) };
      const found = await api.call('GET', `api/trace?${new URLSearchParams(query)}`);
      if (own === turn) draw(found);
    } catch (error) {
      if (own !== turn) return;
      at('trace-found').hidden = true;
      say(at('trace-words'), inWords(error), true);
    }
  };

  for (const radio of form.elements.what) radio.addEventListener('change', choose);
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    const link = linkTo('trace', ...asked());
    if (location.hash === link) show();
    else location.hash = link;
  });
  onView('trace', (kind, ...parts) => {
    if (kind !== 'client' && kind !== 'message') return;
    form.elements.what.value = kind;
    if (kind === 'client') {
      at('trace-client').value = parts[0] ?? '';
    } else {
      const [stream, epoch, offset, client] = parts.map((part) => (part === '-' ? '' : part));
      for (const [name, value] of Object.entries({ stream, epoch, offset, client })) at(`trace-${name}`).value = value ?? '';
    }
    choose();
    show();
  });
  choose();
}

function isStream(text) {
  return text === 'all' || (/^(client|group):/.test(text) && isId(text.slice(text.indexOf(':') + 1)));
}

/** What of the query was filled in. */
function given(query) {
  return Object.fromEntries(Object.entries(query).filter(([, value]) => value && value !== '-'));
}

function draw(found) {
  at('trace-found').hidden = false;
  const verdicts = found.verdicts?.length ? found.verdicts : [{ code: '', words: 'Nothing stands out.' }];
  replace(at('trace-verdicts'), verdicts.map(verdictItem));
  replace(at('trace-journal'), found.journal ? [...journalFacts(found)] : []);
  at('trace-journal').hidden = !found.journal;
  const rows = found.journal ? (found.connections ?? []).map(heardRow) : (found.connections ?? []).flatMap(positionRows);
  at('trace-heads').replaceChildren(h('tr', {}, ...headsOf(found)));
  replace(at('trace-connections'), rows);
  at('trace-table').hidden = !rows.length;
  const silent = (found.nodes ?? []).filter(({ answered }) => !answered).map(({ node }) => node);
  say(at('trace-words'), silent.length ? `No answer from ${silent.join(', ')}: what they know is missing here.` : '', true);
  const nodes = [...new Set((found.steps ?? []).map(({ node }) => node ?? 'journal'))];
  replace(at('trace-steps'), (found.steps ?? []).map((step, index, all) => stepItem(step, all[index - 1], nodes)));
  at('trace-lanes').textContent = nodes.length ? `${counted((found.steps ?? []).length, 'step')} on ${nodes.join(', ')}` : 'No step is remembered.';
}

function verdictItem({ code, words }) {
  return h('li', { class: code ? `verdict ${toneOf(code)}` : 'verdict' }, h('strong', {}, words), ' ', h('code', {}, code));
}

function* journalFacts({ stream, epoch, offset, journal, nodes, counts, more }) {
  const fact = (name, ...values) => h('div', {}, h('dt', {}, name), h('dd', {}, ...values));
  yield fact('Message', streamBadge(stream), ` #${offset ?? '–'}`);
  yield fact('Epoch', epoch ?? '–');
  yield fact('Journal', `${journal.state}${journal.top === null || journal.top === undefined ? '' : `, top ${journal.top}`}`);
  if (journal.time) yield fact('Journalled', clock.format(journal.time));
  if (journal.bytes) yield fact('Bytes', journal.bytes.toLocaleString('en'));
  if (journal.client) yield fact('Published by', journal.client);
  if (journal.traceparent) yield fact('traceparent', journal.traceparent);
  for (const { node, follows, heard_ms, followers } of nodes ?? []) {
    if (heard_ms) yield fact(`Heard by ${node}`, `${clock.format(heard_ms)}, for ${counted(followers ?? 0, 'connection')} at once`);
    else if (follows) yield fact(`On ${node}`, 'not heard, or forgotten');
  }
  const sums = Object.entries(counts ?? {}).map(([state, count]) => `${count.toLocaleString('en')} ${state.replaceAll('_', ' ')}`);
  if (sums.length) yield fact('Connections', sums.join(', ') + (more ? '; not all are listed' : ''));
}

function headsOf({ journal }) {
  const names = journal ? ['Client', 'Connection', 'State', 'Then'] : ['Connection', 'Stream', 'Epoch', 'Sent', 'Confirmed', 'State'];
  return names.map((name) => h('th', { scope: 'col', class: ['Sent', 'Confirmed'].includes(name) ? 'number' : null }, name));
}

function state(word) {
  return h('td', {}, h('span', { class: `state ${toneOf(word)}` }, word.replaceAll('_', ' ')));
}

function heardRow({ client, connection, state: word, replayed, worker, closed }) {
  const notes = [replayed && 'replayed', worker && `over the trunk of ${worker}`].filter(Boolean);
  if (closed) notes.push(`closed ${clock.format(closed.time_ms)}, ${closed.code}${closed.reason ? `: ${closed.reason}` : ''}`);
  return h(
    'tr',
    {},
    h('td', {}, h('a', { href: linkTo('trace', 'client', client) }, client)),
    h('th', { scope: 'row' }, connection),
    state(word),
    h('td', { class: 'says' }, notes.join(' · ')),
  );
}

function positionRows({ connection, positions }) {
  return Object.entries(positions ?? {}).sort().map(([stream, { epoch, offset, confirmed, state: word }]) =>
    h(
      'tr',
      {},
      h('th', { scope: 'row' }, connection),
      h('td', {}, streamBadge(stream)),
      epochCell(epoch, `${connection} ${stream}`),
      h('td', { class: 'number' }, String(offset)),
      h('td', { class: 'number' }, confirmed === null || confirmed === undefined ? '–' : String(confirmed)),
      h('td', {}, word ?? ''),
    ),
  );
}

/** One step; `before` is the one above it, `nodes` have a line each. */
function stepItem({ time_ms, node, kind, words, client, connection }, before, nodes) {
  const lane = nodes.indexOf(node ?? 'journal');
  const lines = nodes.map((_, index) => h('span', { class: index === lane ? 'lane-line here' : 'lane-line' }));
  const after = before ? `+${after_ms(time_ms - before.time_ms)}` : '';
  const who = [connection ?? client, node ?? 'journal'].filter(Boolean).join(' on ');
  return h(
    'li',
    { class: `step ${toneOf(kind)}` },
    h('span', { class: 'rail', 'aria-hidden': 'true' }, ...lines),
    h('time', { class: 'time', datetime: new Date(time_ms).toISOString() }, clock.format(time_ms)),
    h('span', { class: 'after' }, after),
    h('strong', {}, kind.replaceAll('_', ' ')),
    h('span', { class: 'step-words' }, words, ' ', h('span', { class: 'says' }, who)),
  );
}

function after_ms(ms) {
  return ms < 10_000 ? `${ms.toLocaleString('en')} ms` : `${(ms / 1000).toLocaleString('en', { maximumFractionDigits: 0 })} s`;
}
