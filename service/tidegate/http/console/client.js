/**
 * A Tidegate client: one WebSocket, the positions it has reached, and coming back after a cut.
 * No DOM. Source of the rules: docs/protocol.md.
 *
 * States. `idle`: nothing is under way. `connecting`: a socket is being opened; `welcome` ends it.
 * `online`: welcomed. `waiting`: closed, and coming back by itself after a random delay.
 *
 * Positions move only with what was handed to `onevent`, after it: who stores them in `onpositions`
 * resumes behind the last event it has handled.
 *
 * Where the cursor is too long for a handshake, the rest is joined afterwards, each group with its position. A lasting
 * membership brings such a group from now on with the handshake already: until its join is answered the position stays
 * and what comes is passed over, for it comes again.
 */

import { decodeCursor, groupOf, plan, samePositions } from './cursor.js';

const BEAT_MS = 15_000; // a page cannot see control pings, so it asks with JSON pings
const STABLE_MS = 10_000; // a connection that lasted this long makes the next delay a first one
const FIRST_DELAY_MS = 500;
const LONGEST_DELAY_MS = 30_000;
const OVERLOAD_DELAY_MS = 5_000;

/** Close codes in words, and whether to come back: yes, later (overload), token (with a new one), no. */
const CLOSES = new Map([
  [1000, ['done', 'no']],
  [1001, ['the edge is going away', 'yes']],
  [1002, ['the framing was broken', 'no']],
  [1003, ['binary data where none is allowed', 'no']],
  [1005, ['closed without a reason', 'yes']],
  [1006, ['the connection was cut', 'yes']],
  [1007, ['a message was not UTF-8', 'no']],
  [1009, ['a message was too big', 'no']],
  [1011, ['a fault in the gateway', 'yes']],
  [1012, ['the service is restarting', 'yes']],
  [1013, ['overload, try later', 'later']],
  [4007, ['no sign of life from this client', 'yes']],
  [4008, ['this client reads too slowly', 'yes']],
  [4009, ['the token expired', 'token']],
  [4500, ['too many commands that were not understood', 'no']],
  [4501, ['disconnected by the application', 'no']],
  [4502, ['another connection took over', 'no']],
]);

/** `[words, back]` of a close code. */
export function closeOf(code) {
  const known = CLOSES.get(code);
  if (known) return known;
  return ['closed', code >= 4000 && code < 4500 ? 'yes' : 'no'];
}

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

/** The bytes of a message's `data` as they came: `data` is the last key, and no value before it holds a quote. */
function dataOf(text) {
  return text.slice(text.indexOf(',"data":') + 8, -1);
}

