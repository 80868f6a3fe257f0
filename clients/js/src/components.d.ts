import type { Awaitable, Handlers, Message, Position } from './index.js';

export type GroupHandlers<Data = unknown> =
  | Omit<Handlers<Data>, 'state'>
  | ((message: Message<Data>) => unknown);

export interface GroupDataOptions<Data, Change = unknown> {
  /** The data, and the position that the server read before it. Without one messages may repeat what the data has. */
  load(): Awaitable<{ data: Data; position?: Position | null }>;
  /** The data with what the message says. */
  apply(data: Data, message: Message<Change>): Data;
  initial?: Data;
}
