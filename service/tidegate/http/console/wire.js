/**
 * What passes on the library's WebSocket, to the letter: the console shows frames as they came, and sends commands of its own.
 * No DOM.
 */

/**
 * A WebSocket class for the library, made of `Base`, which is one. `tap` hears before the library does: `opened(socket)`, `received(socket, event, text)`,
 * `ended(socket)`, and `sent(command)`.
 */
export function tapped(tap, Base) {
  return class extends Base {
    constructor(...address) {
      super(...address);
      tap.opening(this);
      this.addEventListener('open', () => tap.opened(this));
      this.addEventListener('message', ({ data }) => tap.received(this, JSON.parse(data), data));
      this.addEventListener('close', () => tap.ended(this));
    }

    send(text) {
      if (this.readyState !== WebSocket.OPEN) return; // it is about to end: the browser would drop it, and complain
      tap.sent(JSON.parse(text));
      super.send(text);
    }
  };
}

/** The bytes of a message's `data` as they came: `data` is the last key, and no value before it holds a quote. */
export function dataOf(text) {
  return text.slice(text.indexOf(',"data":') + 8, -1);
}

/** An `error` that answered a command. */
export class CommandError extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

/** Commands that wait for their answers: our own ones, and those that the library sends for us. */
export class Answers {
  #waiting = []; // {matches(command), id, since_ms, resolve, reject}
  #lastId = 0;

  newId() {
    this.#lastId += 1;
    return `console-${this.#lastId}`;
  }

  /** `{event, text, ms}` of the answer to the next command that `matches`. Rejects with CommandError, or when the connection ends. */
  expect(matches) {
    return new Promise((resolve, reject) => this.#waiting.push({ matches, id: null, since_ms: 0, resolve, reject }));
  }

  sent(command) {
    const entry = this.#waiting.find(({ id, matches }) => id === null && matches(command));
    if (entry) Object.assign(entry, { id: command.id, since_ms: performance.now() });
  }

  received(event, text) {
    const index = this.#waiting.findIndex(({ id }) => id !== null && id === event.id);
    if (index < 0) return;
    const [{ since_ms, resolve, reject }] = this.#waiting.splice(index, 1);
    if (event.type === 'error') reject(new CommandError(event.code, event.message));
    else resolve({ event, text, ms: performance.now() - since_ms });
  }

  end() {
    for (const { reject } of this.#waiting.splice(0)) reject(new Error('the connection ended before the answer'));
  }
}
