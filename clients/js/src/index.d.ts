/** How far a reader has come: all up to and including `offset` lies behind. */
export interface Position {
  epoch: string;
  offset: number;
}

interface OfStream {
  /** `group:<name>`, `client:<id>` or `all`. */
  stream: string;
  /** The group's name; null where the stream is not a group's. */
  group: string | null;
}

export interface Message<Data = unknown> extends OfStream, Position {
  /** When it was journalled, in Unix milliseconds. Sort by `offset`: a clock may step back. */
  time: number;
  data: Data;
  /** Who published it, where a client did. */
  client?: string;
  /** It came from the journal: it was pushed while this client was away. */
  missed: boolean;
}

/** Something will not come: it is missing, or (`skipped`, to a slow connection) newer messages stand for it. */
export interface Gap extends OfStream {
  epoch: string;
  /** The first and the last offset that do not come; null where there is no telling. */
  from: number | null;
  to: number | null;
  /** A reason of the protocol, or `hole`: the gateway left one without a word. There may be more some day. */
  reason: 'expired' | 'reset' | 'skipped' | 'hole' | (string & {});
}

export interface Joined extends OfStream, Position {
  /** The newest offset at that moment. */
  top: number;
  /** Where it went on from a position: whether nothing was lost, and how many messages follow from the journal. */
  recovered?: boolean;
  missed?: number;
}

export interface Left extends OfStream {
  reason: string;
}

export type Awaitable<Value> = Value | PromiseLike<Value>;

export interface Handlers<Data = unknown> {
  /** Each message, once and in order. The next one comes when the promise that it returned is settled. */
  onMessage?(message: Message<Data>): unknown;
  onGap?(gap: Gap): unknown;
  /** The subscription is joined, again after each reconnection. */
  onJoined?(joined: Joined): unknown;
  /** It was ended from outside: `removed`, `not_allowed`, or the code of an error. `join()` tries again. */
  onLeft?(reason: string): unknown;
  /** What a handler or `state` threw. Without it: event `error` of the client. */
  onError?(error: unknown): void;
  /**
   * Loads the data that the messages change: first when the group is joined, again after each gap. What comes meanwhile
   * is held, and applied behind it. The data may have some of it, so messages should carry new values, no differences.
   * It may give the position that the server read before the data (history with `limit` 0), for data that may be old:
   * then the group goes on from there.
   */
  state?(): Awaitable<{ position?: Position | null } | null | undefined | void>;
}

export interface Subscription {
  /** The group's name; null for `direct` and `all`. */
  readonly name: string | null;
  readonly stream: string;
  /** Whether messages come now. */
  readonly joined: boolean;
  /** How many messages came a second time, and were dropped. */
  readonly duplicates: number;
  /** Again, after `leave()` or `onLeft`: from now on. */
  join(): void;
  /** Nothing comes to the handlers any more, also what waits. */
  leave(): void;
}

export interface GroupSubscription extends Subscription {
  readonly name: string;
  publish(data: unknown, options?: PublishOptions): Promise<Published>;
  history<Data = unknown>(options?: HistoryOptions): Promise<History<Data>>;
  presence(): Promise<Presence>;
}

export interface TraceOptions {
  /** The span that this belongs to, as W3C Trace Context has it. */
  traceparent?: string;
}

export interface PublishOptions extends TraceOptions {
  /** Repeated within five minutes it pushes nothing new. By default each publish has one; false: none. */
  key?: string | false;
  /** Of messages with the same word a slow connection is sent the newest, where the group's policy is `latest`. */
  conflate?: string;
}

export interface Published extends Position {
  stream: string;
}

export interface HistoryOptions {
  /** Behind which it begins; without one with the oldest message that is kept. */
  position?: Position;
  /** At most so many messages; 0 gives the position alone. */
  limit?: number;
}

export interface History<Data = unknown> extends Position {
  stream: string;
  top: number;
  messages: { offset: number; time: number; data: Data; client?: string }[];
  more: boolean;
  gap?: { epoch: string; from: number | null; to: number | null; reason: string };
}

export interface Presence {
  stream: string;
  clients: string[];
  connections: number;
  more: boolean;
}

export interface Called<Data = unknown> {
  /** Of the application's HTTP answer. */
  status: number;
  data: Data;
}

export type State = 'disconnected' | 'connecting' | 'connected' | 'closed';

