/** Pushes through Redis that could not be taken: what, when and why. */

import { inWords } from './api.js';
import { at, counted, h, replace, say } from './dom.js';
import { onView } from './views.js';

const clock = new Intl.DateTimeFormat('en-GB', { dateStyle: 'short', timeStyle: 'medium' });

/** Binds the panel to `api`; it is read whenever the view comes into sight. */
export function startRejected(api) {
  let found = [];
  const draw = () => {
    const wanted = at('rejected-search').value.trim().toLowerCase();
    const shown = found.filter((push) => Object.values(push).join(' ').toLowerCase().includes(wanted));
    replace(at('rejected'), shown.map(row));
    say(at('rejected-words'), found.length ? `${shown.length} of ${counted(found.length, 'push', 'pushes')}` : 'None is kept.');
  };
  const read = async () => {
    if (!api.open) {
      say(at('rejected-words'), 'The list needs the API key.');
      return;
    }
    try {
      found = (await api.call('GET', 'api/rejected?limit=200')).rejected;
      draw();
    } catch (error) {
      say(at('rejected-words'), inWords(error), true);
    }
  };
  at('rejected-search').addEventListener('input', draw);
  at('rejected-again').addEventListener('click', read);
  addEventListener('keychange', () => {
    if (!at('view-find').hidden) read();
  });
  onView('find', read);
}

function row({ id, rejected_ms, stream, size, reason, data }) {
  const cut = data.length < size ? '…' : '';
  return h(
    'tr',
    {},
    h('td', { class: 'time' }, clock.format(rejected_ms)),
    h('th', { scope: 'row' }, reason),
    h('td', {}, stream || '–'),
    h('td', {}, h('code', {}, id)),
    h('td', { class: 'number' }, size.toLocaleString('en')),
    h('td', {}, h('code', { class: 'data' }, data + cut)),
  );
}
