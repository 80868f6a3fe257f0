/**
 * A WebSocket that reads slowly, or not at all: what a slow consumer looks like from the other side. No DOM.
 *
 * A page cannot make a WebSocket wait. A WebSocketStream can be left unread: then the browser reads no more from the
 * network, and the gateway is left with what it has to say. Chromium has it; others do not.
 */

const SLOW_MS = 1000;

/** Whether this browser can read slowly. */
export const canPace = 'WebSocketStream' in globalThis;

/** `kind`: `at once`; `slow`, one message a second; `nothing`. */
export class Pace {
  #kind = 'at once';
  #wake = () => {};
  #changed = this.#next();

  get kind() {
    return this.#kind;
  }

  set kind(kind) {
    this.#kind = kind;
    this.#wake();
    this.#changed = this.#next();
  }

  #next() {
    return new Promise((resolve) => {
      this.#wake = resolve;
    });
  }

  /** Resolves when the next message may be read. */
  async turn() {
    while (this.#kind === 'nothing') await this.#changed;
    if (this.#kind !== 'slow') return;
    const timer = new Promise((resolve) => setTimeout(resolve, SLOW_MS));
    await Promise.race([timer, this.#changed]);
    if (this.#kind === 'nothing') await this.turn();
  }
}

export class PacedSocket extends EventTarget {
  onmessage = null;
  onclose = null;
  onerror = null;
  #stream;
  #pace;
  #writer = null;
  #over = false; // its end was told
  #closing;
  #close = () => {};

  constructor(url, protocols, pace) {
    super();
    this.#pace = pace;
    this.#stream = new WebSocketStream(url, { protocols });
    this.#closing = new Promise((resolve) => {
      this.#close = resolve;
    });
    this.#run();
  }

  send(text) {
    this.#writer?.write(text).catch(() => {}); // that it has ended is told
  }

  close(code = 1000) {
    this.#close();
    this.#stream.close({ closeCode: code });
  }

  async #run() {
    try {
      const { readable, writable } = await this.#stream.opened;
      this.#writer = writable.getWriter();
      this.#tell(new Event('open'));
      this.#read(readable.getReader());
    } catch {
      this.#tell(new Event('error'));
    }
    let [code, reason] = [1006, ''];
    try {
      ({ closeCode: code, reason } = await this.#stream.closed);
    } catch (error) {
      if (error.closeCode) ({ closeCode: code, reason } = error);
    }
    this.#tell(new CloseEvent('close', { code, reason }));
    this.#over = true;
    this.#close();
  }

  async #read(reader) {
    try {
      for (let count = 0; ; count += 1) {
        if (count > 0) await Promise.race([this.#pace.turn(), this.#closing]); // the welcome is taken at once
        const { done, value } = await reader.read();
        if (done || this.#over) return;
        this.#tell(new MessageEvent('message', { data: value }));
      }
    } catch {
      // It has ended, which is told.
    }
  }

  #tell(event) {
    if (this.#over) return;
    this.dispatchEvent(event);
    this[`on${event.type}`]?.(event);
  }
}