/** An `error` that answered a command. */
export class CommandError extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
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

  #handlers;
  #socket = null;
  #attempt = 0;
  #online_ms = 0; // since when, by performance.now()
  #delay = 0; // timer of the return
  #beat = 0; // timer of the JSON pings
  #heard = false; // whether anything arrived since the last beat
  #nextId = 1;
  #pending = new Map(); // command id -> {command, sent_ms, resolve, reject}
  #later = []; // groups that did not fit the handshake
  #resuming = new Set(); // streams of those that have a position, until their join is answered
  #missed = new Map(); // stream -> [epoch, top]: up to there, messages are what was missed
  #unchecked = new Set(); // streams whose next offset a reset left open

  /**
   * `token` replaces `client` where the gateway wants one; it travels as a subprotocol, never in the URL.
   * Handlers: `onstate()`, `onevent(event, {missed, data})` with `data` the raw JSON of a message,
   * `onpositions()`. Besides the gateway's events there is `alarm`: a promise was broken.
   */
  constructor({ address, client, token = null, groups = [], positions = new Map() }, handlers) {
    this.address = address;
    this.client = client;
    this.token = token;
    this.groups = new Set(groups);
    this.positions = positions;
    this.#handlers = handlers;
  }

  /** Opens a socket, with the cursor where there are positions. Replaces the one there is. */
  connect() {
    this.#drop();
    const { cursor, groups, later } = plan(this.positions, this.groups);
    this.#later = later;
    let socket;
    try {
      const url = new URL(this.address);
      if (!this.token) url.searchParams.set('client', this.client);
      if (groups.length) url.searchParams.set('groups', groups.join(','));
      if (cursor) url.searchParams.set('cursor', cursor);
      socket = new WebSocket(url, ['tidegate.v1', ...(this.token ? [`bearer.${this.token}`] : [])]);
    } catch (error) {
      this.#enter('idle', error.message);
      return;
    }
    let opened = false;
    socket.onopen = () => (opened = true);
    socket.onmessage = ({ data }) => this.#receive(data);
    socket.onclose = ({ code, reason }) => this.#closed(code, reason, opened);
    this.#socket = socket;
    this.#enter('connecting');
  }

  /** Drops the socket and whatever is on its way; nothing comes back by itself. */
  cut() {
    this.#drop();
    this.#enter('idle');
  }

  /** Says goodbye with 1000. */
  close() {
    this.#drop(1000);
    this.#enter('idle');
  }

  /**
   * Sends a command; an id is added where there is none.
   * Resolves to `{event, text, ms}` with the answer. Rejects with CommandError, or with Error when the connection
   * ends first.
   */
  send(command) {
    if (this.state !== 'online') return Promise.reject(new Error('not connected'));
    const sent = command.id === undefined ? { ...command, id: this.#nextId++ } : command;
    return new Promise((resolve, reject) => {
      this.#pending.set(sent.id, { command: sent, sent_ms: performance.now(), resolve, reject });
      this.#socket.send(JSON.stringify(sent));
    });
  }

  #enter(state, words = '') {
    this.state = state;
    this.words = words;
    this.#handlers.onstate();
  }

  #drop(code) {
    clearTimeout(this.#delay);
    clearInterval(this.#beat);
    const socket = this.#socket;
    this.#socket = null;
    this.welcome = null;
    if (socket) {
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close(code);
    }
    this.#resuming.clear();
    const waiting = [...this.#pending.values()];
    this.#pending.clear();
    for (const { reject } of waiting) reject(new Error('the connection ended before the answer'));
  }

  #closed(code, reason, opened) {
    const lasted = this.state === 'online' && performance.now() - this.#online_ms > STABLE_MS;
    this.#drop();
    if (lasted) this.#attempt = 0;
    this.reached = opened;
    const [meaning, back] = closeOf(code);
    // A page is never told the HTTP status of a refused handshake.
    const words = opened ? `${code}: ${reason || meaning}` : 'no connection: the gateway is away or refused it';
    if (back === 'no' || back === 'token') {
      this.#enter('idle', back === 'token' ? `${words}; come back with a new one` : words);
      return;
    }
    const base = back === 'later' ? OVERLOAD_DELAY_MS : FIRST_DELAY_MS;
    const longest = Math.min(LONGEST_DELAY_MS, base * 2 ** this.#attempt++);
    const delay_ms = longest * (0.5 + Math.random() / 2); // random: a restart sends everybody away at once
    this.#delay = setTimeout(() => this.connect(), delay_ms);
    this.#enter('waiting', `${words}; trying again in ${(delay_ms / 1000).toFixed(1)} s`);
  }

  #welcomed(event) {
    const named = new Map(Object.entries(event.streams));
    for (const { group, epoch } of this.#later) if (epoch !== undefined) this.#resuming.add(`group:${group}`);
    for (const stream of this.positions.keys()) {
      if (!named.has(stream) && !this.#resuming.has(stream)) this.positions.delete(stream);
    }
    for (const [stream, start] of named) if (!this.#resuming.has(stream)) this.#start(stream, start);
    this.client = event.client;
    this.welcome = event;
    this.#online_ms = performance.now();
    this.#heard = true;
    this.#beat = setInterval(() => this.#live(), BEAT_MS);
    this.#enter('online');
    for (const join of this.#later) this.#quietly({ type: 'join', ...join });
    this.#quietly({ type: 'ping' });
  }

  /** A stream begins, or goes on, behind `offset`; from there up to `top` comes what was missed. */
  #start(stream, { epoch, offset, top, missed }) {
    this.positions.set(stream, [epoch, offset]);
    this.tops.set(stream, top);
    this.#unchecked.delete(stream);
    if (missed > 0) this.#missed.set(stream, [epoch, top]);
    else this.#missed.delete(stream);
    const group = groupOf(stream);
    if (group !== null) this.groups.add(group);
  }

  #end(stream) {
    this.#resuming.delete(stream);
    this.positions.delete(stream);
    this.tops.delete(stream);
    this.groups.delete(groupOf(stream));
  }

  /** The position is good as long as the gateway may take it later; nothing may pass it by meanwhile. */
  #notResumed({ group }, { code, message }) {
    if (code === 'broker_down') this.#closed(1013, message, true);
    else this.#end(`group:${group}`);
  }

  #live() {
    if (!this.#heard) {
      this.#closed(1006, 'nothing came back to a ping', true);
      return;
    }
    this.#heard = false;
    this.#quietly({ type: 'ping' });
  }

  /** A command of our own, whose failure shows as the event or the close that it is. */
  #quietly(command) {
    this.send(command).catch(() => {});
  }

  #receive(text) {
    this.#heard = true;
    const event = JSON.parse(text);
    if (['message', 'gap', 'joined'].includes(event.type) && this.#resuming.has(event.stream)) return;
    switch (event.type) {
      case 'welcome':
        this.#welcomed(event);
        break;
      case 'message':
        this.#message(event, text);
        return;
      case 'gap':
        this.#gap(event);
        break;
      case 'joined':
        this.#start(event.stream, event);
        break;
      case 'left':
        this.#end(event.stream);
        break;
      case 'reply':
      case 'pong':
      case 'error':
        this.#answer(event, text);
        break;
    }
    this.#handlers.onevent(event, {});
    this.#handlers.onpositions();
  }

  #message(event, text) {
    const { stream, epoch, offset } = event;
    const at = this.positions.get(stream);
    const follows = at && epoch === at[0] && offset === at[1] + 1;
    if (!follows && !this.#unchecked.has(stream)) {
      const words = at ? `after ${at[0]} ${at[1]} came ${epoch} ${offset}` : 'a stream that was never named';
      this.#handlers.onevent({ type: 'alarm', stream, words }, {});
    }
    const until = this.#missed.get(stream);
    const missed = until !== undefined && until[0] === epoch && offset <= until[1];
    this.#handlers.onevent(event, { missed, data: dataOf(text) });
    this.#unchecked.delete(stream);
    this.positions.set(stream, [epoch, offset]);
    if (offset > (this.tops.get(stream) ?? 0)) this.tops.set(stream, offset);
    this.#handlers.onpositions();
  }

  #gap({ stream, epoch, to, reason }) {
    const at = this.positions.get(stream);
    if (to !== null) {
      this.positions.set(stream, [epoch, to]);
    } else if (!at || at[0] !== epoch) {
      // A live reset does not say where the new journal stands: 0 can repeat messages, but skips none.
      this.positions.set(stream, [epoch, 0]);
    }
    if (reason === 'reset') this.#unchecked.add(stream);
  }

  #answer(event, text) {
    const waiting = this.#pending.get(event.id);
    if (!waiting) return;
    this.#pending.delete(event.id);
    const { command, sent_ms, resolve, reject } = waiting;
    const ms = performance.now() - sent_ms;
    if (event.type === 'error') {
      reject(new CommandError(event.code, event.message));
      if (command.type === 'join' && this.#resuming.has(`group:${command.group}`)) this.#notResumed(command, event);
      return;
    }
    // Positions move here and not where the promise is awaited: messages follow in the same turn.
    if (command.type === 'join') {
      this.#resuming.delete(event.stream);
      this.#start(event.stream, event);
    }
    if (command.type === 'leave') this.#end(`group:${command.group}`);
    if (event.type === 'pong') {
      this.roundTrip_ms = ms;
      const theirs = event.cursor === null ? null : decodeCursor(event.cursor);
      this.agrees = theirs && samePositions(theirs, this.positions);
    }
    resolve({ event, text, ms });
  }
}
