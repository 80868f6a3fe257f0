/**
 * The machine: from `disconnected` to `connected` and back. See clients/README.md.
 *
 * At most one connection is current, and at most one is being tried: beside it where the client changes over (the node
 * is `moving`, or a stream can only be begun anew by connecting), else instead of it. A connection that was replaced is
 * kept for the answers that it still owes. What is told comes last: a callback may do anything.
 */

import { delay_ms, growing_ms } from './closes.js';
import { Commands } from './commands.js';
import { Connection } from './connection.js';
import { isId } from './cursor.js';
import { NotAllowed, report, TidegateError } from './errors.js';
import { idle, watchPage } from './liveness.js';
import { Store } from './store.js';
import { Streams } from './streams.js';
import { Subscription } from './subscription.js';
import { claimsOf } from './token.js';

const TARGET_CHARS = 6144;
const WAKE_S = 5;
const DEFAULTS = {
  storageKey: 'tidegate',
  welcomeTimeout_s: 10,
  answerTimeout_s: 10,
  pingInterval_s: 25,
  pongTimeout_s: 10,
  backoff_s: [0.5, 30],
  stable_s: 10,
  queueLimit: 1000,
};

const FINAL = new Set(['unauthorized', 'not_allowed', 'bad_request']); // a token that was refused so is not sent again

const endOf = (word, message, code = 1006) => ({ code, word, message, again: false });

const uniqueKey = () => [1, 2, 3].map(() => Math.random().toString(36).slice(2)).join('-');

const checked = (name) => {
  if (isId(name)) return name;
  throw new TidegateError('bad_request', `${JSON.stringify(name)} is no name`);
};

export class Tidegate {
  #url;
  #options;
  #state = 'disconnected';
  #reason = null;
  #listeners = {}; // event: Set of callbacks
  #waiting = []; // for `ready`: [resolve, reject]
  #over = false; // by `close()`
  #auto = true; // it connects by itself with the next microtask

  #token; // a string, or a function
  #renewing = null; // the connection whose token is being renewed
  #store;
  #stored; // a promise: what was stored has been read
  #streams;
  #commands;

  #current = null; // the connection that was welcomed
  #trying = null; // one that is not yet
  #retired = new Set(); // those that still owe answers
  #next = null; // timer of the next attempt
  #giveUp = null; // timer
  #failures = 0; // since a connection was stable
  #since_ms = 0; // when the current one was welcomed
  #sure = false; // whether an attempt knew the client's id, and did not only remember it
  #misses = 0; // attempts without a welcome, one after the other
  #unwatch = () => {};

  constructor(url, options = {}) {
    this.#url = new URL(url, globalThis.location?.href);
    this.#url.protocol = this.#url.protocol.replace('http', 'ws');
    this.#url.hash = '';
    this.#options = { ...DEFAULTS, WebSocket: globalThis.WebSocket, ...options };
    if (!this.#options.WebSocket) throw new Error('no WebSocket here: take Node 22, or give {WebSocket}');
    if (options.client !== undefined) checked(options.client);
    if (options.device !== undefined) checked(options.device);
    this.#token = options.token;
    const failed = (error) => this.#failed(error);
    this.#store = new Store(options.last ? null : options.storage, this.#options.storageKey, failed);
    this.#commands = new Commands(this.#options.answerTimeout_s);
    this.#streams = new Streams(this.#store, this.#options.queueLimit, {
      order: (command, done) => this.#commands.order(command, done),
      reconnect: () => this.#changeOver(),
      tell: (event, ...told) => this.#tell(event, ...told),
      failed,
      changed: () => this.#checkReady(),
    });
    if (options.autoConnect !== false) queueMicrotask(() => this.#auto && this.connect());
  }

  get state() {
    return this.#state;
  }

  get reason() {
    return this.#reason;
  }

  /** The client's id, once the gateway has said it. */
  get client() {
    return this.#streams.client;
  }

  /** How far messages have arrived: `{stream: [epoch, offset]}`. */
  get positions() {
    return this.#streams.positions;
  }

