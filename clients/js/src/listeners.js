/**
 * Many listeners of one stream, for components: a client has one handler for each stream, a page shows it in many places.
 *
 * The subscription begins with the first listener and is left a moment after the last one has gone, so a component that
 * is taken down and put up in the same breath (React's StrictMode, a change of page) neither leaves nor joins anything.
 */

import { report } from './errors.js';

const shared = new WeakMap(); // client -> Map of stream -> Listeners

/**
 * Calls `listener`, an object of handlers (but for `state`), until the function that it gives is called.
 * `stream` is `group:<name>`, `direct` or `all`. Who comes late is told `joined` with the position of this moment.
 */
export function listen(client, stream, listener) {
  if (!shared.has(client)) shared.set(client, new Map());
  const streams = shared.get(client);
  if (!streams.has(stream)) streams.set(stream, new Listeners(client, stream, () => streams.delete(stream)));
  return streams.get(stream).add(listener);
}

class Listeners {
  #all = new Set();
  #subscription;
  #gone;
  #joined = null; // while it is: the last `joined`, moved on to where the stream is now

  constructor(client, stream, gone) {
    this.#gone = gone;
    const handlers = {
      onMessage: (message) => {
        this.#moved(message.epoch, message.offset);
        return this.#tell('onMessage', message);
      },
      onGap: (gap) => {
        this.#moved(gap.epoch, gap.to ?? 0);
        return this.#tell('onGap', gap);
      },
      onJoined: (joined) => {
        this.#joined = joined;
        return this.#tell('onJoined', joined);
      },
      onLeft: (reason) => {
        this.#joined = null;
        return this.#tell('onLeft', reason);
      },
    };
    if (stream === 'direct') this.#subscription = client.direct(handlers);
    else if (stream === 'all') this.#subscription = client.all(handlers);
    else this.#subscription = client.group(stream.slice('group:'.length), handlers);
  }

  add(listener) {
    const entry = { listener }; // the same one may come twice
    this.#all.add(entry);
    if (this.#joined) this.#call(entry, 'onJoined', this.#joined);
    return () => {
      if (this.#all.delete(entry) && !this.#all.size) queueMicrotask(() => this.#leave());
    };
  }

  #leave() {
    if (this.#all.size || !this.#subscription) return;
    this.#gone();
    this.#subscription.leave();
    this.#subscription = null;
  }

  #moved(epoch, offset) {
    if (this.#joined) this.#joined = { ...this.#joined, epoch, offset };
  }

  /** A promise where one of them gave one: the next message waits for all. */
  #tell(handler, event) {
    const pending = [...this.#all].map((entry) => this.#call(entry, handler, event)).filter(Boolean);
    return pending.length ? Promise.all(pending) : undefined;
  }

  /** What one of them throws is kept from the others. */
  #call(entry, handler, event) {
    const { listener } = entry;
    const failed = (error) => (listener.onError ?? report)(error);
    if (!this.#all.has(entry)) return undefined; // gone meanwhile, by what another one did
    try {
      const result = listener[handler]?.(event);
      return typeof result?.then === 'function' ? Promise.resolve(result).catch(failed) : undefined;
    } catch (error) {
      failed(error);
      return undefined;
    }
  }
}
