/**
 * All streams of a client, and how each gets from what is wished to what is so.
 *
 * A stream without a handler keeps the position that it was first told, and what comes of it is dropped; when a handler
 * comes it goes on from there. For a group that is a `join` with a position. The client's own stream and `all` can't be
 * joined: for them the client connects again.
 *
 * A cursor holds what is wanted. What it did not hold and a lasting membership brings all the same is passed over
 * until its `join` is answered: it comes again.
 */

import { pack } from './cursor.js';
import { growing_ms } from './closes.js';
import { Delivery } from './delivery.js';
import { idle } from './liveness.js';
import { Stream } from './stream.js';

const OWN = 'client:';
const TRANSIENT = new Set(['broker_down', 'too_fast', 'full', 'internal_error', 'draining', 'unavailable']);
const RETRY_S = [0.5, 30];

const keyOf = (name) => (name.startsWith(OWN) ? OWN : name);

export class Streams {
  client = null; // whose own stream it is, once that is known
  #all = new Map(); // name -> Stream; the client's own one is at OWN
  #store;
  #queueLimit;
  #host;
  #online = false;

  /** `host`: `order(command, done)`, `reconnect()`, `tell(type, event)`, `failed(error)`, `changed()`. */
  constructor(store, queueLimit, host) {
    this.#store = store;
    this.#queueLimit = queueLimit;
    this.#host = host;
  }

  /** Received positions, by the names of streams. */
  get positions() {
    return Object.fromEntries([...this.#all.values()].filter(({ at }) => at).map(({ name, at }) => [name, at]));
  }

  /** Whether each group that is wished for is joined, or was refused. */
  get settled() {
    return [...this.#all.values()].every((stream) => !stream.group || stream.settled);
  }

  /** The stream of this name; it is made where there is none. */
  get(name) {
    const key = keyOf(name);
    let stream = this.#all.get(key);
    if (!stream) {
      stream = new Stream(key === OWN && this.client ? OWN + this.client : name);
      this.#all.set(key, stream);
    }
    return stream;
  }

  /** The positions are this client's; if they were another's, everything begins anew. */
  belongTo(client) {
    const another = this.client !== null && this.client !== client;
    this.client = client;
    this.#store.belongTo(client);
    this.get(OWN).name = OWN + client;
    this.get('all');
    for (const stream of this.#all.values()) {
      if (another) {
        stream.forget();
        stream.paused = false;
        stream.delivery?.reset();
      }
      this.#goOn(stream);
    }
  }

  /** What hands a stream's messages to `handlers`, one after the other. */
  deliveryOf(name, handlers) {
    return new Delivery(handlers, this.#queueLimit, {
      tell: this.#host.tell,
      failed: this.#host.failed,
      done: (at) => this.#store.set(this.get(name).name, at),
      drained: () => this.#drained(this.get(name)),
      skip: (offset) => {
        const stream = this.get(name);
        stream.skipTo(offset);
        this.#store.set(stream.name, [stream.at[0], offset]);
      },
      resume: (at) => {
        this.get(name).resume(at);
        this.#settle(this.get(name));
      },
    });
  }

  /** It is wished for, from where it is known or else from now on. */
  join(stream, delivery) {
    if (stream.wish) {
      if (stream.delivery === delivery) return;
      throw new Error(`${stream.group ?? stream.name} has a subscription already`);
    }
    stream.delivery = delivery;
    this.#goOn(stream);
    if (delivery.loads && stream.group) stream.at = null;
    stream.wish = true;
    stream.left = false;
    stream.number++;
    if (stream.group) stream.rejoin = true;
    else if (stream.passed) stream.resume();
    else if (stream.on) this.#tell(stream, stream.begin({ epoch: stream.at[0], offset: stream.at[1] }));
    this.#settle(stream);
  }

  /** Nothing of it reaches a handler any more. */
  leave(stream) {
    stream.delivery?.reset();
    stream.delivery = null;
    stream.wish = false;
    stream.paused = false;
    stream.left = true;
    this.#store.set(stream.name, null);
    if (stream.group) {
      stream.forget();
      this.#settle(stream);
    }
  }

  /** What a handshake says of the streams: `{cursor, groups, carried}`. `last`: the gateway knows the positions. */
  handshake(chars, most, last, doubtful) {
    // Of the client's own streams also those whose handler may come: while nothing was passed over it costs nothing.
    const wanted = [...this.#all.values()].filter(({ wish, paused, group, passed, left }) =>
      wish ? !paused : !group && !passed && !left,
    );
    wanted.sort((a, b) => Boolean(a.group) - Boolean(b.group));
    const sendable = wanted.filter(({ group }) => group || !doubtful);
    const { cursor, groups, carried } = pack(sendable, chars, most, last);
    return { cursor, groups, carried: new Map(carried.map((stream) => [stream, stream.number])) };
  }

  /** A new connection follows these. `carried` is of its handshake. */
  welcomed(streams, carried) {
    this.cut();
    this.#online = true;
    for (const [name, start] of Object.entries(streams)) {
      const stream = this.get(name);
      stream.on = true;
      if (!stream.wish) this.#keep(stream, start);
      else if (carried.get(stream) === stream.number || !stream.at) this.#tell(stream, stream.begin(start));
      else if (!stream.paused) stream.rejoin = true;
    }
    for (const [key, stream] of this.#all) {
      if (stream.group && !stream.on && !stream.delivery) this.#all.delete(key); // nobody brings it back
      // What was asked for and is not there is refused: `left` follows.
      else if (stream.on || !carried.has(stream)) this.#settle(stream);
    }
  }

  /** No connection follows anything. */
  cut() {
    this.#online = false;
    for (const stream of this.#all.values()) {
      stream.on = false;
      stream.busy = null;
    }
  }

  /** An event that names a stream. */
  take(event) {
    const { type } = event;
    const stream = type === 'joined' ? this.get(event.stream) : this.#all.get(keyOf(event.stream));
    if (!stream) return;
    if (type === 'message' || type === 'gap') this.#arrived(stream, event);
    else if (type === 'joined') this.#joined(stream, event);
    else if (type === 'left') this.#left(stream, event.reason);
  }

  /** The end: nothing is told any more. */
  end() {
    for (const stream of this.#all.values()) {
      stream.delivery?.reset();
      stream.delivery = null;
      stream.wish = false;
    }
  }

  #arrived(stream, event) {
    const move = () => (event.type === 'message' ? stream.message(event) : stream.gap(event));
    if (stream.left && !stream.group && stream.at) move(); // who comes again begins here
    else if (!stream.takes || stream.delivery.full) {
      stream.passed = true;
      if (stream.takes) stream.paused = true;
    } else this.#tell(stream, move());
  }

  #joined(stream, event) {
    stream.on = true;
    if (stream.busy || stream.left) {
      this.#settle(stream);
      return;
    }
    if (stream.delivery) {
      stream.wish = true;
      this.#tell(stream, stream.begin(event));
      this.#host.changed();
      return;
    }
    this.#keep(stream, event);
    this.#host.tell('joined', { ...event, group: stream.group });
  }

