/**
 * Positions and the token that carries them. No DOM, no socket.
 *
 * Positions are a Map from stream name to `[epoch, offset]`: everything up to and including the
 * offset lies behind the client. Source: docs/protocol.md, Cursor.
 */

const CURSOR_CHARS = 4096;
const GROUPS_CHARS = 2048; // with the longest cursor and token this still fits an edge's 8 KiB request line
const ID = /^(?!\.+$)[A-Za-z0-9_.@-]{1,128}$/;

/** Whether `text` may name a client or a group. */
export function isId(text) {
  return ID.test(text);
}

/** The group's name, or null where `stream` is not a group's. */
export function groupOf(stream) {
  return stream.startsWith('group:') ? stream.slice(6) : null;
}

/** Unpadded base64url of the positions as a JSON object. */
export function encodeCursor(positions) {
  const json = JSON.stringify(Object.fromEntries(positions)); // ids and epochs are ASCII, so btoa takes it
  return btoa(json).replaceAll('+', '-').replaceAll('/', '_').replace(/=+$/, '');
}

/** The positions in a cursor; null where it is none. */
export function decodeCursor(token) {
  try {
    const json = JSON.parse(atob(token.replaceAll('-', '+').replaceAll('_', '/')));
    return new Map(Object.entries(json));
  } catch {
    return null;
  }
}

/** Whether two sets of positions are the same, in any order. */
export function samePositions(some, others) {
  if (some.size !== others.size) return false;
  for (const [stream, [epoch, offset]] of some) {
    const other = others.get(stream);
    if (!other || other[0] !== epoch || other[1] !== offset) return false;
  }
  return true;
}

/**
 * What a handshake can carry and what must be joined after it:
 * `{cursor: string | null, groups: [name], later: [{group, epoch?, offset?}]}`.
 * A cursor holds at most 4 KiB. The client's own stream and `all` go first: no command joins them.
 */
export function plan(positions, groups) {
  const ordered = [...positions].sort(([a], [b]) => (groupOf(a) !== null) - (groupOf(b) !== null));
  const carried = new Map();
  const later = [];
  let bytes = 2;
  for (const [stream, position] of ordered) {
    bytes += JSON.stringify([stream, position]).length;
    if (Math.ceil((bytes * 4) / 3) <= CURSOR_CHARS) carried.set(stream, position);
    else later.push({ group: groupOf(stream), epoch: position[0], offset: position[1] });
  }
  const named = [];
  let chars = 0;
  for (const group of groups) {
    if (positions.has(`group:${group}`)) continue;
    chars += encodeURIComponent(group).length + 3;
    if (chars <= GROUPS_CHARS) named.push(group);
    else later.push({ group });
  }
  return { cursor: carried.size ? encodeCursor(carried) : null, groups: named, later };
}
