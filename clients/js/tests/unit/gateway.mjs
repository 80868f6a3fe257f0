/** A gateway of sockets that are objects: each test says what they say. Timers stand still until a test moves them. */

import { mock } from 'node:test';
import { Tidegate } from '../../src/index.js';
import { decodeCursor } from '../../src/cursor.js';

export class Gateway {
  sockets = [];

  constructor() {
    const { sockets } = this;
    this.WebSocket = class {
      sent = [];
      closed = null;
      mute = false; // it answers no pings

      constructor(url, protocols) {
        this.query = new URL(url).searchParams;
        this.url = url;
        this.protocols = protocols;
        sockets.push(this);
      }

      send(text) {
        this.sent.push(text);
        const { type, id } = JSON.parse(text);
        if (type === 'ping' && !this.mute) queueMicrotask(() => this.say({ type: 'pong', id, cursor: null }));
      }

      close(code) {
        this.closed = code;
      }

      /** Positions of the cursor that it came with. */
      get cursor() {
        const cursor = this.query.get('cursor');
        return cursor === null || cursor === 'last' ? null : Object.fromEntries(decodeCursor(cursor));
      }

      get groups() {
        return this.query.get('groups')?.split(',') ?? [];
      }

      /** Commands that were sent, without pings. */
      get commands() {
        return this.sent.map((text) => JSON.parse(text)).filter(({ type }) => type !== 'ping');
      }

      get pings() {
        return this.sent.length - this.commands.length;
      }

      /** Text, or events as objects. */
      async say(...events) {
        for (const event of events) {
          this.onmessage?.({ data: typeof event === 'string' ? event : JSON.stringify(event) });
          await null; // a browser, too, lets promises go on between two events
        }
        await settled();
      }

      /** As a gateway to which nothing happened meanwhile, but for `streams`: name -> [epoch, offset] or more keys. */
      async welcome(streams = {}, more = {}) {
        const all = {};
        for (const [name, at] of Object.entries(this.cursor ?? {})) all[name] = begun(at, { recovered: true, missed: 0 });
        const client = more.client ?? this.query.get('client') ?? 'alice';
        for (const name of [`client:${client}`, 'all', ...this.groups.map((group) => `group:${group}`)])
          all[name] ??= begun(['e', 0]);
        for (const [name, at] of Object.entries(streams)) {
          if (at === null) delete all[name];
          else all[name] = Array.isArray(at) ? begun(at) : at;
        }
        const head = { type: 'welcome', client, connection: 'n1-1', node: 'n1', ping_interval: 30, ping_timeout: 60 };
        await this.say({ ...head, ...more, streams: all });
      }

      message(stream, epoch, ...offsets) {
        return this.say(...offsets.map((offset) => ({ type: 'message', stream, epoch, offset, time: 1, data: offset })));
      }

      /** Answers the newest command of this type. */
      answer(type, keys) {
        const { id } = this.commands.findLast((command) => command.type === type);
        return this.say(typeof keys === 'string' ? { type: 'error', id, code: keys, message: '' } : { type: 'reply', id, ...keys });
      }

      async end(code = 1006, reason = '') {
        this.onclose?.({ code, reason });
        await settled();
      }
    };
  }

  get last() {
    return this.sockets.at(-1);
  }

  /** A client of this gateway, as far as its first socket. */
  async open({ url = 'ws://gateway/ws/', ...options } = {}, prepare = () => {}) {
    const tidegate = new Tidegate(url, {
      WebSocket: this.WebSocket,
      client: 'token' in options ? undefined : 'alice',
      ...options,
    });
    tidegate.heard = [];
    tidegate.on('state', (state, reason) => tidegate.heard.push(reason?.word ? `${state} ${reason.word}` : state));
    prepare(tidegate);
    await settled();
    return tidegate;
  }

  /** A client that is welcomed, with what is heard of the group news from then on. */
  async following(at = ['e', 10], options = {}, more = {}) {
    const news = recorder(more);
    let group;
    const tidegate = await this.open(options, (client) => {
      group = client.group('news', news);
    });
    await this.last.welcome({ 'group:news': at });
    news.heard.length = 0;
    return { tidegate, group, heard: news.heard };
  }

  /** The next connection, after a cut. */
  async again() {
    await this.last.end();
    await pass(1);
    return this.last;
  }
}

export const begun = ([epoch, offset], more = {}) => ({ epoch, offset, top: offset, ...more });

/** Handlers that write what they hear: offsets, and words. */
export function recorder(more = {}) {
  const heard = [];
  return {
    heard,
    onMessage: ({ offset }) => void heard.push(offset),
    onGap: ({ from, to, reason }) => void heard.push(`gap ${from}-${to} ${reason}`),
    onJoined: ({ offset }) => void heard.push(`joined ${offset}`),
    onLeft: (reason) => void heard.push(`left ${reason}`),
    onError: (error) => void heard.push(`error ${error.message}`),
    ...more,
  };
}

/** A handler that says what it has begun, and is at work until `done()` ends the oldest. */
export function worker() {
  const begun = [];
  const waits = [];
  return {
    begun,
    onMessage({ offset }) {
      begun.push(offset);
      waits.push(later());
      return waits.at(-1).promise;
    },
    async done(error) {
      if (error) waits.shift().reject(error);
      else waits.shift()?.resolve();
      await settled();
    },
  };
}

/** Everything that only waits for promises has been done. */
export const settled = () => new Promise((resolve) => setImmediate(resolve));

export function holdTime() {
  mock.timers.enable({ apis: ['setTimeout', 'Date'], now: 1_792_612_345_678 });
  mock.method(Math, 'random', () => 0.5);
}

export function freeTime() {
  mock.timers.reset();
  mock.restoreAll();
}

export async function pass(seconds) {
  // In steps: a timer that comes by itself on time must not look late.
  for (let left_ms = Math.round(seconds * 1000); left_ms > 0; left_ms -= 500) {
    mock.timers.tick(Math.min(500, left_ms));
    await settled();
  }
}

/** The program stood still for so long: its timers come late, all at once. */
export async function sleep(seconds) {
  mock.timers.tick(seconds * 1000);
  await settled();
}

/** A storage with this content. */
export function storage(content) {
  const kept = new Map(content === undefined ? [] : [['tidegate', JSON.stringify(content)]]);
  return {
    kept,
    get positions() {
      return JSON.parse(kept.get('tidegate') ?? '{}').positions;
    },
    getItem: (key) => kept.get(key) ?? null,
    setItem: (key, text) => void kept.set(key, text),
    removeItem: (key) => void kept.delete(key),
  };
}

/** A promise with what settles it. */
export const later = () => Promise.withResolvers();