  group(name, handlers) {
    return new Subscription(this, this.#streams, `group:${checked(name)}`, handlers);
  }

  direct(handlers) {
    return new Subscription(this, this.#streams, 'client:', handlers);
  }

  all(handlers) {
    return new Subscription(this, this.#streams, 'all', handlers);
  }

  leave(group) {
    this.#streams.leave(this.#streams.get(`group:${checked(group)}`));
  }

  on(event, callback) {
    this.#listeners[event] ??= new Set();
    this.#listeners[event].add(callback);
    return () => this.#listeners[event].delete(callback);
  }

  async ready() {
    await null; // what is asked for in the same breath belongs to it
    if (this.#state === 'closed') throw new TidegateError('closed', this.#reason.word);
    return new Promise((resolve, reject) => {
      this.#waiting.push([resolve, reject]);
      this.#checkReady();
    });
  }

  connect() {
    if (this.#over) throw new TidegateError('closed');
    this.#auto = false;
    if (this.#current || this.#trying) return;
    this.#failures = 0;
    if (this.#state !== 'connecting') this.#reason = null;
    this.#unwatch();
    this.#unwatch = watchPage(
      () => this.#wake(),
      () => this.#store.flush(),
    );
    this.#attempt();
    this.#become('connecting');
  }

  disconnect() {
    if (this.#over) return;
    this.#stop();
    this.#reason = null;
    this.#become('disconnected');
  }

  close() {
    if (this.#over) return;
    this.#over = true;
    this.#stop();
    this.#streams.end();
    this.#end(endOf('done', '', 1000));
  }

  async publish(group, data, { key, conflate, traceparent } = {}) {
    const words = { conflate, traceparent, key: key === false ? undefined : (key ?? uniqueKey()) };
    return this.#ask({ type: 'publish', group: checked(group), data: data ?? null, ...words }, key !== false);
  }

  async call(method, data, { traceparent } = {}) {
    return this.#ask({ type: 'call', method, data: data ?? null, traceparent }, false);
  }

  async history(group, { position, limit } = {}) {
    const { epoch, offset } = position ?? {};
    return this.#ask({ type: 'history', group: checked(group), epoch, offset, limit }, true);
  }

  async presence(group) {
    return this.#ask({ type: 'presence', group: checked(group) }, true);
  }

  async ping() {
    return this.#ask({ type: 'ping' }, false);
  }

  async refresh(token) {
    const answer = await this.#ask({ type: 'refresh', token }, true);
    if (typeof this.#token === 'string') this.#token = token;
    return answer;
  }

  #ask(command, again) {
    if (this.#state === 'closed') throw new TidegateError('closed');
    return this.#commands.request(command, again);
  }

  // Attempts

  #attempt() {
    clearTimeout(this.#next);
    this.#next = null;
    this.#trying?.drop();
    const connection = new Connection({
      event: (from, event) => this.#received(from, event),
      ended: (...how) => this.#ended(...how),
    });
    this.#trying = connection;
    this.#stored ??= this.#store.load();
    this.#stored.then(() => {
      if (!connection.over) connection.open(this.#options.welcomeTimeout_s, () => this.#handshake(connection));
    });
  }

  /** `[WebSocket, url, protocols]`: who this is, and what is wished at this moment. */
  async #handshake(connection) {
    const { client, device, last, WebSocket } = this.#options;
    const token = await this.#askToken();
    if (connection.over) return;
    const known = client ?? claimsOf(token).sub;
    this.#sure = isId(known);
    const id = this.#sure ? known : (this.#streams.client ?? this.#store.client);
    if (id !== null && !this.#current) this.#streams.belongTo(id);

    const query = [this.#url.search.slice(1), client && `client=${client}`, device && `device=${device}`];
    const chars = TARGET_CHARS - this.#url.pathname.length - query.join().length - '?&cursor=&groups='.length;
    // A cursor with the stream of one who is another by now would be refused for ever.
    const doubtful = !this.#sure && this.#misses % 4 === 3;
    const { cursor, groups, carried } = this.#streams.handshake(chars, this.#commands.limits.groups, last, doubtful);
    connection.carried = carried;
    query.push(cursor && `cursor=${cursor}`, groups.length && `groups=${groups}`);

    const url = new URL(this.#url);
    url.search = query.filter(Boolean).join('&');
    return [WebSocket, url.href, ['tidegate.v1', ...(token === undefined ? [] : [`bearer.${token}`])]];
  }

  async #askToken() {
    if (typeof this.#token !== 'function') {
      if (claimsOf(this.#token).exp * 1000 <= Date.now()) throw new TidegateError('token_expired', 'the token has ended');
      return this.#token;
    }
    const token = await this.#token();
    if (!token) throw new NotAllowed();
    return token;
  }

  /** A second connection, which takes over when it is welcomed. */
  #changeOver() {
    if (this.#current && !this.#trying && this.#next === null) this.#attempt();
  }

  #ended(connection, code, message, [word, delay]) {
    if (connection !== this.#current && connection !== this.#trying) {
      this.#forget(connection);
      return;
    }
    const wasCurrent = connection === this.#current;
    if (wasCurrent) this.#lose();
    else {
      this.#trying = null;
      this.#misses++;
    }
    // Taken over by our own next connection, which is not welcomed yet.
    const ownSuccessor = code === 4502 && this.#trying;
    if (code === 4009 && typeof this.#token === 'string') this.#end(endOf('token_expired', message, code));
    else if (!delay && !ownSuccessor) this.#end(endOf(word, message, code));
    else {
      if (!this.#current) this.#reason = { code, word, message, again: true };
      if (!this.#trying && this.#next === null) {
        this.#next = setTimeout(() => this.#attempt(), this.#delay_ms(delay, connection));
      }
      if (wasCurrent) this.#become('connecting');
    }
  }

  #delay_ms(delay, connection) {
    const failures = this.#failures++;
    // They say that a service stops, and not that it can't be had: unless they are all that one hears.
    return delay_ms(delay, delay === 'random' && connection.welcome ? 0 : failures, this.#options.backoff_s);
  }

  /** The current connection is no more. */
  #lose() {
    const connection = this.#current;
    if (!connection) return;
    this.#current = null;
    connection.drop();
    this.#streams.cut();
    this.#commands.cut(connection);
    if (Date.now() - this.#since_ms >= this.#options.stable_s * 1000) this.#failures = 0;
  }

  #stop() {
    this.#auto = false;
    this.#unwatch();
    clearTimeout(this.#next);
    this.#next = null;
    this.#trying?.drop();
    this.#trying = null;
    this.#lose();
    for (const connection of this.#retired) this.#forget(connection);
    this.#store.flush();
  }

  /** Closed, until `connect()`. */
  #end(reason) {
    this.#stop();
    this.#reason = reason;
    this.#commands.end('closed');
    for (const [, reject] of this.#waiting.splice(0)) reject(new TidegateError('closed', reason.word));
    this.#become('closed');
  }

  #wake() {
    this.#current?.probe(WAKE_S);
    if (this.#next !== null) this.#attempt();
  }

  // A connection

  #received(connection, event) {
    const { type } = event;
    if (type === 'welcome') {
      if (connection === this.#trying) this.#welcomed(connection, event);
    } else if (type === 'reply' || type === 'error' || type === 'pong') {
      this.#commands.answer(event);
      if (this.#retired.has(connection) && !this.#commands.waitsFor(connection)) this.#forget(connection);
    } else if (connection !== this.#current) return;
    else if (type === 'expiring') this.#renew(connection);
    else if (type === 'moving') {
      connection.within_s = event.within;
      this.#changeOver();
    } else if (typeof event.stream === 'string') this.#streams.take(event);
  }

  #welcomed(connection, welcome) {
    const { pingInterval_s, pongTimeout_s } = this.#options;
    const replaced = this.#current;
    this.#current = connection;
    this.#trying = null;
    connection.welcome = welcome;
    this.#since_ms = Date.now();
    this.#misses = 0;
    Object.assign(this.#commands.limits, welcome.limits);
    connection.live(Math.min(pingInterval_s, welcome.ping_interval || pingInterval_s), pongTimeout_s, () =>
      connection.send('{"type":"ping","id":0}'),
    );
    this.#streams.belongTo(welcome.client);
    this.#streams.cut();
    this.#commands.use(connection);
    this.#streams.welcomed(welcome.streams, connection.carried);
    if (replaced) this.#retire(replaced);
    this.#become('connected');
    this.#checkReady();
  }

  /** Its place is taken. What it still owes is taken until it closes, or until it would be closed. */
  #retire(connection) {
    this.#commands.forgetOrders(connection);
    if (!this.#commands.waitsFor(connection)) {
      connection.drop();
      return;
    }
    this.#retired.add(connection);
    connection.retire(connection.within_s ?? this.#options.answerTimeout_s, () => this.#forget(connection));
  }

  #forget(connection) {
    this.#retired.delete(connection);
    connection.drop();
    this.#commands.cut(connection);
  }

  /** Answers `expiring`. One chain for each connection, until a token was taken or refused. */
  async #renew(connection) {
    if (typeof this.#token !== 'function' || this.#renewing === connection) return;
    this.#renewing = connection;
    const holds = () => connection === this.#current;
    for (let failures = 0; holds(); failures++) {
      try {
        const token = await this.#askToken();
        if (holds()) await this.#commands.request({ type: 'refresh', token }, false);
        break;
      } catch (error) {
        if (FINAL.has(error?.code)) {
          if (error instanceof NotAllowed && holds()) this.#end(endOf('not_allowed', error.message));
          break; // refused: the gateway says when it ends
        }
        await new Promise((resolve) => idle(resolve, growing_ms(failures, this.#options.backoff_s)));
      }
    }
    if (this.#renewing === connection) this.#renewing = null;
  }

  // What is told

  #become(state) {
    if (state === this.#state) return;
    this.#state = state;
    clearTimeout(this.#giveUp);
    const { giveUpAfter_s } = this.#options;
    if (state === 'connecting' && giveUpAfter_s) {
      const end = () => this.#end(endOf('unreachable', `no welcome within ${giveUpAfter_s} s`));
      this.#giveUp = setTimeout(end, giveUpAfter_s * 1000);
    }
    this.#tell('state', state, this.#reason);
  }

  #tell(event, ...told) {
    for (const callback of [...(this.#listeners[event] ?? [])]) {
      // One of those before may have closed it, or changed the state.
      if (event === 'state' ? told[0] !== this.#state : this.#over) return;
      try {
        callback(...told);
      } catch (error) {
        if (event === 'error') report(error);
        else this.#failed(error);
      }
    }
  }

  #failed(error) {
    if (this.#listeners.error?.size) this.#tell('error', error);
    else report(error);
  }

  #checkReady() {
    if (this.#state !== 'connected' || !this.#streams.settled) return;
    for (const [resolve] of this.#waiting.splice(0)) resolve();
  }
}
