/**
 * A Vue composable for each thing. A client is given by `app.use(tidegate, client)` or `provideTidegate`; several
 * components may follow the same group. All ends with the component (or the effect scope) that called.
 */

import { inject, onScopeDispose, provide, readonly, ref, shallowReadonly, shallowRef, toValue, watch } from 'vue';

import { Data } from './data.js';
import { listen } from './listeners.js';

const KEY = Symbol('tidegate');

/** The plugin: `app.use(tidegate, client)`. */
export const tidegate = {
  install(app, client) {
    app.provide(KEY, client);
  },
};

/** Gives `client` to the components below. */
export function provideTidegate(client) {
  provide(KEY, client);
}

/** A client for as long as this component is there, which the components below are given too. */
export function useNewTidegate(make) {
  const client = make();
  provideTidegate(client);
  onScopeDispose(() => client.close());
  return client;
}

/** `{client, state, reason}`; the last two are refs. */
export function useTidegate(client = given()) {
  const state = shallowRef(client.state);
  const reason = shallowRef(client.reason);
  const off = client.on('state', () => {
    state.value = client.state;
    reason.value = client.reason;
  });
  onScopeDispose(off);
  return { client, state: readonly(state), reason: shallowReadonly(reason) };
}

/** `{joined, left}`, refs: whether messages come, or why not any more. `name` may be a ref or a getter; null joins nothing. */
export function useGroup(name, handlers, client = given()) {
  return useStream(() => toValue(name) && `group:${toValue(name)}`, handlers, client);
}

export function useDirect(handlers, client = given()) {
  return useStream(() => 'direct', handlers, client);
}

export function useAll(handlers, client = given()) {
  return useStream(() => 'all', handlers, client);
}

/** A ref of the newest messages of a group, oldest first. */
export function useMessages(name, { limit = 100 } = {}, client = given()) {
  const messages = shallowRef([]);
  watch(
    () => toValue(name),
    () => {
      messages.value = [];
    },
    { flush: 'sync' },
  );
  const take = (message) => {
    messages.value = [...messages.value, message].slice(-limit);
  };
  useGroup(name, take, client);
  return messages;
}

/**
 * Data and the messages of a group that change it: `{data, ready, error}`, refs. `load()` gives `{data, position?}`,
 * `apply(data, message)` the new data. Loaded again after a gap that lost something.
 */
export function useGroupData(name, { load, apply, initial }, client = given()) {
  const data = shallowRef(initial);
  const ready = ref(false);
  const error = shallowRef(null);
  follow(
    () => toValue(name) && `group:${toValue(name)}`,
    (stream) => {
      const followed = new Data({ load, apply, initial });
      const show = () => {
        ({ data: data.value, ready: ready.value, error: error.value } = followed.snapshot);
      };
      show();
      return followed.follow((listener) => listen(client, stream, listener), show);
    },
  );
  return { data, ready: readonly(ready), error };
}

function given() {
  const client = inject(KEY, null);
  if (!client) throw new Error('no Tidegate client here: app.use(tidegate, client), or give one');
  return client;
}

function useStream(stream, handlers, client) {
  const joined = ref(false);
  const left = ref(null);
  const { onJoined, onLeft, ...others } = typeof handlers === 'function' ? { onMessage: handlers } : handlers;
  const become = (isJoined, reason) => {
    joined.value = isJoined;
    left.value = reason;
  };
  follow(stream, (name) => {
    become(false, null);
    return listen(client, name, {
      ...others,
      onJoined: (event) => {
        become(true, null);
        return onJoined?.(event);
      },
      onLeft: (reason) => {
        become(false, reason);
        return onLeft?.(reason);
      },
    });
  });
  return { joined: readonly(joined), left: readonly(left) };
}

/** Keeps `begin(stream)` going for the stream of the moment; what it gives ends it. */
function follow(stream, begin) {
  watch(
    stream,
    (name, _, onCleanup) => {
      if (name) onCleanup(begin(name));
    },
    { immediate: true, flush: 'sync' },
  );
}
