/** One handler's view of a stream. */
export class Subscription {
  #tidegate;
  #streams;
  #name;
  #delivery;

  constructor(tidegate, streams, name, handlers) {
    this.#tidegate = tidegate;
    this.#streams = streams;
    this.#name = name;
    this.#delivery = streams.deliveryOf(name, typeof handlers === 'function' ? { onMessage: handlers } : handlers);
    this.join();
  }

  get #stream() {
    return this.#streams.get(this.#name);
  }

  /** The group's name; null where it is not a group's. */
  get name() {
    return this.#stream.group;
  }

  get stream() {
    return this.#stream.name;
  }

  /** Whether messages come. */
  get joined() {
    return this.#stream.delivery === this.#delivery && this.#stream.takes;
  }

  /** How many messages came a second time, and were dropped. */
  get duplicates() {
    return this.#stream.duplicates;
  }

  join() {
    this.#streams.join(this.#stream, this.#delivery);
  }

  leave() {
    if (this.#stream.delivery === this.#delivery) this.#streams.leave(this.#stream);
  }

  publish(data, options) {
    return this.#tidegate.publish(this.name, data, options);
  }

  history(options) {
    return this.#tidegate.history(this.name, options);
  }

  presence() {
    return this.#tidegate.presence(this.name);
  }
}
