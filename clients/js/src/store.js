/**
 * Positions that outlive this page or process: those that handlers have dealt with.
 * Where a storage throws or hangs, the client goes on without it and says so once.
 */

import { positionsIn } from './cursor.js';

const READ_S = 2;
const WRITE_MS = 250;

export class Store {
  positions = new Map(); // stream name -> [epoch, offset]
  client = null; // whose they are
  #storage;
  #key;
  #failed;
  #timer = null;
  #writing = false;

  constructor(storage, key, failed) {
    this.#storage = storage;
    this.#key = key;
    this.#failed = failed;
  }

  /** Reads what is stored. Takes 2 s at most. */
  async load() {
    await null; // what it says if it fails is not told in the midst of `connect`
    if (!this.#storage) return;
    let timer;
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error('no answer of the storage')), READ_S * 1000);
    });
    try {
      const text = await Promise.race([this.#storage.getItem(this.#key), late]);
      this.#read(text);
    } catch (error) {
      this.#end(error);
    }
    clearTimeout(timer);
  }

  #read(text) {
    try {
      const { v, client, positions } = JSON.parse(text);
      if (v !== 1) return;
      this.positions = positionsIn(positions);
      this.client = client;
    } catch {
      // Whoever wrote it: it is of no use.
    }
  }

  /** These belong to `client`; what another one left is dropped. */
  belongTo(client) {
    if (this.client !== null && this.client !== client) this.positions.clear();
    this.client = client;
  }

  /** All up to `at` is dealt with. Null: there is nothing to go on from. */
  set(name, at) {
    if (at) this.positions.set(name, at);
    else if (!this.positions.delete(name)) return;
    if (this.#storage) this.#later();
  }

  #later() {
    this.#timer ??= setTimeout(() => this.flush(), WRITE_MS);
  }

  /** Writes now what has changed. */
  flush() {
    if (this.#timer === null || !this.#storage) return;
    clearTimeout(this.#timer);
    this.#timer = null;
    if (this.#writing) {
      this.#later(); // two writes at once may end in any order
      return;
    }
    const text = JSON.stringify({ v: 1, client: this.client, positions: Object.fromEntries(this.positions) });
    try {
      const empty = this.positions.size === 0;
      const written = empty ? this.#storage.removeItem(this.#key) : this.#storage.setItem(this.#key, text);
      if (!written?.then) return;
      this.#writing = true;
      const done = () => {
        this.#writing = false;
      };
      written.then(done, (error) => this.#end(error));
    } catch (error) {
      this.#end(error);
    }
  }

  #end(error) {
    if (this.#storage) this.#failed(error);
    this.#storage = null;
  }
}
