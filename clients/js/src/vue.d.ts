import type { App, MaybeRefOrGetter, Ref, ShallowRef } from 'vue';
import type { GroupDataOptions, GroupHandlers } from './components.js';
import type { Message, Reason, State, Tidegate } from './index.js';

export type { GroupDataOptions, GroupHandlers } from './components.js';

export interface GroupStatus {
  /** Whether messages come. */
  joined: Readonly<Ref<boolean>>;
  /** Why they don't any more: `removed`, `not_allowed`, or the code of an error. */
  left: Readonly<Ref<string | null>>;
}

type Name = MaybeRefOrGetter<string | null | undefined>;

/** `app.use(tidegate, client)`. */
export const tidegate: { install(app: App, client: Tidegate): void };

/** Gives `client` to the components below. */
export function provideTidegate(client: Tidegate): void;

/** A client for as long as this component is there; the components below are given it too. */
export function useNewTidegate(make: () => Tidegate): Tidegate;

/** The client that was given above, and its state. */
export function useTidegate(client?: Tidegate): {
  client: Tidegate;
  state: Readonly<Ref<State>>;
  reason: Readonly<Ref<Reason | null>>;
};

/** Messages to a group. Without a name nothing is joined. Several components may follow the same group. */
export function useGroup<Data = unknown>(name: Name, handlers: GroupHandlers<Data>, client?: Tidegate): GroupStatus;
/** Messages to this client alone. */
export function useDirect<Data = unknown>(handlers: GroupHandlers<Data>, client?: Tidegate): GroupStatus;
/** Messages to everybody. */
export function useAll<Data = unknown>(handlers: GroupHandlers<Data>, client?: Tidegate): GroupStatus;

/** The newest messages of a group, oldest first. */
export function useMessages<Data = unknown>(
  name: Name,
  options?: { limit?: number },
  client?: Tidegate,
): ShallowRef<Message<Data>[]>;

/** Data and the messages that change it: state, then stream. */
export function useGroupData<Data, Change = unknown>(
  name: Name,
  options: GroupDataOptions<Data, Change>,
  client?: Tidegate,
): { data: ShallowRef<Data>; ready: Readonly<Ref<boolean>>; error: ShallowRef<unknown> };
