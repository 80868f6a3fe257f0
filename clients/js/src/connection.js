/**
 * One attempt to get a connection, and the connection that it becomes when it is welcomed.
 * After `drop` nothing of it is told: whatever still arrives belongs to the past.
 */

import { meaningOf } from './closes.js';
import { after, deadline, Liveness } from './liveness.js';

export class Connection {
  over = false;
  welcome = null;
  carried = null; // what its handshake said of the streams
  within_s; // so long it lasts since its node is `moving`
  #hooks;
  #socket = null;
  #liveness = null;
  #cancel = () => {};

  /** `hooks`: `event(connection, event)`; `ended(connection, code, message, meaning)`, once. */
  constructor(hooks) {
    this.#hooks = hooks;
  }

  /** Opens what `prepare` gives, `[WebSocket, url, protocols]`. There is a `welcome` within the time, or an end. */
  async open(timeout_s, prepare) {
    this.#cancel = deadline(timeout_s, () => this.end(1006, `no welcome within ${timeout_s} s`));
    let made;
    try {
      made = await prepare();
    } catch (error) {
      this.end(1006, error?.message ?? String(error), meaningOf(error?.code, ['token', 'growing']));
    }
    if (this.over) return;
    try {
      const [WebSocket, url, protocols] = made;
      this.#socket = new WebSocket(url, protocols);
    } catch (error) {
      this.end(1006, error.message, ['refused']);
      return;
    }
    this.#socket.onmessage = ({ data }) => this.#receive(data);
    this.#socket.onclose = ({ code, reason }) => this.end(code, reason);
    // `close` follows at once, but for a handshake that Node was refused.
    this.#socket.onerror = () => setTimeout(() => this.welcome ?? this.end(1006, 'no connection'));
  }

  send(text) {
    this.#socket.send(text);
  }

  /** Welcomed: from now on silence ends it. */
  live(interval_s, timeout_s, ping) {
    this.#cancel();
    this.#liveness = new Liveness(interval_s, timeout_s, ping, () => this.end(1006, 'no answer to a ping'));
  }

  /** Another one has taken its place: `then` after so many seconds, or an end before that. */
  retire(seconds, then) {
    this.#liveness?.stop();
    this.#cancel = after(seconds, then);
  }

  /** Asks for a sign of life now. */
  probe(limit_s) {
    this.#liveness?.probe(limit_s);
  }

  end(code, message, meaning = meaningOf(code)) {
    if (this.over) return;
    this.drop();
    this.#hooks.ended(this, code, message, meaning);
  }

  drop() {
    this.over = true;
    this.#cancel();
    this.#liveness?.stop();
    if (!this.#socket) return;
    this.#socket.onmessage = this.#socket.onclose = null;
    this.#socket.close(1000);
  }

  #receive(data) {
    let event;
    try {
      event = JSON.parse(data);
    } catch {
      return; // the text `pong`, which may be an edge's and proves nothing
    }
    this.#liveness?.heard();
    if (typeof event?.type === 'string') this.#hooks.event(this, event);
  }
}
