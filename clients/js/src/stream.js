/**
 * One stream: how far its messages have arrived here, and whether they are wanted.
 *
 * The gateway promises offsets without holes and repetitions. It is checked all the same: a connection that is replaced
 * while it still delivers brings repetitions, and a hole that nobody tells of is the worst that can happen to a reader.
 */

export class Stream {
  at = null; // received: [epoch, offset]. Null: it begins where the gateway says
  on = false; // the connection follows it
  wish = false; // it is to be followed
  left = false; // by `leave()`: also where a lasting membership brings it back
  number = 0; // of the newest wish: an answer to an older one changes nothing
  busy = null; // {type, number} of the command under way; there is one at a time
  rejoin = false; // it begins anew with the next answer: what comes until then is dropped
  paused = false; // the handler has too much to do: what comes is dropped
  passed = false; // something was dropped behind `at`
  failures = 0; // of joins, one after the other, that may succeed later
  delivery = null; // to the handler, where there is one
  duplicates = 0;
  #open = false; // the next offset is open
  #replay = null; // [epoch, top]: up to there messages come from the journal

  constructor(name) {
    this.name = name; // of the client's own one: 'client:' until it is known who that is
    this.group = name.startsWith('group:') ? name.slice(6) : null;
  }

  get takes() {
    return this.on && this.wish && this.delivery !== null && !this.rejoin && !this.paused;
  }

  /** Whether the wish for a group is fulfilled. */
  get settled() {
    return !this.wish || (this.on && !this.rejoin && !this.busy);
  }

  /** There is nothing to go on from: it begins anew. */
  forget() {
    this.at = null;
    this.passed = false;
    this.#open = false;
    this.number++;
  }

  /** Goes on from `at`, wherever it is now. */
  resume(at = this.at) {
    this.at = at;
    this.#open = false;
    this.rejoin = true;
    this.number++;
  }

  /** All up to `offset` of this epoch is covered by other means. */
  skipTo(offset) {
    if (this.#open || offset > this.at[1]) this.at = [this.at[0], offset];
    this.#open = false;
  }

  /** `welcome`, `joined` or the answer to a join: what the handler is told of it. */
  begin({ epoch, offset, top, recovered, missed }) {
    const [at, items] = [this.at, []];
    this.rejoin = false;
    this.passed = false;
    this.#replay = missed > 0 ? [epoch, top] : null;
    if (at && recovered !== false && !this.#open) {
      // Nothing was said of a loss. At offset 0 the epoch may be another one: nothing had been said.
      if (at[0] === epoch && offset > at[1]) items.push(this.#gap(epoch, at[1] + 1, offset, 'hole'));
      else if (at[0] !== epoch && at[1] > 0) items.push(this.#gap(epoch, null, offset, 'reset'));
    }
    // A position further on: those between have come already, over another connection or before the cut.
    if (at?.[0] !== epoch || offset > at[1]) this.at = [epoch, offset];
    this.#open = false;
    const event = { ...this.#names(epoch), offset: this.at[1], top, recovered, missed };
    return [{ type: 'joined', event, at: this.at }, ...items];
  }

  /** What the handler is told of a `message`: nothing, the message, or a gap before it. */
  message({ epoch, offset, time, data, client }) {
    const [before, last] = this.at;
    const items = [];
    if (epoch === before && offset <= last && !this.#open) {
      this.duplicates++;
      return items;
    }
    if (!this.#open) {
      if (epoch !== before) items.push(this.#gap(epoch, null, offset - 1, 'reset'));
      else if (offset !== last + 1) items.push(this.#gap(epoch, last + 1, offset - 1, 'hole'));
    }
    this.#open = false;
    this.at = [epoch, offset];
    const missed = this.#replay?.[0] === epoch && offset <= this.#replay[1];
    const event = { ...this.#names(epoch), offset, time, data, client, missed };
    items.push({ type: 'message', event, at: this.at });
    return items;
  }

  /** What the handler is told of a `gap`: what is left of it, where it begins before `at`. */
  gap({ epoch, from, to, reason }) {
    const [before, last] = this.at;
    // It begins where its connection did, and the one before brought more since.
    const late = from !== null && from <= last && epoch === before && !this.#open;
    if (late && to !== null && to <= last) return [];
    const item = this.#gap(epoch, late ? last + 1 : from, to, reason);
    this.#open = to === null;
    return [item];
  }

  #gap(epoch, from, to, reason) {
    // Where a reset does not say how far it went, the lowest offset may repeat messages, but skips none.
    this.at = [epoch, to ?? (this.at[0] === epoch ? this.at[1] : 0)];
    return { type: 'gap', event: { ...this.#names(epoch), from, to, reason }, at: this.at };
  }

  #names(epoch) {
    return { stream: this.name, group: this.group, epoch };
  }
}
