/**
 * Positions on the wire. A position is `[epoch, offset]`: all up to and including the offset lies behind.
 * Source: docs/protocol.md, Cursor.
 */

const CURSOR_CHARS = 4096;
const ID = /^(?!\.+$)[\w.@-]{1,128}$/;
const STREAM = /^(all|(client|group):(?!\.+$)[\w.@-]{1,128})$/;
const CURSOR = /^[\w-]{1,4096}$/;
const EPOCH = /^[\w.-]{1,64}$/;

/** Whether `text` may name a client or a group. */
export const isId = (text) => typeof text === 'string' && ID.test(text);

const isPosition = ([epoch, offset, ...more]) =>
  typeof epoch === 'string' &&
  EPOCH.test(epoch) &&
  Number.isInteger(offset) &&
  offset >= 0 &&
  offset <= 2 ** 53 &&
  !more.length;

/** A Map of the positions in an object. Throws where it holds anything else. */
export function positionsIn(object) {
  const entries = Object.entries(object);
  if (Array.isArray(object) || !entries.every(([name, at]) => STREAM.test(name) && isPosition(at))) throw new TypeError();
  return new Map(entries);
}

/** Unpadded base64url of the positions as a JSON object; null where it would be too long. */
export function encodeCursor(positions) {
  const token = base64url(JSON.stringify(Object.fromEntries(positions)));
  return token.length <= CURSOR_CHARS ? token : null;
}

/** The positions in a cursor, as a Map; null where it is none. */
export function decodeCursor(token) {
  try {
    return CURSOR.test(token) ? positionsIn(JSON.parse(textOf(token))) : null;
  } catch {
    return null;
  }
}

/** The text in base64url. Throws where it is none. */
export const textOf = (token) => atob(token.replaceAll('-', '+').replaceAll('_', '/'));

// Names, epochs and offsets are ASCII, so btoa takes them.
const base64url = (text) => btoa(text).replaceAll('+', '-').replaceAll('/', '_').replace(/=+$/, '');

/**
 * What a handshake can carry of `streams`: `{cursor, groups, carried}`. The first ones go first. `carried` are those that
 * found room, `cursor` is null where none of them has a position.
 * `chars` are left for both in the request's target, `most` is how many groups a connection may have. `last`: the
 * gateway knows the positions.
 */
export function pack(streams, chars, most, last) {
  const positions = [];
  const groups = [];
  const carried = [];
  let bytes = 1;
  for (const stream of last ? [] : streams) {
    const { name, at, group } = stream;
    if (!at || (group && most < 1)) continue;
    const grown = bytes + JSON.stringify([name, at]).length - 1;
    if (Math.ceil((grown * 4) / 3) > Math.min(CURSOR_CHARS, chars)) continue;
    bytes = grown;
    if (group) most--;
    positions.push([name, at]);
    carried.push(stream);
  }
  const cursor = last ? 'last' : positions.length ? encodeCursor(positions) : null;
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