  #left(stream, reason) {
    stream.on = false;
    if (stream.left) return;
    this.#refused(stream, reason);
    stream.wish &&= stream.busy?.type === 'join'; // the answer to a join says what is so
    this.#host.changed();
  }

  #refused(stream, reason) {
    stream.forget();
    this.#store.set(stream.name, null);
    const event = { stream: stream.name, group: stream.group, reason };
    if (stream.delivery) stream.delivery.push({ type: 'left', event, at: null });
    else this.#host.tell('left', event);
  }

  /** A stream without a handler: the first position counts. */
  #keep(stream, { epoch, offset }) {
    if (stream.left) {
      if (!stream.group) stream.at = [epoch, offset];
      return;
    }
    this.#goOn(stream);
    if (stream.at && (stream.at[0] !== epoch || stream.at[1] !== offset)) stream.passed = true;
    stream.at ??= [epoch, offset];
  }

  /** From what is stored, if it is not known better. */
  #goOn(stream) {
    const at = this.#store.positions.get(stream.name);
    if (!at || stream.delivery?.loads || (stream.at && stream.wish)) return;
    stream.at = at;
  }

  #tell(stream, items) {
    for (const item of items) stream.delivery.push(item);
  }

  #drained(stream) {
    if (!stream.paused) return;
    stream.paused = false;
    stream.resume();
    this.#settle(stream);
  }

  /** Brings a stream one step nearer to what is wished. */
  #settle(stream) {
    if (!this.#online || stream.busy || stream.paused) return;
    if (!stream.group) {
      if (stream.wish && stream.rejoin) this.#host.reconnect();
      return;
    }
    const { wish, on, left, rejoin, at, group, number } = stream;
    if (wish ? on && !rejoin : !(on && left)) return;
    const type = wish ? 'join' : 'leave';
    const busy = { type, number };
    stream.busy = busy;
    stream.rejoin = wish;
    const from = wish && at ? { epoch: at[0], offset: at[1] } : {};
    this.#host.order({ type, group, ...from }, (error, answer) => {
      if (stream.busy !== busy) return;
      stream.busy = null;
      if (type === 'join') this.#answered(stream, number, error, answer);
      else stream.on = false;
      this.#settle(stream);
      this.#host.changed();
    });
  }

  #answered(stream, number, error, answer) {
    if (!error) {
      stream.on = true;
      stream.failures = 0;
      if (stream.wish && stream.number === number) this.#tell(stream, stream.begin(answer));
    } else if (stream.wish && TRANSIENT.has(error.code)) {
      const busy = { type: 'pause' };
      stream.busy = busy;
      const again = () => {
        if (stream.busy !== busy) return;
        stream.busy = null;
        this.#settle(stream);
      };
      idle(again, growing_ms(stream.failures++, RETRY_S));
    } else if (stream.wish && stream.number === number) {
      stream.wish = false;
      this.#refused(stream, error.code);
    }
  }
}
