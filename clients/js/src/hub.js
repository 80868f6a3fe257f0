/**
 * The leading tab's part of `tabs.js`: one client of the gateway for all tabs, each of which is a *reader* here.
 *
 * To its readers it speaks the gateway's protocol, so each tab has the whole library, with its own positions, over a
 * socket that leads here. What a reader lacks is taken from the newest of each stream (feed.js). Where that does not reach
 * back far enough (a new leader, a tab that was away) the client begins anew, from the lowest position of all; each reader is
 * given only what lies behind its own.
 */

import { decodeCursor } from './cursor.js';
import { Feed } from './feed.js';

const GATHER_MS = 150; // after a change of leader all tabs come at once
const PING_S = 30;
const BEGIN_ANEW_MS = 2000; // before readers are told that there is no connection

export class Hub {
  #make;
  #post;
  #client = null; // of the gateway
  #feeds = new Map(); // stream -> Feed
  #readers = new Map(); // socket's id -> Reader
  #starting = 0; // timer
  #owed = new Map(); // client -> how many answers it owes
  #up;
  #ended;

  /**
   * `make(positions)` gives a Tidegate client that is not connected yet and goes on from there;
   * `post(tab, message)` sends to a tab; `up()` is called when the gateway is reached, `ended()` when there is no coming back.
   */
  constructor(make, post, up, ended) {
    this.#make = make;
    this.#post = post;
    this.#up = up;
    this.#ended = ended;
  }

  open(tab, id, url) {
    const query = new URL(url).searchParams;
    const wanted = decodeCursor(query.get('cursor') ?? '') ?? new Map();
    for (const group of (query.get('groups') ?? '').split(',').filter(Boolean)) wanted.set(`group:${group}`, null);
    for (const stream of wanted.keys()) this.#askAnew(stream);
    const reader = new Reader((message) => this.#post(tab, { socket: id, ...message }), tab, wanted);
    this.#readers.set(id, reader);
    reader.post({ accepted: true });
    if (!this.#client || this.#client.state === 'closed') this.#startSoon();
    else this.#serve(reader);
  }

  send(id, text) {
    const reader = this.#readers.get(id);
    if (reader?.welcomed) this.#command(reader, JSON.parse(text));
  }

  close(id) {
    if (!this.#readers.delete(id)) return;
    if (this.#client?.state === 'connected') this.#sweep();
  }

  /** The tab is gone, with all its sockets. */
  gone(tab) {
    for (const [id, reader] of this.#readers) if (reader.tab === tab) this.close(id);
  }

  stop() {
    clearTimeout(this.#starting);
    this.#readers.clear(); // they are told nothing: another tab leads
    const client = this.#client;
    this.#client = null;
    client?.close();
    for (const old of this.#owed.keys()) old.close();
  }

  // The client

  #startSoon() {
    this.#starting ||= setTimeout(() => {
      this.#starting = 0;
      this.#start();
    }, GATHER_MS);
  }

  /** A client that goes on from the lowest positions, in place of the one there is. */
  #start() {
    const old = this.#client;
    const lowest = this.#lowest();
    const client = this.#make(new Map([...lowest].filter(([, at]) => at)));
    this.#client = client;
    this.#feeds = new Map([...lowest].map(([stream, at]) => [stream, new Feed(stream, at)]));
    let wasUp = false;
    client.on('state', (state) => {
      if (client !== this.#client) return;
      if (state === 'connected') {
        wasUp = true;
        this.#up();
        this.#serveAll();
      } else if (wasUp || state === 'closed') this.#cut(client);
    });
    for (const feed of this.#feeds.values()) if (feed.group) this.#follow(feed);
    this.#own(client);
    client.connect();
    setTimeout(() => client === this.#client && client.state !== 'connected' && this.#cut(client), BEGIN_ANEW_MS);
    if (old && !this.#owed.get(old)) old.close();
  }

  /** The client's own streams are there by themselves. */
  #own(client) {
    for (const kind of ['direct', 'all']) {
      const feed = () => this.#feedOf(kind === 'all' ? 'all' : `client:${client.client}`);
      client[kind]({
        onJoined: (joined) => client === this.#client && this.#joined(feed(), joined),
        onMessage: (message) => client === this.#client && this.#arrived(feed(), message, false),
        onGap: (gap) => client === this.#client && this.#arrived(feed(), gap, true),
      });
    }
  }

  #follow(feed) {
    const client = this.#client;
    const holds = () => client === this.#client && this.#feeds.get(feed.stream) === feed;
    feed.subscription = client.group(feed.group, {
      onJoined: (joined) => holds() && this.#joined(feed, joined),
      onMessage: (message) => holds() && this.#arrived(feed, message, false),
      onGap: (gap) => holds() && this.#arrived(feed, gap, true),
      onLeft: (reason) => holds() && this.#left(feed, reason),
    });
  }

  /** For each stream that somebody reads: the lowest position of all readers, null where none has one. */
  #lowest() {
    const lowest = new Map();
    for (const reader of this.#readers.values()) {
      for (const [stream, at] of [...reader.wanted, ...reader.at]) {
        const before = lowest.get(stream);
        // Of two epochs the one that is not of now is the older one.
        const now = this.#feeds.get(stream)?.at?.[0];
        const older = before && at && (before[0] === at[0] ? at[1] < before[1] : before[0] === now);
        if (!before || older) lowest.set(stream, at ?? before ?? null);
      }
    }
    return lowest;
  }

  /** Told as what it was, so that each tab does what it must: wait, ask for a token, or end. */
  #cut(client) {
    const closed = client.state === 'closed';
    const { code, message } = client.reason ?? {};
    const told = code >= 1000 && code !== 1005 ? code : 1006;
    for (const [id, reader] of this.#readers) {
      if (!reader.welcomed && !closed) continue; // it waits
      this.#readers.delete(id);
      reader.post({ close: [told, message ?? ''] });
    }
    if (closed) this.#ended();
  }

  // Streams

  #feedOf(stream) {
    let feed = this.#feeds.get(stream);
    if (!feed) {
      feed = new Feed(stream, null);
      this.#feeds.set(stream, feed);
      if (feed.group) this.#follow(feed);
    }
    return feed;
  }

  /** What was refused may be granted now. */
  #askAnew(stream) {
    const left = this.#feeds.get(stream)?.left ?? null;
    if (left !== null) this.#feeds.delete(stream);
  }

  #joined(feed, joined) {
    const { left } = feed;
    feed.begin(joined);
    if (left !== null) this.#rejoined(feed);
    this.#serveAll();
  }

