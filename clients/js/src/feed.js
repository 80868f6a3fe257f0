/**
 * The newest of one stream, for tabs that come from different positions: where it begins, and what follows.
 * An entry is `{epoch, offset, gap, back, text}`: the event as text, and the position behind it; `back`: it goes to everybody,
 * also to who stands further on.
 */

const MOST = 1000; // entries
const MOST_CHARS = 2 ** 20; // of their data, about

export class Feed {
  from = null; // [epoch, offset]: who stands here gets all entries
  at = null; // behind the last entry
  top = 0; // the newest offset when it was joined
  joined = false; // messages come
  left = null; // why they don't any more
  subscription = null;
  #entries = [];
  #chars = 0;

  constructor(stream, from) {
    this.stream = stream;
    this.group = stream.startsWith('group:') ? stream.slice('group:'.length) : null;
    this.from = this.at = from;
  }

  /** The stream begins, or goes on: the first position counts, since what is lost later is told by a gap. */
  begin({ epoch, offset, top }) {
    this.top = top;
    this.joined = true;
    this.left = null;
    this.at ??= [epoch, offset];
    this.from ??= this.at;
  }

  add(entry) {
    this.#entries.push(entry);
    this.at = [entry.epoch, entry.offset];
    this.#chars += entry.text.length;
    while (this.#entries.length > MOST || this.#chars > MOST_CHARS) {
      const oldest = this.#entries.shift();
      this.#chars -= oldest.text.length;
      this.from = [oldest.epoch, oldest.offset];
    }
  }

  /** The entries behind a position; null where they are not here any more. A position further on has none. */
  after([epoch, offset]) {
    const reached = (at) => at[0] === epoch && at[1] <= offset;
    for (let i = this.#entries.length - 1; i >= 0; i--) {
      const entry = this.#entries[i];
      if (reached([entry.epoch, entry.offset])) return this.#entries.slice(i + 1);
    }
    return reached(this.from) ? [...this.#entries] : null;
  }

  /** All entries of the epoch of now, after a gap that leads to them: for who can't be helped otherwise. */
  anew() {
    const [epoch] = this.at;
    const first = this.#entries.findIndex((entry) => entry.epoch === epoch);
    const entries = first < 0 ? [] : this.#entries.slice(first);
    const to = entries.length ? entries[0].offset - (entries[0].gap ? 0 : 1) : this.at[1];
    const text = JSON.stringify({ type: 'gap', stream: this.stream, epoch, from: null, to, reason: 'reset' });
    return [{ epoch, offset: to, gap: true, back: true, text }, ...entries];
  }
}
