/** The HTTP API of the internal port, from where this page came. Source: docs/protocol.md, HTTP API. */

const KEY = 'tidegate.key';

/** An answer that says no; `status` is 0 where none came. */
export class ApiError extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/** An error for people: `code: message`. */
export function inWords(error) {
  return error.code ? `${error.code}: ${error.message}` : error.message;
}

export class Api {
  /** `onkey(words)` is called when a key is needed or was not accepted. */
  constructor(onkey) {
    this.keyRequired = false;
    this.onkey = onkey;
  }

  /** The key lives as long as this tab, and nowhere else. */
  get key() {
    return sessionStorage.getItem(KEY);
  }

  set key(key) {
    if (key) sessionStorage.setItem(KEY, key);
    else sessionStorage.removeItem(KEY);
  }

  /** Whether calls can work as far as this page knows. */
  get open() {
    return !this.keyRequired || this.key !== null;
  }

  /** The answer's JSON; `body` is JSON text. Raises ApiError. */
  async call(method, path, body = null, headers = {}) {
    const text = await this.text(method, path, body, headers);
    return text ? JSON.parse(text) : null;
  }

  /** The answer to the letter. Raises ApiError. */
  async text(method, path, body = null, headers = {}) {
    if (!this.open) {
      this.onkey('This needs the API key.');
      throw new ApiError(401, 'unauthorized', 'the API key is missing');
    }
    const sent = { 'Content-Type': 'application/json', ...headers };
    if (this.key) sent.Authorization = `Bearer ${this.key}`;
    const response = await answerOf(path, { method, headers: sent, body, cache: 'no-store' });
    const text = await response.text();
    if (response.ok) return text;
    if (response.status === 401) {
      this.key = null;
      this.keyRequired = true;
      this.onkey('The key was not accepted.');
    }
    throw refusal(response, text);
  }

  /** What the page must know before anything else; needs no key. */
  async settings() {
    return JSON.parse(await readable('console.json'));
  }

  /** The text of /metrics; needs no key. */
  metrics() {
    return readable('metrics');
  }

  /** Whether the service answers at all. */
  async alive() {
    try {
      await readable('healthz');
      return true;
    } catch {
      return false;
    }
  }
}

async function answerOf(path, options) {
  try {
    return await fetch(path, options);
  } catch {
    throw new ApiError(0, 'no_answer', 'the service does not answer');
  }
}

/** The text of what needs no key. Raises ApiError. */
async function readable(path) {
  const response = await answerOf(path, { cache: 'no-store' });
  const text = await response.text();
  if (!response.ok) throw refusal(response, text);
  return text;
}

/** The ApiError in an answer; a proxy's own page has no code, then the status is one. */
function refusal({ status, statusText }, text) {
  try {
    const { code, message } = JSON.parse(text).error;
    return new ApiError(status, code, message);
  } catch {
    return new ApiError(status, `http_${status}`, statusText);
  }
}
