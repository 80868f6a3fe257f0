/** Looking up a client or a group, on all nodes, and acting on what is found. */

import { inWords } from './api.js';
import { isId } from './cursor.js';
import { at, h, say } from './dom.js';

/** Binds the panel to `api`. */
export function startLookup(api) {
  const form = at('lookup-form');
  const names = { client: 'alice', group: 'news' };
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
      const name = names[what()];
      at('lookup-answer').replaceChildren();
      if (!isId(name)) throw new Error(`a ${what()} is 1 to 128 of A-Z a-z 0-9 _ . @ -`);
      const found = await api.call('GET', `api/${what()}s/${name}`);
      at('lookup-answer').append(what() === 'client' ? clientAnswer(found) : groupAnswer(found));
    });
  const choose = (kind, name) => {
    form.elements.what.value = kind;
    names[kind] = name;
    at('lookup-name').value = name;
    show();
  };

  const clientAnswer = ({ client, connections }) => {
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
          smallButton('Disconnect', () => disconnect(connection.connection)),
        ),
        h('p', { class: 'hint' }, `on ${connection.node}, since ${sinceOf(connection)}`),
        chipsOf(connection.groups, (group) => choose('group', group)),
      ),
    );
    const summary = `${client} has ${counted(connections.length, 'connection')}`;
    const all = connections.length > 1 ? smallButton('Disconnect all', () => disconnect(null)) : null;
    const head = h('div', { class: 'node-head' }, h('p', {}, summary), all);
    return h('div', {}, head, h('ul', { class: 'nodes' }, ...items));
  };

  const groupAnswer = ({ group, clients, connections }) => {
    const input = h('input', { 'aria-label': 'Client', maxlength: 128, spellcheck: 'false', placeholder: 'client' });
    const member = (method, words) =>
      act(async () => {
        if (!isId(input.value)) throw new Error('a client is 1 to 128 of A-Z a-z 0-9 _ . @ -');
        await api.call(method, `api/groups/${group}/members/${input.value}`);
        const done = `${input.value} ${words} ${group}`;
        await show();
        return done;
      });
    return h(
      'div',
      {},
      h('p', {}, `${group}: ${counted(clients.length, 'client')} on ${counted(connections, 'connection')}`),
      chipsOf(clients, (client) => choose('client', client)),
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

  for (const radio of form.elements.what) {
    radio.addEventListener('change', () => {
      at('lookup-name').value = names[what()];
    });
  }
  at('lookup-name').addEventListener('input', () => {
    names[what()] = at('lookup-name').value.trim();
  });
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    show();
  });
}

function sinceOf({ since_ms }) {
  return new Date(since_ms).toLocaleString('en-GB');
}

function counted(number, word) {
  return `${number.toLocaleString('en')} ${word}${number === 1 ? '' : 's'}`;
}

function smallButton(text, onclick) {
  return h('button', { type: 'button', class: 'quiet', onclick }, text);
}

/** Names as buttons that look the name up. */
function chipsOf(names, onname) {
  const chip = (name) => h('button', { type: 'button', class: 'chip', onclick: () => onname(name) }, name);
  return h('div', { class: 'names' }, ...names.map(chip));
}
