/** One way to the gateway, beside others: a client of its own, what it sees, and what can be done to it. */

import { inWords } from './api.js';
import { Client, PILLS } from './client.js';
import { h, say } from './dom.js';
import { canPace } from './pacedsocket.js';

const ASK_MS = 2000; // between two pings of our own
const PACES = { 'at once': 'at once', slow: 'one message a second', nothing: 'nothing' };

/** Positions in memory: a lane resumes after a cut, and starts anew with the page. */
function memory() {
  let text = null;
  return {
    getItem: () => text,
    setItem: (_, value) => {
      text = value;
    },
    removeItem: () => {
      text = null;
    },
  };
}

export class Lane {
  element;
  trip_ms = null;
  #name;
  #address;
  #api;
  #handlers;
  #client = null;
  #parts = {};
  #messages = 0;
  #missed = 0;
  #gaps = 0;
  #asking = false;
  #timer;

  /** Handlers: `onmessage(event, missed)`, and `onremove()` where it can be taken away. */
  constructor({ name, address, api }, handlers) {
    this.#name = name;
    this.#address = address;
    this.#api = api;
    this.#handlers = handlers;
    this.element = this.#card();
    this.#show();
    this.#timer = setInterval(() => this.#ask(), ASK_MS);
  }

  get name() {
    return this.#name;
  }

  get address() {
    return this.#address;
  }

  /** Connects as `{client, token, groups}`; behind its positions where it was cut as the same client. */
  connect(who) {
    const again = JSON.stringify(who);
    if (this.#client && this.#parts.who === again) {
      this.#client.connect();
      return;
    }
    this.#client?.close();
    this.#parts.who = again;
    try {
      this.#client = new Client(
        { address: this.#address, ...who, storage: memory() },
        { onstate: () => this.#show(), onevent: (...event) => this.#event(...event), onpositions: () => {} },
      );
    } catch (error) {
      this.#client = null;
      say(this.#parts.words, error.message, true);
      return;
    }
    this.#client.read(this.#parts.pace.value);
    this.#client.connect();
  }

  cut() {
    this.#client?.cut();
  }

  remove() {
    clearInterval(this.#timer);
    this.#client?.close();
    this.element.remove();
  }

  #card() {
    const part = (name, tag, properties = {}, ...children) => {
      this.#parts[name] = h(tag, properties, ...children);
      return this.#parts[name];
    };
    const fact = (name, title) => h('div', {}, h('dt', {}, title), part(name, 'dd'));
    const options = Object.entries(PACES).map(([kind, words]) => h('option', { value: kind }, words));
    const onchange = () => this.#client?.read(this.#parts.pace.value);
    const removes = this.#handlers.onremove;
    return h(
      'section',
      { class: 'card lane', 'aria-label': this.#name },
      h('div', { class: 'card-head' }, h('h3', {}, this.#name), part('pill', 'span', { class: 'pill idle', role: 'status' })),
      h('p', { class: 'hint address' }, this.#address),
      part('words', 'p', { class: 'words', 'aria-live': 'polite' }),
      h(
        'dl',
        { class: 'facts' },
        fact('connection', 'Connection'),
        fact('trip', 'Round trip'),
        fact('counts', 'Messages'),
        fact('agrees', "Gateway's cursor"),
      ),
      h('label', { class: 'inline-label' }, h('span', {}, 'Reads'), part('pace', 'select', { onchange, disabled: !canPace }, ...options)),
      h(
        'div',
        { class: 'buttons' },
        part('resume', 'button', { type: 'button', onclick: () => this.#client.connect() }, 'Resume'),
        part('cut', 'button', { type: 'button', onclick: () => this.cut() }, 'Cut'),
        part('disconnect', 'button', { type: 'button', onclick: () => this.#disconnect() }, 'Disconnect'),
        removes ? h('button', { type: 'button', class: 'quiet', onclick: removes }, 'Remove') : null,
      ),
    );
  }

  #event(event, { missed }) {
    if (event.type === 'message') {
      this.#messages += 1;
      if (missed) this.#missed += 1;
      this.#handlers.onmessage(event, missed);
    }
    if (event.type === 'gap') this.#gaps += 1;
    if (event.type === 'alarm') say(this.#parts.words, `promise broken: ${event.words}`, true);
    if (event.type === 'pong') this.trip_ms = this.#client.roundTrip_ms;
    this.#show();
  }

  #show() {
    const { pill, connection, trip, counts, agrees, words, resume, cut, disconnect } = this.#parts;
    const state = this.#client?.state ?? 'idle';
    const online = state === 'online';
    pill.className = `pill ${state}`;
    pill.textContent = PILLS[state];
    connection.textContent = this.#client?.welcome?.connection ?? '–';
    if (!online) this.trip_ms = null;
    trip.textContent = this.trip_ms === null ? '–' : `${this.trip_ms.toFixed(1)} ms`;
    const more = [this.#missed && `${this.#missed} missed`, this.#gaps && `${this.#gaps} gaps`].filter(Boolean);
    counts.textContent = [this.#messages.toLocaleString('en'), ...more].join(' · ');
    agrees.textContent = { null: '–', true: 'agrees', false: 'differs' }[this.#client?.agrees ?? null];
    if (state !== 'connecting') say(words, this.#client?.words ?? '', !online);
    resume.hidden = !this.#client || online || state === 'connecting';
    cut.hidden = state === 'idle';
    disconnect.hidden = !online;
  }

  async #ask() {
    if (this.#asking || document.hidden || this.#client?.state !== 'online') return;
    this.#asking = true;
    try {
      await this.#client.send({ type: 'ping' });
    } catch {
      // That it has ended is shown.
    }
    this.#asking = false;
  }

  /** As the application would: closed with 4501. */
  async #disconnect() {
    const { client, welcome } = this.#client;
    try {
      await this.#api.call('DELETE', `api/clients/${client}?connection=${encodeURIComponent(welcome.connection)}`);
    } catch (error) {
      say(this.#parts.words, inWords(error), true);
    }
  }
}
