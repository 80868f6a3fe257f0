/**
 * One connection for all tabs of a browser that are the same client.
 *
 * A `SharedTidegate` is a Tidegate client whose socket leads to another tab: the one that holds a Web Lock leads, and has the
 * connection (hub.js). Tabs and leader speak the gateway's protocol over BroadcastChannels, so each tab has its own positions
 * and everything else that the library does. When the leader goes the browser gives its lock to another tab. That one
 * tells all tabs, and to them it is the `moving` of a node: they connect to it with their cursors and then let go of the old one.
 * A leader that is silent (frozen, or stopped) is deprived of the lock.
 *
 * Without Web Locks or BroadcastChannel, and with `last`, each tab has a connection of its own.
 */

import { Tidegate } from './client.js';
import { isId } from './cursor.js';
import { Hub } from './hub.js';
import { claimsOf } from './token.js';

const SILENCE_MS = 3000; // of a leader that was asked for a connection
const SWITCH_S = 2;

export const canShare = () => Boolean(globalThis.navigator?.locks && globalThis.BroadcastChannel);

export class SharedTidegate extends Tidegate {
  constructor(url, options = {}) {
    if (!canShare() || options.last) {
      super(url, options);
      return;
    }
    const shared = new Shared((WebSocket, positions, client) => {
      const own = { ...options, WebSocket, autoConnect: false, storage: remembering(client, positions) };
      return new Tidegate(url, own);
    }, options.WebSocket ?? globalThis.WebSocket);
    super(url, { ...options, WebSocket: shared.WebSocket });
    shared.reached = () => this.state === 'connecting' && this.connect(); // in the midst of a delay: now
    this.on('state', (state) => (state === 'closed' || state === 'disconnected') && shared.leave());
  }
}

/** A storage that has these positions, and keeps none. */
function remembering(client, positions) {
  const text = JSON.stringify({ v: 1, client, positions: Object.fromEntries(positions) });
  return { getItem: () => text, setItem() {}, removeItem() {} };
}

/** What a `SharedTidegate` has of its tab: as long as it connects as one client. */
class Shared {
  reached = () => {};
  #make;
  #direct; // the real WebSocket
  #tab = null;

  constructor(make, WebSocket) {
    this.#make = make;
    this.#direct = WebSocket;
    const shared = this;
    this.WebSocket = class {
      constructor(url, protocols) {
        const tab = shared.#tabFor(url, protocols);
        // biome-ignore lint/correctness/noConstructorReturn: who is unknown is not shared
        if (!tab) return new shared.#direct(url, protocols);
        // biome-ignore lint/correctness/noConstructorReturn: the library is given a socket, whichever it is
        return new TabSocket(tab, url);
      }
    };
  }

  leave() {
    this.#tab?.leave();
    this.#tab = null;
  }

  #tabFor(url, protocols) {
    const { origin, pathname, searchParams } = new URL(url);
    const token = protocols.find((protocol) => protocol.startsWith('bearer.'))?.slice('bearer.'.length);
    const client = token === undefined ? searchParams.get('client') : claimsOf(token).sub;
    if (!isId(client)) return null;
    const name = `tidegate ${origin}${pathname} ${client}`;
    if (this.#tab?.name !== name) {
      this.leave();
      const make = (positions) => this.#make(this.#direct, positions, client);
      this.#tab = new Tab(name, make, () => this.reached());
    }
    return this.#tab;
  }
}

/** One client in this tab: hears who leads, and leads when its turn comes. */
class Tab {
  id = crypto.randomUUID();
  leader = null;
  #make;
  #reached;
  #common; // who leads
  #inbox; // from the leader to this tab
  #outbox = null; // to the leader
  #sockets = new Map();
  #over = new AbortController();
  #waiting = null; // AbortController of a request for the lock
  #resign = null; // while it leads
  #unwatch;
  #present; // a promise: this tab holds the lock that tells that it lives

