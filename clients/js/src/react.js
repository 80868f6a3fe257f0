/**
 * React hooks. A client is given by `TidegateProvider`, or made by `useNewTidegate`; several components may follow
 * the same group. Handlers may be new with each render: the newest are called, and nothing is joined anew.
 */

import {
  createContext,
  createElement,
  useCallback,
  useContext,
  useEffect,
  useInsertionEffect,
  useMemo,
  useRef,
  useState,
  useSyncExternalStore,
} from 'react';

import { Data } from './data.js';
import { report } from './errors.js';
import { listen } from './listeners.js';
import { snapshotOf } from './snapshot.js';

const Context = createContext(null);
const NOT_JOINED = { joined: false, left: null };

/** Gives `client` (or null, where there is none yet) to the components inside. */
export function TidegateProvider({ client, children }) {
  return createElement(Context.Provider, { value: client }, children);
}

/** A client for as long as this component is there, made by `make()`; another one when `deps` change. Null at first. */
export function useNewTidegate(make, deps = []) {
  const [client, setClient] = useState(null);
  useEffect(() => {
    const made = make();
    setClient(made);
    return () => {
      made.close();
      setClient(null);
    };
    // biome-ignore lint/correctness/useExhaustiveDependencies: the caller says when
  }, deps);
  return client;
}

/** `{client, state, reason}`, of the client given above. */
export function useTidegate() {
  const client = useContext(Context);
  const subscribe = useCallback((changed) => client?.on('state', changed) ?? (() => {}), [client]);
  const snapshot = () => snapshotOf(client);
  return useSyncExternalStore(subscribe, snapshot, snapshot);
}

/** `{joined, left}`: whether messages come, or why not any more. Without a name (null) nothing is joined. */
export function useGroup(name, handlers) {
  return useStream(name && `group:${name}`, handlers);
}

export function useDirect(handlers) {
  return useStream('direct', handlers);
}

export function useAll(handlers) {
  return useStream('all', handlers);
}

/** The newest messages of a group, oldest first. */
export function useMessages(name, { limit = 100 } = {}) {
  const [{ of, messages }, setMessages] = useState({ of: name, messages: [] });
  useGroup(name, (message) =>
    setMessages((before) => ({
      of: name,
      messages: [...(before.of === name ? before.messages : []), message].slice(-limit),
    })),
  );
  return of === name ? messages : [];
}

/**
 * Data and the messages of a group that change it: `{data, ready, error}`. `load()` gives `{data, position?}`,
 * `apply(data, message)` the new data. Loaded again after a gap that lost something.
 */
export function useGroupData(name, { load, apply, initial }) {
  const { client } = useTidegate();
  const newest = useNewest({ load, apply });
  // biome-ignore lint/correctness/useExhaustiveDependencies: another client or group has other data
  const data = useMemo(
    () =>
      new Data({
        load: () => newest.current.load(),
        apply: (before, message) => newest.current.apply(before, message),
        initial,
      }),
    [client, name],
  );
  const subscribe = useCallback(
    (changed) =>
      client && name ? data.follow((listener) => listen(client, `group:${name}`, listener), changed) : () => {},
    [client, name, data],
  );
  const snapshot = () => data.snapshot;
  return useSyncExternalStore(subscribe, snapshot, snapshot);
}

function useStream(stream, handlers) {
  const { client } = useTidegate();
  const newest = useNewest(typeof handlers === 'function' ? { onMessage: handlers } : handlers);
  const status = useRef(NOT_JOINED);
  const subscribe = useCallback(
    (changed) => {
      if (!client || !stream) return () => {};
      const become = (next) => {
        status.current = next;
        changed();
      };
      const off = listen(client, stream, {
        onMessage: (message) => newest.current?.onMessage?.(message),
        onGap: (gap) => newest.current?.onGap?.(gap),
        onJoined: (joined) => {
          become({ joined: true, left: null });
          return newest.current?.onJoined?.(joined);
        },
        onLeft: (reason) => {
          become({ joined: false, left: reason });
          return newest.current?.onLeft?.(reason);
        },
        onError: (error) => (newest.current?.onError ?? report)(error),
      });
      return () => {
        off();
        status.current = NOT_JOINED;
      };
    },
    [client, stream, newest],
  );
  return useSyncExternalStore(
    subscribe,
    () => status.current,
    () => NOT_JOINED,
  );
}

/** What the last finished render was given. */
function useNewest(value) {
  const ref = useRef(value);
  useInsertionEffect(() => {
    ref.current = value;
  });
  return ref;
}
