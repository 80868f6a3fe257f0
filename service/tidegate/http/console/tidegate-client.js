// Generated from clients/js/src by tools/generated.sh. Do not edit.
// clients/js/src/closes.js
var RANDOM_S = 5;
var LONGER_S = [30, 60];
var CODES = {
  1e3: ["done"],
  1001: ["moved", "random"],
  1002: ["protocol"],
  1003: ["protocol"],
  1007: ["protocol"],
  1009: ["too_large"],
  1011: ["fault", "growing"],
  1012: ["restart", "random"],
  1013: ["overload", "longer"],
  4007: ["silent", "growing"],
  4008: ["slow", "growing"],
  4009: ["token_expired", "token"],
  4500: ["not_understood"],
  4501: ["disconnected"],
  4502: ["taken_over"],
  not_allowed: ["not_allowed"],
  // what asking for a token may end with
  token_expired: ["token_expired"]
};
function meaningOf(code, otherwise = code >= 4500 && code < 5e3 ? ["code"] : ["cut", "growing"]) {
  return CODES[code] ?? otherwise;
}
function growing_ms(failures, [first_s, longest_s]) {
  return Math.random() * Math.min(longest_s, first_s * 2 ** failures) * 1e3;
}
function delay_ms(delay, failures, backoff_s) {
  if (delay === "longer") return (LONGER_S[0] + Math.random() * (LONGER_S[1] - LONGER_S[0])) * 1e3;
  if (failures === 0 && delay === "random") return Math.random() * RANDOM_S * 1e3;
  if (failures === 0 && delay === "token") return 0;
  return growing_ms(failures, backoff_s);
}

// clients/js/src/errors.js
var TidegateError = class extends Error {
  constructor(code, message = code) {
    super(message);
    this.name = "TidegateError";
    this.code = code;
  }
};
var UnknownOutcome = class extends TidegateError {
  constructor() {
    super("unknown_outcome", "the connection ended before the answer: done or not, nobody can tell");
  }
};
var NotAllowed = class extends TidegateError {
  constructor(message = "no token") {
    super("not_allowed", message);
  }
};
var report = (error) => (globalThis.reportError ?? console.error)(error);

// clients/js/src/liveness.js
var LATE_MS = 2e3;
function after(seconds, then) {
  const due_ms = Date.now() + seconds * 1e3;
  const timer = setTimeout(() => then(Date.now() - due_ms > LATE_MS), seconds * 1e3);
  return () => clearTimeout(timer);
}
function deadline(seconds, then) {
  let cancel = after(seconds, (late) => {
    if (late) cancel = after(1, then);
    else then();
  });
  return () => cancel();
}
var idle = (then, ms) => setTimeout(then, ms).unref?.();
var Liveness = class {
  #asked = false;
  #cancel = () => {
  };
  /** `ping()` sends one that the far end answers, `dead()` is called when nothing came of it. */
  constructor(interval_s, timeout_s, ping, dead) {
    this.interval_s = interval_s;
    this.timeout_s = timeout_s;
    this.ping = ping;
    this.dead = dead;
    this.#rest();
  }
  /** Something came that only the far end can have sent. */
  heard() {
    if (this.#asked) this.#rest();
  }
  /** Asks now; an answer is due within `limit_s`. */
  probe(limit_s) {
    this.#cancel();
    this.#asked = true;
    this.#cancel = after(limit_s, (late) => late ? this.probe(limit_s) : this.dead());
    this.ping();
  }
  stop() {
    this.#cancel();
  }
  #rest() {
    this.#cancel();
    this.#asked = false;
    this.#cancel = after(this.interval_s, () => this.probe(this.timeout_s));
  }
};
function watchPage(wake, hide) {
  const { document } = globalThis;
  const watched = [
    [document, "visibilitychange", () => document.visibilityState === "visible" && wake()],
    [document, "resume", wake],
    [globalThis, "pageshow", wake],
    [globalThis, "online", wake],
    [globalThis, "pagehide", hide]
  ];
  for (const [target, name, listener] of watched) target?.addEventListener?.(name, listener);
  return () => {
    for (const [target, name, listener] of watched) target?.removeEventListener?.(name, listener);
  };
}

