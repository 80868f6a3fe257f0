/**
 * Names and positions, as the console shows them. No DOM, no socket.
 *
 * Positions are a Map from stream name to `[epoch, offset]`: everything up to and including the
 * offset lies behind the client. Source: docs/protocol.md, Cursor.
 */

const ID = /^(?!\.+$)[A-Za-z0-9_.@-]{1,128}$/;

/** Whether `text` may name a client or a group. */
export function isId(text) {
  return ID.test(text);
}

/** The group's name, or null where `stream` is not a group's. */
export function groupOf(stream) {
  return stream.startsWith('group:') ? stream.slice(6) : null;
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
