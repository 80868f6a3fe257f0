/**
 * To one handler: one item after the other, the next when it is done with the last.
 *
 * Everything that comes waits in a queue, and the handler is called in a microtask: so never in the midst of what the
 * client is doing, and it may leave, join, connect and close as it likes. `#turn` says whether what was begun still
 * holds.
 *
 * With `state` the queue stands still while the data is loaded: from the first `joined`, and from each `gap`, until
 * `state()` has given it. One load at a time, or the older might write its data over the newer's. A load is void when
 * the stream breaks meanwhile; then what was held is part of the next one.
 */

import { growing_ms } from './closes.js';

const RETRY_S = [0.5, 30];

export class Delivery {
  #handlers;
  #limit;
  #host;
  #queue = [];
  #busy = false; // a handler is at work
  #scheduled = false;
  #turn = 0;
  #stale; // the data is to be loaded with the next `joined`
  #due = false; // it is to be loaded now
  #loading = false;
  #from = null; // the position behind which what is held begins
  #tries = 0;
  #hurry = () => {}; // ends a pause between two tries

  /**
   * `host`: `tell(item)` to others, `done(at)`, `drained()` when a full queue has room again, `skip(offset)` and
   * `resume(at)` for a position that `state` gave, `failed(error)`.
   */
  constructor(handlers, limit, host) {
    this.#handlers = handlers;
    this.#limit = limit;
    this.#host = host;
    this.#stale = this.loads;
  }

  /** Whether it begins with loading data. */
  get loads() {
    return Boolean(this.#handlers.state);
  }

  /** Whether it takes no more. What is held for `state` is dropped instead: the data will have it. */
  get full() {
    return !this.#loading && this.#queue.length >= this.#limit;
  }

  push(item) {
    if (this.#loading && item.type === 'gap') {
      this.#void();
      this.#due = false; // again when the gap has been told
    } else if (this.#loading && item.type === 'message' && this.#queue.length >= this.#limit) {
      this.#void();
      this.#from = item.at;
      return;
    }
    this.#queue.push(item);
    this.#schedule();
  }

  /** What waits is not told any more. */
  reset() {
    this.#turn++;
    this.#queue = [];
    this.#due = false;
    this.#stale = this.loads;
    this.#hurry();
  }

  /** A stream that has ended from outside begins with its data again. */
  expectState() {
    this.#stale = this.loads;
  }

  #void() {
    this.#turn++;
    this.#queue = this.#queue.filter(({ type }) => type !== 'message');
    this.#hurry();
  }

  #schedule() {
    if (this.#scheduled) return;
    this.#scheduled = true;
    queueMicrotask(() => {
      this.#scheduled = false;
      this.#pump();
    });
  }

  #pump() {
    while (!this.#busy && !this.#loading && this.#queue.length) {
      const item = this.#queue.shift();
      const turn = this.#turn;
      this.#busy = true;
      const done = () => {
        this.#busy = false;
        if (turn === this.#turn) this.#dealt(item);
      };
      const pending = this.#call(item);
      if (!pending) {
        done();
        continue;
      }
      pending.then(done).then(() => this.#pump());
    }
  }

  /** A promise where the handler gave one. It is kept in any case. */
  #call({ type, event }) {
    try {
      const result = this.#tell(type, event);
      if (typeof result?.then !== 'function') return null;
      return Promise.resolve(result).catch((error) => this.#failed(error));
    } catch (error) {
      this.#failed(error);
      return null;
    }
  }

  #tell(type, event) {
    const { onMessage, onGap, onJoined, onLeft } = this.#handlers;
    if (type !== 'message') this.#host.tell(type, event);
    if (type === 'message') return onMessage?.(event);
    if (type === 'gap') return onGap?.(event);
    return type === 'joined' ? onJoined?.(event) : onLeft?.(event.reason);
  }

  #dealt({ type, at }) {
    this.#host.done(at);
    if (this.#queue.length <= this.#limit / 2) this.#host.drained();
    if (type === 'message') this.#tries = 0;
    if (this.loads && (type === 'gap' || (type === 'joined' && this.#stale))) {
      this.#from = at;
      this.#due = true;
      this.#load();
    }
  }

  async #load() {
    this.#loading = true;
    while (this.#due) {
      const turn = this.#turn;
      if (this.#tries++) await this.#pause(growing_ms(this.#tries - 2, RETRY_S));
      if (turn !== this.#turn) continue;
      try {
        const result = await this.#handlers.state();
        if (turn === this.#turn) this.#loaded(result?.position);
      } catch (error) {
        if (turn === this.#turn) this.#failed(error);
      }
    }
    this.#loading = false;
    this.#pump();
  }

  #loaded(position) {
    this.#due = false;
    this.#stale = false;
    if (!position) {
      this.#tries = 0;
      return;
    }
    const { epoch, offset } = position;
    if (epoch !== this.#from[0] || offset < this.#from[1]) {
      this.#void();
      this.#host.resume([epoch, offset]);
      return;
    }
    this.#tries = 0;
    this.#queue = this.#queue.filter(({ type, at }) => type !== 'message' || at[0] !== epoch || at[1] > offset);
    this.#host.skip(offset);
  }

  #pause(ms) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#hurry = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  #failed(error) {
    const { onError } = this.#handlers;
    if (!onError) {
      this.#host.failed(error);
      return;
    }
    try {
      onError(error);
    } catch (another) {
      this.#host.failed(another);
    }
  }
}