// clients/js/src/commands.js
function checkSize(text, limit) {
  if (new TextEncoder().encode(text).length > limit) throw new TidegateError("too_large", `more than ${limit} bytes`);
}
var Commands = class {
  limits = { message_bytes: 131072, data_bytes: 65536, groups: 100 };
  // until a gateway says others
  #waiting = /* @__PURE__ */ new Map();
  // id -> {text, again, on, done}
  #last = 0;
  #timeout_s;
  #connection = null;
  // over which it is sent at once; else it waits for one
  constructor(timeout_s) {
    this.#timeout_s = timeout_s;
  }
  /** A promise of the answer without `type` and `id`. `again`: it may be sent twice. */
  request(command, again) {
    return new Promise((resolve, reject) => {
      const id = ++this.#last;
      const text = JSON.stringify({ ...command, id });
      checkSize(text, this.limits.message_bytes);
      checkSize(JSON.stringify(command.data) ?? "", this.limits.data_bytes);
      const cancel = deadline(this.#timeout_s, () => this.#done(id, new TidegateError("timeout", "no answer in time")));
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
    if (type === "error") this.#done(id, new TidegateError(rest.code, rest.message));
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
};

// clients/js/src/connection.js
var Connection = class {
  over = false;
  welcome = null;
  carried = null;
  // what its handshake said of the streams
  within_s;
  // so long it lasts since its node is `moving`
  #hooks;
  #socket = null;
  #liveness = null;
  #cancel = () => {
  };
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
      this.end(1006, error?.message ?? String(error), meaningOf(error?.code, ["token", "growing"]));
    }
    if (this.over) return;
    try {
      const [WebSocket, url, protocols] = made;
      this.#socket = new WebSocket(url, protocols);
    } catch (error) {
      this.end(1006, error.message, ["refused"]);
      return;
    }
    this.#socket.onmessage = ({ data }) => this.#receive(data);
    this.#socket.onclose = ({ code, reason }) => this.end(code, reason);
    this.#socket.onerror = () => setTimeout(() => this.welcome ?? this.end(1006, "no connection"));
  }
  send(text) {
    this.#socket.send(text);
  }
  /** Welcomed: from now on silence ends it. */
  live(interval_s, timeout_s, ping) {
    this.#cancel();
    this.#liveness = new Liveness(interval_s, timeout_s, ping, () => this.end(1006, "no answer to a ping"));
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
    this.#socket.close(1e3);
  }
  #receive(data) {
    let event;
    try {
      event = JSON.parse(data);
    } catch {
      return;
    }
    this.#liveness?.heard();
    if (typeof event?.type === "string") this.#hooks.event(this, event);
  }
};

// clients/js/src/cursor.js
var CURSOR_CHARS = 4096;
var ID = /^(?!\.+$)[\w.@-]{1,128}$/;
var STREAM = /^(all|(client|group):(?!\.+$)[\w.@-]{1,128})$/;
var EPOCH = /^[\w.-]{1,64}$/;
var isId = (text) => typeof text === "string" && ID.test(text);
var isPosition = ([epoch, offset, ...more]) => typeof epoch === "string" && EPOCH.test(epoch) && Number.isInteger(offset) && offset >= 0 && offset <= 2 ** 53 && !more.length;
function positionsIn(object) {
  const entries = Object.entries(object);
  if (Array.isArray(object) || !entries.every(([name, at]) => STREAM.test(name) && isPosition(at))) throw new TypeError();
  return new Map(entries);
}
function encodeCursor(positions) {
  const token = base64url(JSON.stringify(Object.fromEntries(positions)));
  return token.length <= CURSOR_CHARS ? token : null;
}
var textOf = (token) => atob(token.replaceAll("-", "+").replaceAll("_", "/"));
var base64url = (text) => btoa(text).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
function pack(streams, chars, most, last) {
  const positions = [];
  const groups = [];
  const carried = [];
  let bytes = 1;
  for (const stream of last ? [] : streams) {
    const { name, at, group } = stream;
    if (!at || group && most < 1) continue;
    const grown = bytes + JSON.stringify([name, at]).length - 1;
    if (Math.ceil(grown * 4 / 3) > Math.min(CURSOR_CHARS, chars)) continue;
    bytes = grown;
    if (group) most--;
    positions.push([name, at]);
    carried.push(stream);
  }
  const cursor = last ? "last" : positions.length ? encodeCursor(positions) : null;
  chars -= cursor?.length ?? 0;
  for (const stream of streams) {
    const { at, group } = stream;
    if (at && !last) continue;
    if (group) {
      chars -= group.length + 1;
      if (chars < 0 || most < 1) break;
      most--;
      groups.push(group);
    }
    carried.push(stream);
  }
  return { cursor, groups, carried };
}

