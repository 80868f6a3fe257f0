/**
 * Positions on the wire. A position is `[epoch, offset]`: all up to and including the offset lies behind.
 * Source: docs/protocol.md, Cursor.
 */

const CURSOR_CHARS = 4096;
const ID = /^(?!\.+$)[\w.@-]{1,128}$/;
const STREAM = /^(all$|client:|group:)/;

/** Whether `text` may name a client or a group. */
export const isId = (text) => typeof text === 'string' && ID.test(text);

const isPosition = (at) =>
  Array.isArray(at) &&
  at.length === 2 &&
  /^[\w.-]{1,64}$/.test(at[0]) &&
  typeof at[0] === 'string' &&
  Number.isInteger(at[1]) &&
  at[1] >= 0 &&
  at[1] <= 2 ** 53;

const isStream = (name) => STREAM.test(name) && (name === 'all' || isId(name.slice(name.indexOf(':') + 1)));

/** A Map of the positions in `object`; null where one of them is none. */
export function positionsIn(object) {
  if (typeof object !== 'object' || object === null || Array.isArray(object)) return null;
  const entries = Object.entries(object);
  return entries.every(([name, at]) => isStream(name) && isPosition(at)) ? new Map(entries) : null;
}

/** Unpadded base64url of the positions as a JSON object; null where it would be too long. */
export function encodeCursor(positions) {
  const token = base64url(JSON.stringify(Object.fromEntries(positions)));
  return token.length <= CURSOR_CHARS ? token : null;
}

/** The positions in a cursor, as a Map; null where it is none. */
export function decodeCursor(token) {
  try {
    return /^[\w-]{1,4096}$/.test(token) ? positionsIn(JSON.parse(textOf(token))) : null;
  } catch {
    return null;
  }
}

/** The text in base64url. Throws where it is none. */
export const textOf = (token) => atob(token.replaceAll('-', '+').replaceAll('_', '/'));

// Names, epochs and offsets are ASCII, so btoa takes them.
const base64url = (text) => btoa(text).replaceAll('+', '-').replaceAll('/', '_').replace(/=+$/, '');

/**
 * What a handshake can carry of `streams`: `{cursor, groups, carried}`. The first ones go first. `carried` is a Set of
 * those that found room, `cursor` is null where none of them has a position.
 * `chars` are left for both in the request's target, `most` is how many groups a connection may have.
 */
export function pack(streams, chars, most) {
  const positions = new Map();
  const groups = [];
  const carried = new Set();
  const hasRoom = (stream) => !stream.group || [...carried].filter(({ group }) => group).length < most;
  let bytes = 1;
  for (const stream of streams) {
    if (!stream.at || !hasRoom(stream)) continue;
    const grown = bytes + JSON.stringify(stream.name).length + JSON.stringify(stream.at).length + 2;
    if (Math.ceil((grown * 4) / 3) > Math.min(CURSOR_CHARS, chars)) continue;
    bytes = grown;
    positions.set(stream.name, stream.at);
    carried.add(stream);
  }
  const cursor = positions.size ? encodeCursor(positions) : null;
  let left = chars - (cursor?.length ?? 0);
  for (const stream of streams) {
    if (stream.at || !stream.group || !hasRoom(stream) || stream.group.length >= left) continue;
    left -= stream.group.length + 1;
    groups.push(stream.group);
    carried.add(stream);
  }
  return { cursor, groups, carried };
}
