/** Looking up a client or a group, on all nodes, and acting on what is found; its journal is shown beside. */

import { inWords } from './api.js';
import { isId } from './cursor.js';
import { at, counted, epochCell, h, say, streamBadge } from './dom.js';
import { go, linkTo, onView } from './views.js';

const NOT_AN_ID = 'is 1 to 128 of A-Z a-z 0-9 _ . @ -';

/** Binds the panel to `api`; `showJournal(stream)` shows what a stream holds. */
export function startLookup(api, showJournal) {
  const form = at('lookup-form');
  const names = { client: 'alice', group: 'news', all: '' };
  const what = () => form.elements.what.value;

  /** Runs `action`; says what it resolves to, or why it failed. */
  const act = async (action) => {
    try {
      say(at('lookup-words'), (await action()) ?? '');
    } catch (error) {
      say(at('lookup-words'), inWords(error), true);
    }
  };
  const show = () =>
    act(async () => {
      const [kind, name] = [what(), names[what()]];
      at('lookup-answer').replaceChildren();
      if (kind !== 'all' && !isId(name)) throw new Error(`a ${kind} ${NOT_AN_ID}`);
      showJournal(kind === 'all' ? 'all' : `${kind}:${name}`);
      if (kind === 'all') return;
      const found = await api.call('GET', `api/${kind}s/${name}`);
      const positions = kind === 'client' ? await positionsOf(api, name) : null;
      at('lookup-answer').replaceChildren(kind === 'client' ? clientAnswer(found, positions) : groupAnswer(found));
    });
  const choose = (kind, name) => {
    form.elements.what.value = kind;
    if (name !== undefined) names[kind] = name;
    at('lookup-name').value = names[kind];
    at('lookup-name-field').hidden = kind === 'all';
  };

  const clientAnswer = ({ client, connections, groups }, positions) => {
    const disconnect = (connection) =>
      act(async () => {
        const query = connection ? `?connection=${encodeURIComponent(connection)}` : '';
        await api.call('DELETE', `api/clients/${client}${query}`);
        await show();
        return `${connection ?? client} was told to go (4501)`;
      });
    const items = connections.map((connection) =>
      h(
        'li',
        {},
        h(
          'div',
          { class: 'node-head' },
          h('strong', {}, connection.connection),
          smallButton('Disconnect', () => disconnect(connection.connection), `Disconnect ${connection.connection}`),
        ),
        h('p', { class: 'hint' }, `on ${connection.node}, since ${sinceOf(connection)}`),
        chipsOf('group', connection.groups),
        positionsTable(positions.get(connection.connection)),
      ),
    );
    const summary = `${client} has ${counted(connections.length, 'connection')}`;
    const all = connections.length > 1 ? smallButton('Disconnect all', () => disconnect(null)) : null;
    const lasting = groups.length ? h('p', { class: 'hint' }, 'Lasting memberships') : null;
    return h(
      'div',
      {},
      h('div', { class: 'node-head' }, h('p', {}, summary), h('a', { href: linkTo('trace', 'client', client) }, 'Trace'), all),
      h('ul', { class: 'nodes' }, ...items),
      lasting,
      chipsOf('group', groups),
    );
  };

  const groupAnswer = ({ group, clients, connections }) => {
    const input = h('input', { 'aria-label': 'Client', maxlength: 128, spellcheck: 'false', placeholder: 'client' });
    const member = (method, words) =>
      act(async () => {
        const client = input.value.trim();
        if (!isId(client)) throw new Error(`a client ${NOT_AN_ID}`);
        await api.call(method, `api/groups/${group}/members/${client}`);
        await show();
        return `${client} ${words} ${group}`;
      });
    return h(
      'div',
      {},
      h('p', {}, `${group}: ${counted(clients.length, 'client')} on ${counted(connections, 'connection')}`),
      chipsOf('client', clients),
      h('h3', {}, 'Lasting membership'),
      h(
        'div',
        { class: 'inline' },
        input,
        smallButton('Add', () => member('PUT', 'is a member of')),
        smallButton('Remove', () => member('DELETE', 'is no member of')),
      ),
    );
  };

  for (const radio of form.elements.what) radio.addEventListener('change', () => choose(what()));
  at('lookup-name').addEventListener('input', () => {
    names[what()] = at('lookup-name').value.trim();
  });
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    const asked = linkTo('find', what(), ...(names[what()] ? [names[what()]] : []));
    if (location.hash === asked) show();
    else location.hash = asked;
  });
  onView('find', (kind, name) => {
    if (!(kind in names)) return;
    choose(kind, name);
    show();
  });
}

/** How far each connection of a client was told, and is known to have received, by connection; empty where no node says. */
async function positionsOf(api, client) {
  try {
    const { connections } = await api.call('GET', `api/trace?client=${client}&limit=1`);
    return new Map(connections.map((connection) => [connection.connection, connection]));
  } catch {
    return new Map();
  }
}

function positionsTable(traced) {
  if (!traced) return h('p', { class: 'hint' }, 'Its node does not say how far it is.');
  const { connection, positions, unsent_bytes } = traced;
  const rows = Object.entries(positions).sort().map(([stream, { epoch, offset, confirmed }]) =>
    h(
      'tr',
      {},
      h('th', { scope: 'row' }, streamBadge(stream)),
      epochCell(epoch, `${connection} ${stream}`),
      h('td', { class: 'number' }, String(offset)),
      h('td', { class: 'number' }, confirmed === null || confirmed === undefined ? '–' : String(confirmed)),
    ),
  );
  return h(
    'div',
    {},
    h(
      'table',
      { class: 'streams' },
      h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, 'Stream'), ...['Epoch', 'Sent', 'Confirmed'].map(headOf))),
      h('tbody', {}, ...rows),
    ),
    h('p', { class: 'hint' }, `${(unsent_bytes ?? 0).toLocaleString('en')} bytes wait to be sent`),
  );
}

function headOf(name) {
  return h('th', { scope: 'col', class: name === 'Epoch' ? null : 'number' }, name);
}

function sinceOf({ since_ms }) {
  return new Date(since_ms).toLocaleString('en-GB');
}

function smallButton(text, onclick, label = null) {
  return h('button', { type: 'button', class: 'quiet', 'aria-label': label, onclick }, text);
}

/** Names as buttons that look the name up. */
function chipsOf(kind, names) {
  const chip = (name) => h('button', { type: 'button', class: 'chip', onclick: () => go('find', kind, name) }, name);
  return h('div', { class: 'names' }, ...names.map(chip));
}