// clients/js/src/store.js
var READ_S = 2;
var WRITE_MS = 250;
var Store = class {
  positions = /* @__PURE__ */ new Map();
  // stream name -> [epoch, offset]
  client = null;
  // whose they are
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
    await null;
    if (!this.#storage) return;
    let timer;
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error("no answer of the storage")), READ_S * 1e3);
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
      this.#later();
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
};

// clients/js/src/delivery.js
var RETRY_S = [0.5, 30];
var isLoss = ({ type, event }) => type === "gap" && event.reason !== "skipped";
var Delivery = class {
  #handlers;
  #limit;
  #host;
  #queue = [];
  #messages = 0;
  // of them
  #busy = false;
  // a handler is at work
  #scheduled = false;
  #turn = 0;
  #stale;
  // the data is to be loaded with the next `joined`
  #due = false;
  // it is to be loaded now
  #loading = false;
  #flooded = false;
  // too much came: nothing is held until `state` is called again
  #from = null;
  // the position behind which what is held begins
  #tries = 0;
  #hurry = () => {
  };
  // ends a pause between two tries
  /**
   * `host`: `tell(item)` to others, `done(at)`, `drained()` when a full queue has room again, `skip(offset)` and
   * `resume(at)` for a position that `state` gave, `failed(error)`.
   */
  constructor(handlers, limit, host) {
    this.#handlers = handlers;
    this.#limit = limit;
    this.#host = host;
    this.#stale = this.loads;
  }
  /** Whether it begins with loading data. */
  get loads() {
    return Boolean(this.#handlers.state);
  }
  /** Whether it takes no more. What is held for `state` is dropped instead: the data will have it. */
  get full() {
    return !this.#loading && this.#messages >= this.#limit;
  }
  push(item) {
    const isMessage = item.type === "message";
    if (item.type === "left") this.#stale = this.loads;
    if (this.#loading && (isLoss(item) || item.type === "left")) {
      this.#void();
      this.#due = false;
    }
    if (this.#loading && isMessage && this.#messages >= this.#limit) {
      this.#void();
      this.#flooded = true;
    }
    if (isMessage && this.#flooded) {
      this.#from = item.at;
      return;
    }
    this.#queue.push(item);
    if (isMessage) this.#messages++;
    this.#schedule();
  }
  /** What waits is not told any more. */
  reset() {
    this.#void();
    this.#queue = [];
    this.#tries = 0;
    this.#due = false;
    this.#stale = this.loads;
  }
  /** What is held is dropped, and what `state` is about to give as well. */
  #void() {
    this.#turn++;
    this.#flooded = false;
    this.#keep(() => false);
    this.#hurry();
  }
  /** Of the messages that wait, those that `isKept`. */
  #keep(isKept) {
    this.#queue = this.#queue.filter((item) => item.type !== "message" || isKept(item));
    this.#messages = this.#queue.filter(({ type }) => type === "message").length;
  }
  #schedule() {
    if (this.#scheduled) return;
    this.#scheduled = true;
    queueMicrotask(() => {
      this.#scheduled = false;
      this.#pump();
    });
  }
  #pump() {
    while (!this.#busy && !this.#loading && this.#queue.length) {
      const item = this.#queue.shift();
      if (item.type === "message") this.#messages--;
      const turn = this.#turn;
      this.#busy = true;
      const done = () => {
        this.#busy = false;
        if (turn === this.#turn) this.#dealt(item);
      };
      const pending = this.#call(item);
      if (!pending) {
        done();
        continue;
      }
      pending.then(done).then(() => this.#pump());
    }
  }
  /** A promise where the handler gave one. It is kept in any case. */
  #call({ type, event }) {
    try {
      const result = this.#tell(type, event);
      if (typeof result?.then !== "function") return null;
      return Promise.resolve(result).catch((error) => this.#failed(error));
    } catch (error) {
      this.#failed(error);
      return null;
    }
  }
  #tell(type, event) {
    const { onMessage, onGap, onJoined, onLeft } = this.#handlers;
    if (type !== "message") this.#host.tell(type, event);
    if (type === "message") return onMessage?.(event);
    if (type === "gap") return onGap?.(event);
    return type === "joined" ? onJoined?.(event) : onLeft?.(event.reason);
  }
  #dealt(item) {
    const { type, at } = item;
    this.#host.done(at);
    this.#relieve();
    if (type === "message") this.#tries = 0;
    if (this.loads && (isLoss(item) || type === "joined" && this.#stale)) {
      this.#from = at;
      this.#due = true;
      this.#load();
    }
  }
  async #load() {
    this.#loading = true;
    while (this.#due) {
      const turn = this.#turn;
      if (this.#tries++) await this.#pause(growing_ms(this.#tries - 2, RETRY_S));
      if (turn !== this.#turn) continue;
      this.#flooded = false;
      try {
        const result = await this.#handlers.state();
        if (turn === this.#turn) this.#loaded(result?.position);
      } catch (error) {
        if (turn === this.#turn) this.#failed(error);
      }
    }
    this.#loading = false;
    this.#relieve();
    this.#pump();
  }
  #relieve() {
    if (this.#messages <= this.#limit / 2) this.#host.drained();
  }
  #loaded(position) {
    this.#due = false;
    this.#stale = false;
    if (!position) {
      this.#tries = 0;
      return;
    }
    const { epoch, offset } = position;
    if (epoch !== this.#from[0] || offset < this.#from[1]) {
      this.#void();
      this.#host.resume([epoch, offset]);
      return;
    }
    this.#tries = 0;
    this.#keep(({ at }) => at[0] !== epoch || at[1] > offset);
    this.#host.skip(offset);
  }
  #pause(ms) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#hurry = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
  #failed(error) {
    const { onError } = this.#handlers;
    if (!onError) {
      this.#host.failed(error);
      return;
    }
    try {
      onError(error);
    } catch (another) {
      this.#host.failed(another);
    }
  }
};