  constructor(name, make, reached) {
    this.name = name;
    this.#make = make;
    this.#reached = reached;
    this.#common = this.#channel(name, (message) => this.#heard(message));
    this.#inbox = this.#channel(`${name} ${this.id}`, ({ socket, ...message }) => this.#sockets.get(socket)?.take(message));
    this.#present = new Promise((resolve) => {
      const held = new Promise((gone) => this.#over.signal.addEventListener('abort', gone));
      navigator.locks.request(`${name} ${this.id}`, () => {
        resolve();
        return held;
      });
    });
    // A page that may come back from a cache must not lead, and one that is thawed is not sure that it does.
    const listeners = { pagehide: () => this.#stepBack(), freeze: () => this.#stepBack() };
    Object.assign(listeners, { pageshow: () => this.#stand(), resume: () => this.#stand() });
    for (const [type, listener] of Object.entries(listeners)) globalThis.addEventListener?.(type, listener);
    for (const type of ['freeze', 'resume']) globalThis.document?.addEventListener(type, listeners[type]);
    this.#unwatch = () => {
      for (const [type, listener] of Object.entries(listeners)) {
        globalThis.removeEventListener?.(type, listener);
        globalThis.document?.removeEventListener(type, listener);
      }
    };
    this.#common.postMessage({ who: true });
    this.#stand();
  }

  async open(socket) {
    await this.#present;
    if (socket.over) return;
    this.#sockets.set(socket.id, socket);
    socket.ask();
  }

  post(message) {
    this.#outbox?.postMessage(message);
  }

  forget(socket) {
    this.#sockets.delete(socket.id);
  }

  leave() {
    this.#over.abort();
    this.#unwatch();
    this.#stepBack();
    for (const channel of [this.#common, this.#inbox, this.#outbox]) channel?.close();
    this.#outbox = null;
    for (const socket of [...this.#sockets.values()]) socket.close();
  }

  #channel(name, heard) {
    const channel = new BroadcastChannel(name);
    channel.onmessage = ({ data }) => heard(data);
    return channel;
  }

  #heard({ leader, reached }) {
    if (leader && leader !== this.leader) this.#follow(leader);
    if (reached && reached === this.leader) this.#reached();
  }

  #follow(leader) {
    this.leader = leader;
    this.#outbox?.close();
    this.#outbox = new BroadcastChannel(`${this.name} ${leader}`);
    for (const socket of [...this.#sockets.values()]) socket.follow(leader);
  }

  // Leading

  /** Waits for its turn. */
  #stand() {
    if (this.#waiting || this.#resign || this.#over.signal.aborted) return;
    this.#waiting = new AbortController();
    this.#request({ signal: this.#waiting.signal });
  }

  /** The leader is silent. */
  depose() {
    if (this.#resign || this.#over.signal.aborted) return;
    this.#waiting?.abort();
    this.#waiting = new AbortController();
    this.#request({ steal: true });
  }

  async #request(options) {
    const mine = this.#waiting;
    try {
      await navigator.locks.request(this.name, options, () => (mine.signal.aborted ? null : this.#lead()));
    } catch (error) {
      if (error.name !== 'AbortError') throw error;
    }
    // It stepped back, or was deprived of the lock.
    if (this.#waiting !== mine) return;
    this.#waiting = null;
    if (!this.#resign) return;
    this.#resign();
    this.#stand();
  }

  #stepBack() {
    this.#waiting?.abort();
    this.#waiting = null;
    this.#resign?.();
  }

  /** A promise that ends with the leadership. */
  #lead() {
    const id = crypto.randomUUID();
    const { promise, end } = ending();
    const outboxes = new Map();
    const watched = new AbortController();
    const post = (tab, message) => {
      if (!outboxes.has(tab)) {
        outboxes.set(tab, new BroadcastChannel(`${this.name} ${tab}`));
        // It is given to us when the tab is gone.
        const lost = () => {
          hub.gone(tab);
          outboxes.get(tab)?.close();
          outboxes.delete(tab);
        };
        navigator.locks.request(`${this.name} ${tab}`, { signal: watched.signal }, lost).catch(() => {});
      }
      outboxes.get(tab).postMessage(message);
    };
    const reached = () => common.postMessage({ reached: id });
    const ended = () => {
      this.#stepBack(); // another tab may have a token
      this.#stand();
    };
    const hub = new Hub(this.#make, post, reached, ended);
    const inbox = this.#channel(`${this.name} ${id}`, ({ open, tab, url, send, text, close }) => {
      if (open) hub.open(tab, open, url);
      else if (send) hub.send(send, text);
      else if (close) hub.close(close);
    });
    const common = this.#channel(this.name, ({ who }) => who && common.postMessage({ leader: id }));
    this.#resign = () => {
      this.#resign = null;
      watched.abort();
      hub.stop();
      for (const channel of [inbox, common, ...outboxes.values()]) channel.close();
      end();
    };
    common.postMessage({ leader: id });
    return promise;
  }
}

function ending() {
  let end;
  const promise = new Promise((resolve) => {
    end = resolve;
  });
  return { promise, end };
}

/** What the library takes for a WebSocket. */
class TabSocket {
  id = crypto.randomUUID();
  onmessage = null;
  onclose = null;
  onerror = null;
  over = false;
  #tab;
  #url;
  #leader = null; // whom it belongs to
  #welcomed = false;
  #silence = 0; // timer
  #switching = 0; // timer

  constructor(tab, url) {
    this.#tab = tab;
    this.#url = url;
    tab.open(this);
  }

  ask() {
    this.#leader = this.#tab.leader;
    if (this.#leader) this.#tab.post({ open: this.id, tab: this.#tab.id, url: this.#url });
    clearTimeout(this.#silence);
    this.#silence = setTimeout(() => this.#tab.depose(), SILENCE_MS);
  }

  send(text) {
    if (this.#leader === this.#tab.leader) this.#tab.post({ send: this.id, text });
  }

  close() {
    if (this.over) return;
    if (this.#leader === this.#tab.leader) this.#tab.post({ close: this.id });
    this.#end(1000, '');
  }

  take({ accepted, text, close }) {
    if (accepted) clearTimeout(this.#silence);
    else if (text) {
      this.#welcomed = true;
      this.onmessage?.({ data: text });
    } else if (close) this.#end(...close);
  }

  /** Another tab leads now. */
  follow(leader) {
    if (leader === this.#leader) return;
    if (!this.#welcomed) {
      this.ask();
      return;
    }
    this.onmessage?.({ data: JSON.stringify({ type: 'moving', within: SWITCH_S }) });
    this.#switching ||= setTimeout(() => this.#end(1012, 'the leading tab has gone'), SWITCH_S * 1000);
  }

  #end(code, reason) {
    if (this.over) return;
    this.over = true;
    clearTimeout(this.#silence);
    clearTimeout(this.#switching);
    this.#tab.forget(this);
    this.onclose?.({ code, reason });
  }
}
