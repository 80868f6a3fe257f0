export { Tidegate } from './client.js';
export { NotAllowed, TidegateError, UnknownOutcome } from './errors.js';
