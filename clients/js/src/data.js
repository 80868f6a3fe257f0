/**
 * Data and the messages that change it, for components: state, then stream.
 *
 * `load()` gives `{data, position?}`. What comes while it loads is held, then applied, but for what the data has already
 * by its position. It is loaded again after a gap that lost something, and where the stream begins anew. One that is void (the stream broke, or
 * nobody looks any more) changes nothing.
 */

import { growing_ms } from './closes.js';

const RETRY_S = [0.5, 30];
const MOST_HELD = 1000;

export class Data {
  snapshot;
  #load;
  #apply;
  #changed = () => {};
  #turn = 0; // a load of an older one is void
  #loading = false;
  #held = [];
  #from = null; // [epoch, offset] behind which what is held begins
  #upTo = null; // what the data has already
  #retry = 0; // timer
  #failures = 0;

  /** `apply(data, message)` gives the new data. */
  constructor({ load, apply, initial }) {
    this.#load = load;
    this.#apply = apply;
    this.snapshot = { data: initial, ready: false, error: null };
  }

  /** Begins to listen; `changed()` after each new snapshot. Ends with the function that it gives. */
  follow(listen, changed) {
    this.#changed = changed;
    const end = listen({
      onJoined: ({ epoch, offset, recovered }) => {
        if (this.#from === null || !recovered) this.#reload([epoch, offset]);
      },
      onMessage: (message) => {
        if (this.#loading) this.#hold(message);
        else this.#take(message);
      },
      onGap: ({ epoch, to, reason }) => {
        if (reason !== 'skipped') this.#reload([epoch, to ?? 0]);
      },
    });
    return () => {
      end();
      this.#void();
      this.#from = null;
      this.#changed = () => {};
    };
  }

  #publish(change) {
    this.snapshot = { ...this.snapshot, ...change };
    this.#changed();
  }

  #void() {
    this.#turn++;
    this.#loading = false;
    this.#held = [];
    clearTimeout(this.#retry);
  }

  #hold(message) {
    this.#held.push(message);
    if (this.#held.length > MOST_HELD) this.#reload([message.epoch, message.offset]);
  }

  #reload(from) {
    this.#void();
    this.#from = from;
    this.#upTo = null;
    this.#loading = true;
    this.#try(this.#turn);
  }

  async #try(turn) {
    try {
      const { data, position } = await this.#load();
      if (turn === this.#turn) this.#loaded(data, position ?? null);
    } catch (error) {
      if (turn !== this.#turn) return;
      this.#publish({ error });
      this.#retry = setTimeout(() => this.#try(turn), growing_ms(this.#failures++, RETRY_S));
    }
  }

  #loaded(data, position) {
    const [epoch, offset] = this.#from;
    // Messages between the two are not here: who read an older copy has to look again.
    if (position?.epoch === epoch && position.offset < offset) throw new Error('the data is older than the stream');
    this.#upTo = position;
    this.#loading = false;
    this.#failures = 0;
    this.#publish({ data, ready: true, error: null });
    for (const message of this.#held.splice(0)) this.#take(message);
  }

  #take(message) {
    const { epoch, offset } = this.#upTo ?? {};
    if (message.epoch === epoch && message.offset <= offset) return; // the data has it
    try {
      this.#publish({ data: this.#apply(this.snapshot.data, message) });
    } catch (error) {
      this.#publish({ error });
    }
  }
}
