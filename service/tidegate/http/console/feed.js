/**
 * The list of what arrived: messages, gaps, and what happened to the connection, oldest first.
 *
 * Rows are made and put in ten times a second at most, and the oldest go when there are more than `MOST`: 200 messages
 * a second cost little. A hidden tab draws nothing: then only the newest `MOST` wait.
 */

import { at, h, seldom, streamBadge } from './dom.js';
import { dataCell } from './json.js';

const MOST = 1000;

const clock = new Intl.DateTimeFormat('en-GB', {
  hour: '2-digit',
  minute: '2-digit',
  second: '2-digit',
  fractionalSecondDigits: 3,
});

export class Feed {
  #list = at('rows');
  #scroller = at('scroller');
  #filter = at('filter');
  #search = at('feed-search');
  #waiting = []; // what has no row yet
  #counts = { messages: 0, missed: 0, gaps: 0 };
  #streams = new Set(); // the choices of the filter
  #paused = false;
  #stuck = true; // the newest row is in view, and stays there
  #draw = seldom(() => this.#flush());

  constructor() {
    at('pause').addEventListener('click', () => this.#pause(!this.#paused));
    at('clear').addEventListener('click', () => this.clear());
    at('newest').addEventListener('click', () => this.#stick());
    this.#filter.addEventListener('change', () => this.#choose());
    this.#search.addEventListener('input', () => this.#choose());
    this.#scroller.addEventListener('scroll', () => {
      const { scrollTop, clientHeight, scrollHeight } = this.#scroller;
      this.#stuck = scrollTop + clientHeight > scrollHeight - 24;
      if (this.#stuck) at('newest').hidden = true;
    });
  }

  /** A `message` event; `data` is its raw JSON, `missed` whether it came from the journal. */
  message(event, data, missed) {
    this.#counts.messages += 1;
    if (missed) this.#counts.missed += 1;
    this.#add({ kind: 'message', event, data, missed, now_ms: Date.now() });
  }

  /** A `gap` event. */
  gap(event) {
    this.#counts.gaps += 1;
    this.#add({ kind: 'gap', event, now_ms: Date.now() });
  }

  /** Something to know beside messages; `tone` is note, good, warn or fault. */
  note(tone, title, words, stream = null) {
    this.#add({ kind: tone, title, words, stream, now_ms: Date.now() });
  }

  /** Offers a stream in the filter. */
  offer(stream) {
    if (this.#streams.has(stream)) return;
    this.#streams.add(stream);
    this.#filter.append(h('option', { value: stream }, stream));
  }

  clear() {
    this.#waiting = [];
    this.#list.replaceChildren();
    this.#counts = { messages: 0, missed: 0, gaps: 0 };
    this.#draw();
  }

  #add(entry) {
    this.#waiting.push(entry);
    if (this.#waiting.length > MOST) this.#waiting.shift();
    this.#draw();
  }

  #flush() {
    if (!this.#paused && this.#waiting.length) {
      const rows = this.#waiting.map(rowOf);
      this.#waiting = [];
      for (const row of rows) this.#sift(row);
      this.#list.append(...rows);
      while (this.#list.childElementCount > MOST) this.#list.firstElementChild.remove();
      if (this.#stuck) this.#stick();
      else at('newest').hidden = false;
    }
    at('feed-none').hidden = this.#list.childElementCount > 0;
    const { messages, missed, gaps } = this.#counts;
    const parts = [`${messages.toLocaleString('en')} ${messages === 1 ? 'message' : 'messages'}`];
    if (missed) parts.push(`${missed.toLocaleString('en')} missed`);
    if (gaps) parts.push(`${gaps} ${gaps === 1 ? 'gap' : 'gaps'}`);
    at('feed-count').textContent = parts.join(' · ');
    at('pause').textContent = this.#paused ? `Go on (${this.#waiting.length} waiting)` : 'Pause';
  }

  #pause(paused) {
    this.#paused = paused;
    at('pause').setAttribute('aria-pressed', String(paused));
    this.#draw();
  }

  #stick() {
    at('newest').hidden = true;
    this.#stuck = true;
    this.#scroller.scrollTop = this.#scroller.scrollHeight;
  }

  /** A chosen stream hides the others' rows; rows of no stream speak of the connection and stay. A search hides all that lack it. */
  #sift(row) {
    const chosen = this.#filter.value;
    const wanted = this.#search.value.trim().toLowerCase();
    const isOthers = chosen !== '' && row.dataset.stream !== undefined && row.dataset.stream !== chosen;
    row.hidden = isOthers || (wanted !== '' && !row.textContent.toLowerCase().includes(wanted));
  }

  #choose() {
    for (const row of this.#list.children) this.#sift(row);
    this.#stick();
  }
}

function rowOf(entry) {
  const time = h('time', { class: 'time', datetime: new Date(entry.now_ms).toISOString() }, clock.format(entry.now_ms));
  if (entry.kind === 'message') return messageRow(entry, time);
  if (entry.kind === 'gap') return gapRow(entry.event, time);
  const { kind, title, words, stream } = entry;
  return noteRow(`note ${kind}`, time, stream, title, words);
}

function noteRow(kind, time, stream, title, words) {
  const badge = stream === null ? [] : [streamBadge(stream), ' '];
  const body = h('div', {}, h('strong', {}, title), ' ', ...badge, h('span', { class: 'says' }, words));
  return h('li', { class: `row ${kind}`, 'data-stream': stream }, time, body);
}

function messageRow({ event, data, missed, now_ms }, time) {
  const late_ms = now_ms - event.time; // by two clocks, where the gateway runs elsewhere
  const when = clock.format(event.time);
  const latency = missed
    ? h('span', { class: 'mark', title: `pushed ${when}, while this client was away` }, 'missed')
    : h('span', { class: 'latency', title: `pushed ${when}` }, latencyOf(late_ms));
  return h(
    'li',
    { class: missed ? 'row message missed' : 'row message', 'data-stream': event.stream, 'data-offset': event.offset },
    time,
    streamBadge(event.stream),
    h('span', { class: 'offset', title: `epoch ${event.epoch}` }, `#${event.offset}`),
    latency,
    event.client ? h('span', { class: 'from', title: 'published by this client' }, event.client) : null,
    dataCell(data),
  );
}

function latencyOf(late_ms) {
  if (Math.abs(late_ms) < 10_000) return `${late_ms} ms`;
  return `${(late_ms / 1000).toLocaleString('en', { maximumFractionDigits: 0 })} s`;
}

function gapRow({ stream, epoch, from, to, reason }, time) {
  const expired = 'the journal no longer holds them';
  const reset = `the journal was lost or started anew; it goes on in epoch ${epoch}`;
  const offsets = from === to ? `offset ${from}` : `offsets ${from} to ${to}`;
  const lost = from === null ? 'an unknown number of messages' : offsets;
  if (reason === 'skipped') return noteRow('gap', time, stream, `Gap: ${offsets} skipped`, 'newer messages stand for them');
  return noteRow('gap', time, stream, `Gap: ${lost} lost`, `${reason}: ${reason === 'reset' ? reset : expired}`);
}
