import { textOf } from './cursor.js';

/** The claims of a JWT, nothing verified; an empty object where they can't be read: others have to judge that. */
export function claimsOf(token) {
  try {
    return JSON.parse(textOf(token.split('.')[1])) ?? {};
  } catch {
    return {};
  }
}