/** Why it is closed, or what the last cut was. `again`: the client comes back by itself. */
export interface Reason {
  /** The close code; 1006 where there was none. */
  code: number;
  word: string;
  message: string;
  again: boolean;
}

/** Such as `sessionStorage`: one for each tab. Each function may give a promise, and may throw. */
export interface PositionStorage {
  getItem(key: string): Awaitable<string | null>;
  setItem(key: string, value: string): unknown;
  removeItem(key: string): unknown;
}

export interface WebSocketLike {
  onmessage: ((event: any) => void) | null;
  onclose: ((event: any) => void) | null;
  onerror: ((event: any) => void) | null;
  send(text: string): void;
  close(code?: number): void;
}

export interface Options {
  /**
   * A token, or what gives one: it is asked before each attempt and before the token ends. Where the user may not
   * connect it gives null or throws `NotAllowed`.
   */
  token?: string | (() => Awaitable<string | null | undefined>);
  /** The client's id, where the gateway runs without tokens. */
  client?: string;
  /** With `last`: tells this client's devices apart. */
  device?: string;
  /** Lets the gateway remember positions, of this device; none are kept here. */
  last?: boolean;
  /** Keeps positions beyond this page or process. */
  storage?: PositionStorage;
  storageKey?: string;
  WebSocket?: new (url: string, protocols: string[]) => WebSocketLike;
  /** Default true: it connects in the next microtask. */
  autoConnect?: boolean;
  welcomeTimeout_s?: number;
  answerTimeout_s?: number;
  pingInterval_s?: number;
  pongTimeout_s?: number;
  /** First and longest delay. */
  backoff_s?: [number, number];
  stable_s?: number;
  giveUpAfter_s?: number;
  queueLimit?: number;
}

export interface Events {
  state: (state: State, reason: Reason | null) => void;
  gap: (gap: Gap) => void;
  joined: (joined: Joined) => void;
  left: (left: Left) => void;
  error: (error: unknown) => void;
}

export class Tidegate {
  /** `url`: of the gateway's WebSocket, such as `wss://example.org/ws-notifications/`; in a page it may be relative. */
  constructor(url: string | URL, options?: Options);

  readonly state: State;
  readonly reason: Reason | null;
  /** The client's id, once it is known. */
  readonly client: string | null;
  /** How far messages have arrived. */
  readonly positions: { [stream: string]: [epoch: string, offset: number] };

  /** Messages to a group. A group has one subscription at a time. */
  group<Data = unknown>(
    name: string,
    handlers: Handlers<Data> | ((message: Message<Data>) => unknown),
  ): GroupSubscription;
  /** Messages to this client alone. */
  direct<Data = unknown>(handlers: Handlers<Data> | ((message: Message<Data>) => unknown)): Subscription;
  /** Messages to everybody. */
  all<Data = unknown>(handlers: Handlers<Data> | ((message: Message<Data>) => unknown)): Subscription;
  leave(group: string): void;

  /** Welcomed, and each group so far is joined or was refused. Rejects with the code `closed`. */
  ready(): Promise<void>;
  connect(): void;
  /** Keeps positions and subscriptions: `connect` goes on from there. */
  disconnect(): void;
  /** The end. */
  close(): void;
  on<Name extends keyof Events>(event: Name, callback: Events[Name]): () => void;

  publish(group: string, data: unknown, options?: PublishOptions): Promise<Published>;
  /** A request to the application behind the gateway, which gets `traceparent` as the header of this name. */
  call<Data = unknown>(method: string, data?: unknown, options?: TraceOptions): Promise<Called<Data>>;
  history<Data = unknown>(group: string, options?: HistoryOptions): Promise<History<Data>>;
  presence(group: string): Promise<Presence>;
  /** Hands over a new token now. With a `token` function that happens by itself. */
  refresh(token: string): Promise<{ expires: number }>;
  /** There and back. */
  ping(): Promise<{ cursor: string | null }>;
}

/** `code`: of the protocol, or `timeout`, `closed`, `too_large`, `unknown_outcome`, `not_allowed`, `bad_request`. */
export class TidegateError extends Error {
  constructor(code: string, message?: string);
  readonly code: string;
}

/** The connection ended behind a command that may not be sent twice: nobody can tell whether it was done. */
export class UnknownOutcome extends TidegateError {
  constructor();
}

/** For a `token` function to throw: this user may not connect. */
export class NotAllowed extends TidegateError {
  constructor(message?: string);
}
