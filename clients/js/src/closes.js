/** What the end of a connection means: docs/protocol.md, Close codes. */

const RANDOM_S = 5;
const LONGER_S = [30, 60];

// code: [word, delay before coming back]. Without a delay one does not come back.
const CODES = {
  1000: ['done'],
  1001: ['moved', 'random'],
  1002: ['protocol'],
  1003: ['protocol'],
  1007: ['protocol'],
  1009: ['too_large'],
  1011: ['fault', 'growing'],
  1012: ['restart', 'random'],
  1013: ['overload', 'longer'],
  4007: ['silent', 'growing'],
  4008: ['slow', 'growing'],
  4009: ['token_expired', 'token'],
  4500: ['not_understood'],
  4501: ['disconnected'],
  4502: ['taken_over'],
  not_allowed: ['not_allowed'], // what asking for a token may end with
  token_expired: ['token_expired'],
};

/** `[word, delay]` of a close code. `delay` is undefined where one does not come back. */
export function meaningOf(code, otherwise = code >= 4500 && code < 5000 ? ['code'] : ['cut', 'growing']) {
  return CODES[code] ?? otherwise;
}

/** Full jitter: anything from nothing to a limit that doubles with each failure. */
export function growing_ms(failures, [first_s, longest_s]) {
  return Math.random() * Math.min(longest_s, first_s * 2 ** failures) * 1000;
}

/** How long to wait before the next attempt. `failures`: how many there were since a connection was stable. */
export function delay_ms(delay, failures, backoff_s) {
  if (delay === 'longer') return (LONGER_S[0] + Math.random() * (LONGER_S[1] - LONGER_S[0])) * 1000;
  if (failures === 0 && delay === 'random') return Math.random() * RANDOM_S * 1000;
  if (failures === 0 && delay === 'token') return 0;
  return growing_ms(failures, backoff_s);
}
