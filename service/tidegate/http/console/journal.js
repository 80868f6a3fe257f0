/**
 * What a stream's journal holds: its newest messages, older ones page by page, and a search through all of them.
 * Data is shown to the letter.
 */

import { inWords } from './api.js';
import { at, counted, h, replace, say, streamBadge } from './dom.js';
import { dataCell, valuesOf } from './json.js';
import { linkTo } from './views.js';

const PAGE = 100;
const MOST_PAGES = 50; // of one search

const clock = new Intl.DateTimeFormat('en-GB', { dateStyle: 'short', timeStyle: 'medium' });

/** Binds the panel to `api`; gives a function that shows a stream. */
export function startJournal(api) {
  let stream = null;
  let epoch = '';
  let messages = []; // {offset, time, client, data}, the oldest first
  let oldest = true; // nothing older is kept
  let turn = 0; // what was asked before the last turn is thrown away

  const path = () => (stream === 'all' ? 'api/all/history' : `api/${stream.replace(':', 's/')}/history`);

  /** A page of the journal behind an offset; null begins with the oldest message that is kept. */
  const read = async (offset, limit) => {
    const since = offset === null ? '' : `&epoch=${encodeURIComponent(epoch)}&offset=${offset}`;
    const text = await api.text('GET', `${path()}?limit=${limit}${since}`);
    const page = JSON.parse(text);
    const data = valuesOf(text, 'data', 3);
    page.messages = page.messages.map((message, index) => ({ ...message, data: data[index] }));
    return page;
  };

  /** Runs `action(mine)`, `mine()` says whether nothing else was asked meanwhile. */
  const act = async (action) => {
    turn += 1;
    const own = turn;
    try {
      await action(() => own === turn);
    } catch (error) {
      if (own === turn) say(at('journal-words'), inWords(error), true);
    }
  };

  /** `{messages, oldest}`: the page that ends with the offset `end`. An answer may be cut: then the rest is asked for. */
  const before = async (end) => {
    const start = Math.max(0, end - PAGE);
    const found = [];
    let isOldest = start === 0;
    for (let last = start; last < end; last = found.at(-1).offset) {
      const page = await read(last, end - last);
      isOldest ||= Boolean(page.gap); // what is older was there, and is not kept any more
      const some = page.messages.filter(({ offset }) => offset <= end);
      if (!some.length) break;
      found.push(...some);
    }
    return { messages: found, oldest: isOldest };
  };

  const newest = () =>
    act(async (mine) => {
      const top = await read(null, 0);
      if (!mine()) return;
      epoch = top.epoch;
      const page = await before(top.top);
      if (!mine()) return;
      ({ messages, oldest } = page);
      draw(`epoch ${epoch}, top ${top.top}`);
    });

  const older = () =>
    act(async (mine) => {
      const page = await before(messages[0].offset - 1);
      if (!mine()) return;
      messages = [...page.messages, ...messages];
      oldest = page.oldest;
      draw(at('journal-words').textContent);
    });

  const search = (wanted) =>
    act(async (mine) => {
      const found = [];
      let seen = 0;
      let last = null;
      for (let pages = 0; pages < MOST_PAGES; pages += 1) {
        const page = await read(last, 1000);
        if (!mine()) return;
        epoch = page.epoch;
        seen += page.messages.length;
        found.push(...page.messages.filter((message) => `${message.client ?? ''} ${message.data}`.toLowerCase().includes(wanted)));
        last = page.messages.at(-1)?.offset ?? last;
        if (!page.messages.length || last === page.top) break;
      }
      messages = found.slice(-1000);
      oldest = true;
      draw(`${found.length.toLocaleString('en')} of ${counted(seen, 'message')} that are kept`);
    });

  const draw = (words) => {
    say(at('journal-words'), words);
    replace(at('journal'), [...messages].reverse().map((message) => row(stream, epoch, message)));
    at('journal-older').hidden = oldest;
    at('journal-none').hidden = messages.length > 0;
    at('journal-none').textContent = at('journal-search').value.trim() ? 'Nothing has that.' : 'It holds no message.';
  };

  const show = () => {
    const wanted = at('journal-search').value.trim().toLowerCase();
    return wanted ? search(wanted) : newest();
  };

  at('journal-form').addEventListener('submit', (event) => {
    event.preventDefault();
    if (stream) show();
  });
  at('journal-older').addEventListener('click', older);
  return (asked) => {
    stream = asked;
    messages = [];
    at('journal-stream').replaceChildren(streamBadge(stream));
    at('journal-form').hidden = false;
    show();
  };
}

function row(stream, epoch, { offset, time, client, data }) {
  const trace = linkTo('trace', 'message', stream, epoch, String(offset));
  return h(
    'li',
    { class: 'row message', 'data-offset': offset },
    h('time', { class: 'time', datetime: new Date(time).toISOString() }, clock.format(time)),
    h('a', { class: 'offset', href: trace, title: `Trace it; epoch ${epoch}` }, `#${offset}`),
    client ? h('span', { class: 'from' }, client) : null,
    dataCell(data),
  );
}
