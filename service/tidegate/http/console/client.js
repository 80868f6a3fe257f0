/**
 * The console's client: the library (tidegate-client.js, made of clients/js) does the work; this shows what it does. No DOM.
 *
 * States. `idle`: nothing is under way. `connecting`: a socket is being opened; `welcome` ends it.
 * `online`: welcomed. `waiting`: closed, and coming back by itself after a random delay.
 */

import { decodeCursor, groupOf, samePositions } from './cursor.js';
import { Pace, PacedSocket } from './pacedsocket.js';
import { Tidegate } from './tidegate-client.js';
import { Answers, dataOf, tapped } from './wire.js';

const BEAT_S = 15;
const MOST_KEPT = 2000; // texts that wait for their message's handler

/** The states in words. */
export const PILLS = { idle: 'Not connected', connecting: 'Connecting', online: 'Online', waiting: 'Coming back' };

/** Close codes in words, where the gateway gives no reason. */
export const CLOSES = new Map([
  [1000, 'done'],
  [1001, 'the edge is going away'],
  [1002, 'the framing was broken'],
  [1003, 'binary data where none is allowed'],
  [1005, 'closed without a reason'],
  [1006, 'the connection was cut'],
  [1007, 'a message was not UTF-8'],
  [1009, 'a message was too big'],
  [1011, 'a fault in the gateway'],
  [1012, 'the service is restarting'],
  [1013, 'overload, try later'],
  [4007, 'no sign of life from this client'],
  [4008, 'this client reads too slowly'],
  [4009, 'the token expired'],
  [4500, 'too many commands that were not understood'],
  [4501, 'disconnected by the application'],
  [4502, 'another connection took over'],
]);

/** The client id in a JWT; null where the token cannot be read. Nothing is verified here. */
export function subjectOf(token) {
  const payload = token.split('.')[1] ?? '';
  try {
    const subject = JSON.parse(atob(payload.replaceAll('-', '+').replaceAll('_', '/'))).sub;
    return typeof subject === 'string' ? subject : null;
  } catch {
    return null;
  }
}

export class Client {
  state = 'idle';
  words = ''; // why the state is as it is; empty when there is nothing to say
  welcome = null; // the last welcome while online, else null
  roundTrip_ms = null;
  reached = true; // false: the last attempt ended before the socket opened
  agrees = null; // whether the gateway's cursor in the last pong equals ours; null before the first
  tops = new Map(); // stream -> newest offset that was named to us
  pace = new Pace();

  #tidegate;
  #handlers;
  #socket = null; // that was welcomed
  #newest = null; // [socket, welcome] that the library is about to take
  #opening = 0; // sockets that are on their way
  #answers = new Answers();
  #pinged_ms = 0;
  #subscriptions = new Map(); // group -> subscription
  #texts = new Map(); // `stream epoch offset` -> raw data of a message