// clients/js/src/stream.js
var Stream = class {
  at = null;
  // received: [epoch, offset]. Null: it begins where the gateway says
  on = false;
  // the connection follows it
  wish = false;
  // it is to be followed
  left = false;
  // by `leave()`: also where a lasting membership brings it back
  number = 0;
  // of the newest wish: an answer to an older one changes nothing
  busy = null;
  // {type, number} of the command under way; there is one at a time
  rejoin = false;
  // it begins anew with the next answer: what comes until then is dropped
  paused = false;
  // the handler has too much to do: what comes is dropped
  passed = false;
  // something was dropped behind `at`
  failures = 0;
  // of joins, one after the other, that may succeed later
  delivery = null;
  // to the handler, where there is one
  duplicates = 0;
  #open = false;
  // the next offset is open
  #replay = null;
  // [epoch, top]: up to there messages come from the journal
  constructor(name) {
    this.name = name;
    this.group = name.startsWith("group:") ? name.slice(6) : null;
  }
  get takes() {
    return this.on && this.wish && this.delivery !== null && !this.rejoin && !this.paused;
  }
  /** Whether the wish for a group is fulfilled. */
  get settled() {
    return !this.wish || this.on && !this.rejoin && !this.busy;
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
      if (at[0] === epoch && offset > at[1]) items.push(this.#gap(epoch, at[1] + 1, offset, "hole"));
      else if (at[0] !== epoch && at[1] > 0) items.push(this.#gap(epoch, null, offset, "reset"));
    }
    if (at?.[0] !== epoch || offset > at[1]) this.at = [epoch, offset];
    this.#open = false;
    const event = { ...this.#names(epoch), offset: this.at[1], top, recovered, missed };
    return [{ type: "joined", event, at: this.at }, ...items];
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
      if (epoch !== before) items.push(this.#gap(epoch, null, offset - 1, "reset"));
      else if (offset !== last + 1) items.push(this.#gap(epoch, last + 1, offset - 1, "hole"));
    }
    this.#open = false;
    this.at = [epoch, offset];
    const missed = this.#replay?.[0] === epoch && offset <= this.#replay[1];
    const event = { ...this.#names(epoch), offset, time, data, client, missed };
    items.push({ type: "message", event, at: this.at });
    return items;
  }
  /** What the handler is told of a `gap`: what is left of it, where it begins before `at`. */
  gap({ epoch, from, to, reason }) {
    const [before, last] = this.at;
    const late = from !== null && from <= last && epoch === before && !this.#open;
    if (late && to !== null && to <= last) return [];
    const item = this.#gap(epoch, late ? last + 1 : from, to, reason);
    this.#open = to === null;
    return [item];
  }
  #gap(epoch, from, to, reason) {
    this.at = [epoch, to ?? (this.at[0] === epoch ? this.at[1] : 0)];
    return { type: "gap", event: { ...this.#names(epoch), from, to, reason }, at: this.at };
  }
  #names(epoch) {
    return { stream: this.name, group: this.group, epoch };
  }
};

// clients/js/src/streams.js
var OWN = "client:";
var TRANSIENT = /* @__PURE__ */ new Set(["broker_down", "too_fast", "full", "internal_error", "draining", "unavailable"]);
var RETRY_S2 = [0.5, 30];
var keyOf = (name) => name.startsWith(OWN) ? OWN : name;
var Streams = class {
  client = null;
  // whose own stream it is, once that is known
  #all = /* @__PURE__ */ new Map();
  // name -> Stream; the client's own one is at OWN
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
    this.get("all");
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
      }
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
    const wanted = [...this.#all.values()].filter(
      ({ wish, paused, group, passed, left }) => wish ? !paused : !group && !passed && !left
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
      if (stream.group && !stream.on && !stream.delivery) this.#all.delete(key);
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
    const stream = type === "joined" ? this.get(event.stream) : this.#all.get(keyOf(event.stream));
    if (!stream) return;
    if (type === "message" || type === "gap") this.#arrived(stream, event);
    else if (type === "joined") this.#joined(stream, event);
    else if (type === "left") this.#left(stream, event.reason);
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
    const move = () => event.type === "message" ? stream.message(event) : stream.gap(event);
    if (stream.left && !stream.group && stream.at) move();
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
    this.#host.tell("joined", { ...event, group: stream.group });
  }
  #left(stream, reason) {
    stream.on = false;
    if (stream.left) return;
    this.#refused(stream, reason);
    stream.wish &&= stream.busy?.type === "join";
    this.#host.changed();
  }
  #refused(stream, reason) {
    stream.forget();
    this.#store.set(stream.name, null);
    const event = { stream: stream.name, group: stream.group, reason };
    if (stream.delivery) stream.delivery.push({ type: "left", event, at: null });
    else this.#host.tell("left", event);
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
    if (!at || stream.delivery?.loads || stream.at && stream.wish) return;
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
    const type = wish ? "join" : "leave";
    const busy = { type, number };
    stream.busy = busy;
    stream.rejoin = wish;
    const from = wish && at ? { epoch: at[0], offset: at[1] } : {};
    this.#host.order({ type, group, ...from }, (error, answer) => {
      if (stream.busy !== busy) return;
      stream.busy = null;
      if (type === "join") this.#answered(stream, number, error, answer);
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
      const busy = { type: "pause" };
      stream.busy = busy;
      const again = () => {
        if (stream.busy !== busy) return;
        stream.busy = null;
        this.#settle(stream);
      };
      idle(again, growing_ms(stream.failures++, RETRY_S2));
    } else if (stream.wish && stream.number === number) {
      stream.wish = false;
      this.#refused(stream, error.code);
    }
  }
};

