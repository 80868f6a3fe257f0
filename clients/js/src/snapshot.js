const last = new WeakMap(); // client -> its last snapshot

const NONE = { client: null, state: 'disconnected', reason: null };

/** `{client, state, reason}`: the same object as long as they are the same, as React wants it. */
export function snapshotOf(client) {
  if (!client) return NONE;
  const { state, reason } = client;
  const before = last.get(client);
  if (before?.state === state && before.reason === reason) return before;
  const snapshot = { client, state, reason };
  last.set(client, snapshot);
  return snapshot;
}