  /**
   * `token` replaces `client` where the gateway wants one. `storage` keeps positions.
   * Handlers: `onstate()`, `onevent(event, {missed, data})` with `data` the raw JSON of a message,
   * `onpositions()`. Besides the gateway's events there is `alarm`: a promise was broken.
   */
  constructor({ address, client, token = null, groups = [], storage }, handlers) {
    this.client = client;
    this.#handlers = handlers;
    const who = token ? { token } : { client };
    const options = { ...who, storage, pingInterval_s: BEAT_S, autoConnect: false, WebSocket: this.#socketClass() };
    this.#tidegate = new Tidegate(address, options);
    this.#tidegate.on('state', (state) => (state === 'connected' ? this.#welcomed() : this.#look()));
    this.#tidegate.direct(this.#handlersOf());
    this.#tidegate.all(this.#handlersOf());
    for (const group of groups) this.#follow(group);
  }

  /** How far messages have arrived: a Map from stream to `[epoch, offset]`. */
  get positions() {
    return new Map(Object.entries(this.#tidegate.positions));
  }

  connect() {
    this.#tidegate.connect();
  }

  /** Drops the connection; nothing comes back by itself. */
  cut() {
    this.#tidegate.disconnect();
  }

  /** How fast it reads from now on: a `Pace`'s kind. A socket that cannot read slowly is changed for one that can. */
  read(kind) {
    this.pace.kind = kind;
    if (kind === 'at once' || this.#socket === null || this.#socket instanceof PacedSocket) return;
    this.#tidegate.disconnect();
    this.#tidegate.connect();
  }

  /** The end. */
  close() {
    this.#tidegate.close();
  }

  /**
   * Sends a command; an id is added where there is none.
   * Resolves to `{event, text, ms}` with the answer. Rejects with CommandError, or with Error when the connection
   * ends first. What moves positions is left to the library.
   */
  async send(command) {
    if (this.state !== 'online') throw new Error('not connected');
    const { type, group, token } = command;
    const answer = this.#answers.expect(matcherOf(command));
    if (type === 'join' && this.#subscriptions.get(group)?.joined !== true) this.#join(command);
    else if (type === 'leave' && this.#subscriptions.has(group)) this.#leave(group);
    else if (type === 'refresh' && typeof token === 'string') this.#tidegate.refresh(token).catch(() => {});
    else this.#socket.send(JSON.stringify({ ...command, id: command.id ?? this.#answers.newId() }));
    return answer;
  }

  // Subscriptions

  #handlersOf() {
    return {
      onMessage: (message) => this.#message(message),
      onGap: (gap) => this.#gap(gap),
      onJoined: ({ stream, top }) => {
        this.tops.set(stream, top);
        this.#handlers.onpositions();
      },
      onLeft: () => this.#handlers.onpositions(),
    };
  }

  #follow(group, more = {}) {
    const subscription = this.#tidegate.group(group, { ...this.#handlersOf(), ...more });
    this.#subscriptions.set(group, subscription);
  }

  /** With a position the library is told where the data of this group ends: it goes on from there. */
  #join({ group, epoch, offset }) {
    if (this.#subscriptions.has(group)) this.#leave(group);
    let position = epoch === undefined ? null : { epoch, offset };
    const state = () => {
      const first = { position };
      position = null;
      return first;
    };
    this.#follow(group, position ? { state } : {});
  }

  #leave(group) {
    this.#subscriptions.get(group).leave();
    this.#subscriptions.delete(group);
    this.tops.delete(`group:${group}`);
  }

  #message(message) {
    const { stream, epoch, offset, missed } = message;
    const key = `${stream} ${epoch} ${offset}`;
    const data = this.#texts.get(key);
    this.#texts.delete(key);
    if (offset > (this.tops.get(stream) ?? 0)) this.tops.set(stream, offset);
    this.#handlers.onevent({ type: 'message', ...message }, { missed, data });
    this.#handlers.onpositions();
  }

  #gap(gap) {
    const { stream, from, to, reason } = gap;
    if (reason === 'hole') {
      this.#handlers.onevent({ type: 'alarm', stream, words: `${from} to ${to} were left out without a word` }, {});
    }
    this.#handlers.onevent({ type: 'gap', ...gap }, {});
    this.#handlers.onpositions();
  }

  // The wire

  /** A browser's own socket, as long as it reads at once. Called by `new`, which gives what is returned. */
  #socketClass() {
    const [tap, pace] = [this.#tap(), this.pace];
    const Plain = tapped(tap, WebSocket);
    const Paced = tapped(tap, PacedSocket);
    return function Socket(url, protocols) {
      return pace.kind === 'at once' ? new Plain(url, protocols) : new Paced(url, protocols, pace);
    };
  }

  #tap() {
    return {
      opening: () => {
        this.#opening += 1;
        this.reached = false;
        queueMicrotask(() => this.#look());
      },
      opened: () => {
        this.reached = true;
      },
      received: (socket, event, text) => this.#received(socket, event, text),
      sent: (command) => {
        if (command.type === 'ping') this.#pinged_ms = performance.now();
        this.#answers.sent(command);
      },
      ended: (socket) => {
        this.#opening -= 1;
        if (this.#socket === socket) {
          this.#socket = null;
          this.#answers.end();
        }
        setTimeout(() => this.#look()); // when the library knows, too
      },
    };
  }

  /** Before the library has it. */
  #received(socket, event, text) {
    switch (event.type) {
      case 'welcome':
        this.#newest = [socket, event];
        setTimeout(() => this.#welcomed()); // where it moves to another node its state stays
        break;
      case 'message':
        this.#texts.set(`${event.stream} ${event.epoch} ${event.offset}`, dataOf(text));
        if (this.#texts.size > MOST_KEPT) this.#texts.delete(this.#texts.keys().next().value);
        break;
      case 'joined':
        this.#later(event, () => {
          if (!this.#subscriptions.has(groupOf(event.stream))) this.#follow(groupOf(event.stream));
        });
        break;
      case 'gap':
        break; // the library tells of it, in order with the messages
      case 'pong':
        this.roundTrip_ms = performance.now() - this.#pinged_ms;
        this.agrees = event.cursor === null ? null : samePositions(decodeCursor(event.cursor), this.positions);
        this.#answers.received(event, text);
        this.#handlers.onevent(event, {});
        break;
      default:
        this.#answers.received(event, text);
        this.#later(event);
    }
  }

  /** Tells of it when the library has taken it, too. */
  #later(event, then = () => {}) {
    setTimeout(() => {
      then();
      this.#handlers.onevent(event, {});
      this.#handlers.onpositions();
    });
  }

  /** The library is connected over this socket. */
  #welcomed() {
    if (!this.#newest) return;
    const [socket, event] = this.#newest;
    this.#newest = null;
    this.#socket = socket;
    this.welcome = event;
    this.client = event.client;
    for (const [stream, { top }] of Object.entries(event.streams)) {
      const group = groupOf(stream);
      this.tops.set(stream, top);
      if (group !== null && !this.#subscriptions.has(group)) this.#follow(group); // a lasting membership
    }
    this.#look();
    this.#handlers.onevent(event, {});
    this.#handlers.onpositions();
    this.#tidegate.ping().catch(() => {});
  }

  /** Shows what has become of it. */
  #look() {
    const [state, words] = this.#now();
    if (state === this.state && words === this.words) return;
    this.state = state;
    this.words = words;
    if (state !== 'online') this.welcome = null;
    this.#handlers.onstate();
  }

  #now() {
    const { state, reason } = this.#tidegate;
    if (state === 'connected') return this.#socket ? ['online', ''] : ['connecting', ''];
    if (state === 'connecting' && (this.#opening > 0 || !reason)) return ['connecting', ''];
    if (!reason || reason.word === 'done') return ['idle', ''];
    // A page is never told the HTTP status of a refused handshake.
    const known = reason.message || CLOSES.get(reason.code) || 'closed';
    const words = this.reached ? `${reason.code}: ${known}` : 'no connection: the gateway is away or refused it';
    if (state === 'connecting') return ['waiting', `${words}; trying again soon`];
    return ['idle', reason.word === 'token_expired' ? `${words}; come back with a new one` : words];
  }
}

/** Recognises a command when the library, or we, send it. */
function matcherOf({ type, group, epoch, token }) {
  return (command) =>
    command.type === type && command.group === group && command.epoch === epoch && command.token === token;
}
