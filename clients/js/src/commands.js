/**
 * Commands and their answers. What may be sent twice is sent again after a cut, the same bytes; the rest ends as
 * unknown. Each has one deadline, whether it waits for a connection or for its answer.
 */

import { TidegateError, UnknownOutcome } from './errors.js';
import { deadline } from './liveness.js';

function checkSize(text, limit) {
  if (new TextEncoder().encode(text).length > limit) throw new TidegateError('too_large', `more than ${limit} bytes`);
}

export class Commands {
  limits = { message_bytes: 131072, data_bytes: 65536, groups: 100 }; // until a gateway says others
  #waiting = new Map(); // id -> {text, again, on, done}
  #last = 0;
  #timeout_s;
  #connection = null; // over which it is sent at once; else it waits for one

  constructor(timeout_s) {
    this.#timeout_s = timeout_s;
  }

  /** A promise of the answer without `type` and `id`. `again`: it may be sent twice. */
  request(command, again) {
    return new Promise((resolve, reject) => {
      const id = ++this.#last;
      const text = JSON.stringify({ ...command, id });
      checkSize(text, this.limits.message_bytes);
      checkSize(JSON.stringify(command.data) ?? '', this.limits.data_bytes);
      const cancel = deadline(this.#timeout_s, () => this.#done(id, new TidegateError('timeout', 'no answer in time')));
      const done = (error, answer) => {
        cancel();
        if (error) reject(error);
        else resolve(answer);
      };
      this.#add(id, { text, again, on: null, done });
    });
  }

  /** For a command of one connection, such as a join: `done(error, answer)` in the same turn, or never. */
  order(command, done) {
    const id = ++this.#last;
    this.#add(id, { text: JSON.stringify({ ...command, id }), again: null, on: null, done });
  }

  /** A connection is there: what waits is sent. */
  use(connection) {
    this.#connection = connection;
    for (const entry of this.#waiting.values()) this.#send(entry);
  }

  /** Whether answers are still to come over it. */
  waitsFor(connection) {
    return [...this.#waiting.values()].some(({ on }) => on === connection);
  }

  /** Nothing more comes over this connection. */
  cut(connection) {
    if (this.#connection === connection) this.#connection = null;
    for (const [id, entry] of this.#waiting) {
      if (entry.on !== connection) continue;
      entry.on = null;
      if (entry.again === null) this.#waiting.delete(id);
      else if (entry.again) this.#send(entry);
      else this.#done(id, new UnknownOutcome());
    }
  }

  /** Orders that were given over it are void: they follow from what is wished, over the next one. */
  forgetOrders(connection) {
    for (const [id, { again, on }] of this.#waiting) if (again === null && on === connection) this.#waiting.delete(id);
  }

  /** `reply`, `pong` or `error`; others' ids are passed over. */
  answer({ type, id, ...rest }) {
    if (type === 'error') this.#done(id, new TidegateError(rest.code, rest.message));
    else this.#done(id, null, rest);
  }

  /** All end with this code. */
  end(code) {
    this.#connection = null;
    for (const [id, { again }] of this.#waiting) {
      if (again === null) this.#waiting.delete(id);
      else this.#done(id, new TidegateError(code));
    }
  }

  #add(id, entry) {
    this.#waiting.set(id, entry);
    this.#send(entry);
  }

  #send(entry) {
    if (!this.#connection || entry.on) return;
    entry.on = this.#connection;
    entry.on.send(entry.text);
  }

  #done(id, error, answer) {
    const entry = this.#waiting.get(id);
    if (!this.#waiting.delete(id)) return;
    entry.done(error, answer);
  }
}
