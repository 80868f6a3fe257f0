/** The command box: any command over the live connection, and its answer. */

import { inWords } from './api.js';
import { at, h, say } from './dom.js';
import { indented, jsonFault, manyLines } from './json.js';

/** A command to start from; the group is one that the client is in, where there is one. */
const COMMANDS = {
  ping: () => ({ type: 'ping' }),
  publish: (group) => ({ type: 'publish', group, data: { text: 'from one client to the others' } }),
  history: (group, position) => ({ type: 'history', group, ...position, limit: 100 }),
  presence: (group) => ({ type: 'presence', group }),
  call: () => ({ type: 'call', method: 'echo', data: { n: 1 } }),
  join: (group) => ({ type: 'join', group }),
  leave: (group) => ({ type: 'leave', group }),
  refresh: () => ({ type: 'refresh', token: '' }),
};

function commandFault(text) {
  const fault = jsonFault(text);
  if (fault !== null) return fault;
  return JSON.parse(text)?.constructor === Object ? null : 'a command is a JSON object';
}

/** Binds the panel; `live()` gives the client, or null where there is none. */
export function startCommand(live) {
  const type = at('command-type');
  const json = at('command-json');
  type.append(...Object.keys(COMMANDS).map((name) => h('option', { value: name }, name)));

  const fill = () => {
    const client = live();
    const stream = [...(client?.positions.keys() ?? [])].find((name) => name.startsWith('group:'));
    const position = stream ? { epoch: client.positions.get(stream)[0], offset: 0 } : {};
    json.value = indented(JSON.stringify(COMMANDS[type.value](stream?.slice(6) ?? 'news', position)));
    check();
  };
  const check = () => {
    const fault = commandFault(json.value);
    say(at('command-fault'), fault ?? '', true);
    json.setAttribute('aria-invalid', String(fault !== null));
    return fault === null;
  };

  type.addEventListener('change', fill);
  json.addEventListener('input', check);
  json.addEventListener('keydown', (event) => {
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) at('command-form').requestSubmit();
  });
  at('command-form').addEventListener('submit', async (event) => {
    event.preventDefault();
    if (!check()) {
      json.focus();
      return;
    }
    const client = live();
    if (!client) {
      say(at('command-words'), 'connect first', true);
      return;
    }
    say(at('command-words'), 'sent');
    at('command-answer').textContent = '';
    try {
      const { text, ms } = await client.send(JSON.parse(json.value));
      say(at('command-words'), `after ${ms.toFixed(1)} ms`);
      at('command-answer').append(manyLines(text));
    } catch (error) {
      say(at('command-words'), inWords(error), true);
    }
  });
  fill();
}