  /** The application made the client a member again. */
  #rejoined(feed) {
    const [epoch, offset] = feed.at;
    for (const reader of this.#readers.values()) {
      if (!reader.welcomed || reader.wanted.has(feed.stream)) continue;
      reader.at.set(feed.stream, feed.at);
      reader.tell({ type: 'joined', stream: feed.stream, epoch, offset, top: offset });
    }
  }

  #arrived(feed, event, gap) {
    const { stream, epoch, offset, time, client, data, from, to, reason } = event;
    const told = gap
      ? { type: 'gap', stream, epoch, from, to, reason }
      : { type: 'message', stream, epoch, offset, time, client, data };
    // Put back within its epoch, it is so for everybody. A new epoch is news only to those who are not in it yet.
    const back = gap && feed.at?.[0] === epoch && (from === null || to === null);
    const entry = { epoch, offset: gap ? (to ?? 0) : offset, gap, back, text: JSON.stringify(told) };
    feed.joined = true;
    feed.from ??= [epoch, gap ? entry.offset : offset - 1];
    feed.add(entry);
    for (const reader of this.#readers.values()) reader.give(stream, entry);
  }

  #left(feed, reason) {
    feed.joined = false;
    feed.left = reason;
    feed.at = feed.from = null;
    for (const reader of this.#readers.values()) {
      if (reader.at.delete(feed.stream)) reader.tell({ type: 'left', stream: feed.stream, reason });
    }
    this.#serveAll();
  }

  /** Nobody reads it any more: it is left. */
  #sweep() {
    const read = new Set([...this.#readers.values()].flatMap(({ wanted, at }) => [...wanted.keys(), ...at.keys()]));
    for (const [stream, feed] of this.#feeds) {
      if (!feed.group || read.has(stream)) continue;
      feed.subscription.leave();
      this.#feeds.delete(stream);
    }
  }

  // Readers

  #serveAll() {
    for (const reader of this.#readers.values()) this.#serve(reader);
  }

  /** Gives a reader what it wants, as soon as all of it is there or is refused. */
  #serve(reader) {
    if (this.#client.state !== 'connected' || this.#starting) return;
    if (reader.welcomed) {
      for (const stream of [...reader.wanted.keys()]) this.#join(reader, stream);
      return;
    }
    const own = `client:${this.#client.client}`;
    for (const stream of [own, 'all']) if (!reader.wanted.has(stream)) reader.wanted.set(stream, null);
    const feeds = [...reader.wanted.keys()].map((stream) => this.#feedOf(stream));
    if (!feeds.every(({ joined, left }) => joined || left !== null)) return;
    const starts = feeds.filter(({ joined }) => joined).map((feed) => this.#startOf(reader, feed));
    if (!starts.every(Boolean)) return;
    reader.welcome(own.slice('client:'.length), starts);
    for (const feed of feeds) {
      if (!feed.joined) reader.tell({ type: 'left', stream: feed.stream, reason: feed.left });
    }
  }

  /** `{feed, start, entries}`; null where the client must begin anew, from an earlier position. */
  #startOf(reader, feed) {
    const at = reader.wanted.get(feed.stream) ?? null;
    const [, top] = feed.at;
    if (!at) {
      const [epoch, offset] = feed.at;
      return { feed, start: { epoch, offset, top }, entries: [] };
    }
    const beyond = at[0] === feed.at[0] && at[1] > Math.max(top, feed.top); // no message has this offset
    let entries = beyond ? feed.anew() : feed.after(at);
    if (!entries && !reader.tried.has(feed.stream)) {
      reader.tried.add(feed.stream);
      this.#startSoon();
      return null;
    }
    entries ??= feed.anew();
    const missed = entries.filter(({ gap }) => !gap).length;
    const start = { epoch: at[0], offset: at[1], top: Math.max(top, at[1]), recovered: missed === entries.length, missed };
    return { feed, start, entries };
  }

  #join(reader, stream) {
    const feed = this.#feedOf(stream);
    const id = reader.joins.get(stream);
    if (feed.joined) {
      const begun = this.#startOf(reader, feed);
      if (!begun) return;
      reader.tell({ type: 'reply', id, stream, ...begun.start });
      reader.begin(begun);
    } else if (feed.left !== null) {
      reader.wanted.delete(stream);
      reader.tell({ type: 'error', id, code: feed.left, message: feed.left });
    }
  }

  // Commands

  #command(reader, command) {
    const { type, id, group, epoch, offset } = command;
    const stream = `group:${group}`;
    if (type === 'ping') reader.tell({ type: 'pong', id, cursor: null });
    else if (type === 'join') {
      this.#askAnew(stream);
      const at = epoch === undefined ? (reader.at.get(stream) ?? null) : [epoch, offset];
      reader.at.delete(stream);
      reader.tried.delete(stream);
      reader.wanted.set(stream, at);
      reader.joins.set(stream, id);
      this.#serve(reader);
    } else if (type === 'leave') {
      reader.at.delete(stream);
      reader.wanted.delete(stream);
      reader.tell({ type: 'reply', id, stream });
      this.#sweep();
    } else this.#pass(reader, command);
  }

  /** To the gateway, and its answer back. */
  async #pass(reader, { type, id, group, method, data, key, conflate, traceparent, epoch, offset, limit, token }) {
    const client = this.#client;
    const position = epoch === undefined ? undefined : { epoch, offset };
    const send = {
      publish: () => client.publish(group, data, { key: key ?? false, conflate, traceparent }),
      call: () => client.call(method, data, { traceparent }),
      history: () => client.history(group, { position, limit }),
      presence: () => client.presence(group),
      refresh: () => client.refresh(token),
    }[type];
    this.#owed.set(client, (this.#owed.get(client) ?? 0) + 1);
    try {
      if (!send) throw Object.assign(new Error(`there is no command ${type}`), { code: 'unknown_command' });
      const answer = await send();
      reader.tell({ ...answer, type: 'reply', id });
    } catch (error) {
      reader.tell({ type: 'error', id, code: error.code ?? 'internal_error', message: error.message });
    }
    const owed = this.#owed.get(client) - 1;
    if (owed) this.#owed.set(client, owed);
    else this.#owed.delete(client);
    if (!owed && client !== this.#client) client.close();
  }
}

