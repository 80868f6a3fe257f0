/**
 * To one handler: one item after the other, the next when it is done with the last.
 *
 * Everything that comes waits in a queue, and the handler is called in a microtask: so never in the midst of what the
 * client is doing, and it may leave, join, connect and close as it likes. `#turn` says whether what was begun still
 * holds.
 *
 * With `state` the queue stands still while the data is loaded: from the first `joined`, and from each `gap` that lost
 * something (`skipped` did not: newer messages follow), until `state()` has given it. One load at a time, or the older might write its data over the newer's. A load is void when
 * the stream breaks meanwhile; then what was held is part of the next one.
 */

import { growing_ms } from './closes.js';

const RETRY_S = [0.5, 30];

const isLoss = ({ type, event }) => type === 'gap' && event.reason !== 'skipped';

export class Delivery {
  #handlers;
  #limit;
  #host;
  #queue = [];
  #messages = 0; // of them
  #busy = false; // a handler is at work
  #scheduled = false;
  #turn = 0;
  #stale; // the data is to be loaded with the next `joined`
  #due = false; // it is to be loaded now
  #loading = false;
  #flooded = false; // too much came: nothing is held until `state` is called again
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
    return !this.#loading && this.#messages >= this.#limit;
  }

  push(item) {
    const isMessage = item.type === 'message';
    if (item.type === 'left') this.#stale = this.loads; // if it is joined again
    if (this.#loading && (isLoss(item) || item.type === 'left')) {
      this.#void();
      this.#due = false; // again when this has been told
    }
    if (this.#loading && isMessage && this.#messages >= this.#limit) {
      this.#void();
      this.#flooded = true;
    }
    if (isMessage && this.#flooded) {
      this.#from = item.at;
      return;
    }
    this.#queue.push(item);
    if (isMessage) this.#messages++;
    this.#schedule();
  }

  /** What waits is not told any more. */
  reset() {
    this.#void();
    this.#queue = [];
    this.#tries = 0;
    this.#due = false;
    this.#stale = this.loads;
  }

  /** What is held is dropped, and what `state` is about to give as well. */
  #void() {
    this.#turn++;
    this.#flooded = false;
    this.#keep(() => false);
    this.#hurry();
  }

  /** Of the messages that wait, those that `isKept`. */
  #keep(isKept) {
    this.#queue = this.#queue.filter((item) => item.type !== 'message' || isKept(item));
    this.#messages = this.#queue.filter(({ type }) => type === 'message').length;
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
      if (item.type === 'message') this.#messages--;
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

  #dealt(item) {
    const { type, at } = item;
    this.#host.done(at);
    this.#relieve();
    if (type === 'message') this.#tries = 0;
    if (this.loads && (isLoss(item) || (type === 'joined' && this.#stale))) {
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
      this.#flooded = false;
      try {
        const result = await this.#handlers.state();
        if (turn === this.#turn) this.#loaded(result?.position);
      } catch (error) {
        if (turn === this.#turn) this.#failed(error);
      }
    }
    this.#loading = false;
    this.#relieve();
    this.#pump();
  }

  #relieve() {
    if (this.#messages <= this.#limit / 2) this.#host.drained();
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
    this.#keep(({ at }) => at[0] !== epoch || at[1] > offset);
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
