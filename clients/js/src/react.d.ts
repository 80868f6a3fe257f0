import type { ReactElement, ReactNode } from 'react';
import type { GroupDataOptions, GroupHandlers } from './components.js';
import type { Message, Reason, State, Tidegate } from './index.js';

export type { GroupDataOptions, GroupHandlers } from './components.js';

export interface GroupStatus {
  /** Whether messages come. */
  joined: boolean;
  /** Why they don't any more: `removed`, `not_allowed`, or the code of an error. */
  left: string | null;
}

export interface GroupData<Data> {
  data: Data;
  /** It was loaded. */
  ready: boolean;
  /** What the last `load` or `apply` threw; a load is tried again. */
  error: unknown;
}

/** Gives `client` (or null, where there is none yet) to the components inside. */
export function TidegateProvider(props: { client: Tidegate | null; children?: ReactNode }): ReactElement;

/** A client for as long as this component is there; another one when `deps` change. Null at first, and on a server. */
export function useNewTidegate(make: () => Tidegate, deps?: readonly unknown[]): Tidegate | null;

/** The client that was given above, and its state. */
export function useTidegate(): { client: Tidegate | null; state: State; reason: Reason | null };

/** Messages to a group. Without a name nothing is joined. Several components may follow the same group. */
export function useGroup<Data = unknown>(name: string | null | undefined, handlers: GroupHandlers<Data>): GroupStatus;
/** Messages to this client alone. */
export function useDirect<Data = unknown>(handlers: GroupHandlers<Data>): GroupStatus;
/** Messages to everybody. */
export function useAll<Data = unknown>(handlers: GroupHandlers<Data>): GroupStatus;

/** The newest messages of a group, oldest first. */
export function useMessages<Data = unknown>(
  name: string | null | undefined,
  options?: { limit?: number },
): Message<Data>[];

/** Data and the messages that change it: state, then stream. */
export function useGroupData<Data, Change = unknown>(
  name: string | null | undefined,
  options: GroupDataOptions<Data, Change> & { initial: Data },
): GroupData<Data>;
export function useGroupData<Data, Change = unknown>(
  name: string | null | undefined,
  options: GroupDataOptions<Data, Change>,
): GroupData<Data | undefined>;