// clients/js/src/subscription.js
var Subscription = class {
  #tidegate;
  #streams;
  #name;
  #delivery;
  constructor(tidegate, streams, name, handlers) {
    this.#tidegate = tidegate;
    this.#streams = streams;
    this.#name = name;
    this.#delivery = streams.deliveryOf(name, typeof handlers === "function" ? { onMessage: handlers } : handlers);
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
};

// clients/js/src/token.js
function claimsOf(token) {
  try {
    return JSON.parse(textOf(token.split(".")[1])) ?? {};
  } catch {
    return {};
  }
}

// clients/js/src/client.js
var TARGET_CHARS = 6144;
var WAKE_S = 5;
var DEFAULTS = {
  storageKey: "tidegate",
  welcomeTimeout_s: 10,
  answerTimeout_s: 10,
  pingInterval_s: 25,
  pongTimeout_s: 10,
  backoff_s: [0.5, 30],
  stable_s: 10,
  queueLimit: 1e3
};
var FINAL = /* @__PURE__ */ new Set(["unauthorized", "not_allowed", "bad_request"]);
var endOf = (word, message, code = 1006) => ({ code, word, message, again: false });
var uniqueKey = () => [1, 2, 3].map(() => Math.random().toString(36).slice(2)).join("-");
var checked = (name) => {
  if (isId(name)) return name;
  throw new TidegateError("bad_request", `${JSON.stringify(name)} is no name`);
};
var Tidegate = class {
  #url;
  #options;
  #state = "disconnected";
  #reason = null;
  #listeners = {};
  // event: Set of callbacks
  #waiting = [];
  // for `ready`: [resolve, reject]
  #over = false;
  // by `close()`
  #auto = true;
  // it connects by itself with the next microtask
  #token;
  // a string, or a function
  #renewing = null;
  // the connection whose token is being renewed
  #store;
  #stored;
  // a promise: what was stored has been read
  #streams;
  #commands;
  #current = null;
  // the connection that was welcomed
  #trying = null;
  // one that is not yet
  #retired = /* @__PURE__ */ new Set();
  // those that still owe answers
  #next = null;
  // timer of the next attempt
  #giveUp = null;
  // timer
  #failures = 0;
  // since a connection was stable
  #since_ms = 0;
  // when the current one was welcomed
  #sure = false;
  // whether an attempt knew the client's id, and did not only remember it
  #misses = 0;
  // attempts without a welcome, one after the other
  #unwatch = () => {
  };
  constructor(url, options = {}) {
    this.#url = new URL(url, globalThis.location?.href);
    this.#url.protocol = this.#url.protocol.replace("http", "ws");
    this.#url.hash = "";
    this.#options = { ...DEFAULTS, WebSocket: globalThis.WebSocket, ...options };
    if (!this.#options.WebSocket) throw new Error("no WebSocket here: take Node 22, or give {WebSocket}");
    if (options.client !== void 0) checked(options.client);
    if (options.device !== void 0) checked(options.device);
    this.#token = options.token;
    const failed = (error) => this.#failed(error);
    this.#store = new Store(options.last ? null : options.storage, this.#options.storageKey, failed);
    this.#commands = new Commands(this.#options.answerTimeout_s);
    this.#streams = new Streams(this.#store, this.#options.queueLimit, {
      order: (command, done) => this.#commands.order(command, done),
      reconnect: () => this.#changeOver(),
      tell: (event, ...told) => this.#tell(event, ...told),
      failed,
      changed: () => this.#checkReady()
    });
    if (options.autoConnect !== false) queueMicrotask(() => this.#auto && this.connect());
  }
  get state() {
    return this.#state;
  }
  get reason() {
    return this.#reason;
  }
  /** The client's id, once the gateway has said it. */
  get client() {
    return this.#streams.client;
  }
  /** How far messages have arrived: `{stream: [epoch, offset]}`. */
  get positions() {
    return this.#streams.positions;
  }
  group(name, handlers) {
    return new Subscription(this, this.#streams, `group:${checked(name)}`, handlers);
  }
  direct(handlers) {
    return new Subscription(this, this.#streams, "client:", handlers);
  }
  all(handlers) {
    return new Subscription(this, this.#streams, "all", handlers);
  }
  leave(group) {
    this.#streams.leave(this.#streams.get(`group:${checked(group)}`));
  }
  on(event, callback) {
    this.#listeners[event] ??= /* @__PURE__ */ new Set();
    this.#listeners[event].add(callback);
    return () => this.#listeners[event].delete(callback);
  }
  async ready() {
    await null;
    if (this.#state === "closed") throw new TidegateError("closed", this.#reason.word);
    return new Promise((resolve, reject) => {
      this.#waiting.push([resolve, reject]);
      this.#checkReady();
    });
  }
  connect() {
    if (this.#over) throw new TidegateError("closed");
    this.#auto = false;
    if (this.#current || this.#trying) return;
    this.#failures = 0;
    if (this.#state !== "connecting") this.#reason = null;
    this.#unwatch();
    this.#unwatch = watchPage(
      () => this.#wake(),
      () => this.#store.flush()
    );
    this.#attempt();
    this.#become("connecting");
  }
  disconnect() {
    if (this.#over) return;
    this.#stop();
    this.#reason = null;
    this.#become("disconnected");
  }
  close() {
    if (this.#over) return;
    this.#over = true;
    this.#stop();
    this.#streams.end();
    this.#end(endOf("done", "", 1e3));
  }
  async publish(group, data, { key, conflate, traceparent } = {}) {
    const words = { conflate, traceparent, key: key === false ? void 0 : key ?? uniqueKey() };
    return this.#ask({ type: "publish", group: checked(group), data: data ?? null, ...words }, key !== false);
  }
  async call(method, data, { traceparent } = {}) {
    return this.#ask({ type: "call", method, data: data ?? null, traceparent }, false);
  }
  async history(group, { position, limit } = {}) {
    const { epoch, offset } = position ?? {};
    return this.#ask({ type: "history", group: checked(group), epoch, offset, limit }, true);
  }
  async presence(group) {
    return this.#ask({ type: "presence", group: checked(group) }, true);
  }
  async ping() {
    return this.#ask({ type: "ping" }, false);
  }
  async refresh(token) {
    const answer = await this.#ask({ type: "refresh", token }, true);
    if (typeof this.#token === "string") this.#token = token;
    return answer;
  }
  #ask(command, again) {
    if (this.#state === "closed") throw new TidegateError("closed");
    return this.#commands.request(command, again);
  }
  // Attempts
  #attempt() {
    clearTimeout(this.#next);
    this.#next = null;
    this.#trying?.drop();
    const connection = new Connection({
      event: (from, event) => this.#received(from, event),
      ended: (...how) => this.#ended(...how)
    });
    this.#trying = connection;
    this.#stored ??= this.#store.load();
    this.#stored.then(() => {
      if (!connection.over) connection.open(this.#options.welcomeTimeout_s, () => this.#handshake(connection));
    });
  }
  /** `[WebSocket, url, protocols]`: who this is, and what is wished at this moment. */
  async #handshake(connection) {
    const { client, device, last, WebSocket } = this.#options;
    const token = await this.#askToken();
    if (connection.over) return;
    const known = client ?? claimsOf(token).sub;
    this.#sure = isId(known);
    const id = this.#sure ? known : this.#streams.client ?? this.#store.client;
    if (id !== null && !this.#current) this.#streams.belongTo(id);
    const query = [this.#url.search.slice(1), client && `client=${client}`, device && `device=${device}`];
    const chars = TARGET_CHARS - this.#url.pathname.length - query.join().length - "?&cursor=&groups=".length;
    const doubtful = !this.#sure && this.#misses % 4 === 3;
    const { cursor, groups, carried } = this.#streams.handshake(chars, this.#commands.limits.groups, last, doubtful);
    connection.carried = carried;
    query.push(cursor && `cursor=${cursor}`, groups.length && `groups=${groups}`);
    const url = new URL(this.#url);
    url.search = query.filter(Boolean).join("&");
    return [WebSocket, url.href, ["tidegate.v1", ...token === void 0 ? [] : [`bearer.${token}`]]];
  }
  async #askToken() {
    if (typeof this.#token !== "function") {
      if (claimsOf(this.#token).exp * 1e3 <= Date.now()) throw new TidegateError("token_expired", "the token has ended");
      return this.#token;
    }
    const token = await this.#token();
    if (!token) throw new NotAllowed();
    return token;
  }
  /** A second connection, which takes over when it is welcomed. */
  #changeOver() {
    if (this.#current && !this.#trying && this.#next === null) this.#attempt();
  }
  #ended(connection, code, message, [word, delay]) {
    if (connection !== this.#current && connection !== this.#trying) {
      this.#forget(connection);
      return;
    }
    const wasCurrent = connection === this.#current;
    if (wasCurrent) this.#lose();
    else {
      this.#trying = null;
      this.#misses++;
    }
    const ownSuccessor = code === 4502 && this.#trying;
    if (code === 4009 && typeof this.#token === "string") this.#end(endOf("token_expired", message, code));
    else if (!delay && !ownSuccessor) this.#end(endOf(word, message, code));
    else {
      if (!this.#current) this.#reason = { code, word, message, again: true };
      if (!this.#trying && this.#next === null) {
        this.#next = setTimeout(() => this.#attempt(), this.#delay_ms(delay, connection));
      }
      if (wasCurrent) this.#become("connecting");
    }
  }
  #delay_ms(delay, connection) {
    const failures = this.#failures++;
    return delay_ms(delay, delay === "random" && connection.welcome ? 0 : failures, this.#options.backoff_s);
  }
  /** The current connection is no more. */
  #lose() {
    const connection = this.#current;
    if (!connection) return;
    this.#current = null;
    connection.drop();
    this.#streams.cut();
    this.#commands.cut(connection);
    if (Date.now() - this.#since_ms >= this.#options.stable_s * 1e3) this.#failures = 0;
  }
  #stop() {
    this.#auto = false;
    this.#unwatch();
    clearTimeout(this.#next);
    this.#next = null;
    this.#trying?.drop();
    this.#trying = null;
    this.#lose();
    for (const connection of this.#retired) this.#forget(connection);
    this.#store.flush();
  }
  /** Closed, until `connect()`. */
  #end(reason) {
    this.#stop();
    this.#reason = reason;
    this.#commands.end("closed");
    for (const [, reject] of this.#waiting.splice(0)) reject(new TidegateError("closed", reason.word));
    this.#become("closed");
  }
  #wake() {
    this.#current?.probe(WAKE_S);
    if (this.#next !== null) this.#attempt();
  }
  // A connection
  #received(connection, event) {
    const { type } = event;
    if (type === "welcome") {
      if (connection === this.#trying) this.#welcomed(connection, event);
    } else if (type === "reply" || type === "error" || type === "pong") {
      this.#commands.answer(event);
      if (this.#retired.has(connection) && !this.#commands.waitsFor(connection)) this.#forget(connection);
    } else if (connection !== this.#current) return;
    else if (type === "expiring") this.#renew(connection);
    else if (type === "moving") {
      connection.within_s = event.within;
      this.#changeOver();
    } else if (typeof event.stream === "string") this.#streams.take(event);
  }
  #welcomed(connection, welcome) {
    const { pingInterval_s, pongTimeout_s } = this.#options;
    const replaced = this.#current;
    this.#current = connection;
    this.#trying = null;
    connection.welcome = welcome;
    this.#since_ms = Date.now();
    this.#misses = 0;
    Object.assign(this.#commands.limits, welcome.limits);
    connection.live(
      Math.min(pingInterval_s, welcome.ping_interval || pingInterval_s),
      pongTimeout_s,
      () => connection.send('{"type":"ping","id":0}')
    );
    this.#streams.belongTo(welcome.client);
    this.#streams.cut();
    this.#commands.use(connection);
    this.#streams.welcomed(welcome.streams, connection.carried);
    if (replaced) this.#retire(replaced);
    this.#become("connected");
    this.#checkReady();
  }
  /** Its place is taken. What it still owes is taken until it closes, or until it would be closed. */
  #retire(connection) {
    this.#commands.forgetOrders(connection);
    if (!this.#commands.waitsFor(connection)) {
      connection.drop();
      return;
    }
    this.#retired.add(connection);
    connection.retire(connection.within_s ?? this.#options.answerTimeout_s, () => this.#forget(connection));
  }
  #forget(connection) {
    this.#retired.delete(connection);
    connection.drop();
    this.#commands.cut(connection);
  }
  /** Answers `expiring`. One chain for each connection, until a token was taken or refused. */
  async #renew(connection) {
    if (typeof this.#token !== "function" || this.#renewing === connection) return;
    this.#renewing = connection;
    const holds = () => connection === this.#current;
    for (let failures = 0; holds(); failures++) {
      try {
        const token = await this.#askToken();
        if (holds()) await this.#commands.request({ type: "refresh", token }, false);
        break;
      } catch (error) {
        if (FINAL.has(error?.code)) {
          if (error instanceof NotAllowed && holds()) this.#end(endOf("not_allowed", error.message));
          break;
        }
        await new Promise((resolve) => idle(resolve, growing_ms(failures, this.#options.backoff_s)));
      }
    }
    if (this.#renewing === connection) this.#renewing = null;
  }
  // What is told
  #become(state) {
    if (state === this.#state) return;
    this.#state = state;
    clearTimeout(this.#giveUp);
    const { giveUpAfter_s } = this.#options;
    if (state === "connecting" && giveUpAfter_s) {
      const end = () => this.#end(endOf("unreachable", `no welcome within ${giveUpAfter_s} s`));
      this.#giveUp = setTimeout(end, giveUpAfter_s * 1e3);
    }
    this.#tell("state", state, this.#reason);
  }
  #tell(event, ...told) {
    for (const callback of [...this.#listeners[event] ?? []]) {
      if (event === "state" ? told[0] !== this.#state : this.#over) return;
      try {
        callback(...told);
      } catch (error) {
        if (event === "error") report(error);
        else this.#failed(error);
      }
    }
  }
  #failed(error) {
    if (this.#listeners.error?.size) this.#tell("error", error);
    else report(error);
  }
  #checkReady() {
    if (this.#state !== "connected" || !this.#streams.settled) return;
    for (const [resolve] of this.#waiting.splice(0)) resolve();
  }
};
export {
  NotAllowed,
  Tidegate,
  TidegateError,
  UnknownOutcome
};