/** One socket of a tab. */
class Reader {
  welcomed = false;
  at = new Map(); // stream -> [epoch, offset]: what it was given
  joins = new Map(); // stream -> id of the join that waits
  tried = new Set(); // streams for whose sake the client has begun anew

  /** `wanted`: stream -> [epoch, offset] or null, until it has it. */
  constructor(post, tab, wanted) {
    this.post = post;
    this.tab = tab;
    this.wanted = wanted;
  }

  tell(event) {
    this.post({ text: JSON.stringify(event) });
  }

  welcome(client, starts) {
    this.welcomed = true;
    const streams = Object.fromEntries(starts.map(({ feed, start }) => [feed.stream, start]));
    const interval = { ping_interval: PING_S, ping_timeout: 2 * PING_S };
    this.tell({ type: 'welcome', client, connection: 'tab', node: 'tab', ...interval, streams });
    this.wanted.clear();
    for (const begun of starts) this.begin(begun);
  }

  /** It stands at `start` now, and is given what follows. */
  begin({ feed: { stream }, start: { epoch, offset }, entries }) {
    this.wanted.delete(stream);
    this.at.set(stream, [epoch, offset]);
    for (const entry of entries) this.give(stream, entry);
  }

  /** Nothing twice, whatever the client has from further back. */
  give(stream, { epoch, offset, back, text }) {
    const at = this.at.get(stream);
    if (!at || (at[0] === epoch && offset <= at[1] && !back)) return;
    this.at.set(stream, [epoch, offset]);
    this.post({ text });
  }
}
