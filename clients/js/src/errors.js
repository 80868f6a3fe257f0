/** What a command or `ready()` may end with. `code` is a code of the protocol, or one of this library's. */
export class TidegateError extends Error {
  constructor(code, message = code) {
    super(message);
    this.name = 'TidegateError';
    this.code = code;
  }
}

/** The connection ended behind a command that may not be sent twice: it was carried out, or it was not. */
export class UnknownOutcome extends TidegateError {
  constructor() {
    super('unknown_outcome', 'the connection ended before the answer: done or not, nobody can tell');
  }
}

/** For a `token` function to throw: this user may not connect, so asking again is of no use. */
export class NotAllowed extends TidegateError {
  constructor(message = 'no token') {
    super('not_allowed', message);
  }
}

/** What nobody asked to be told: the platform's way to say that something failed. */
export const report = (error) => (globalThis.reportError ?? console.error)(error);
