/**
 * Whether the far end lives. Silence is counted from a ping that was sent, never from the last message: and a timer that
 * comes late judges nobody, because what came meanwhile has not been read yet (a laptop slept, a tab was frozen).
 */

const LATE_MS = 2000;

/** Calls `then(late)` after so many seconds; `late` says that the timer itself was held up. Gives what cancels it. */
export function after(seconds, then) {
  const due_ms = Date.now() + seconds * 1000;
  const timer = setTimeout(() => then(Date.now() - due_ms > LATE_MS), seconds * 1000);
  return () => clearTimeout(timer);
}

/**
 * The same for what has one time limit. Where it comes late this program stood still: what it waits for may be here,
 * unread.
 */
export function deadline(seconds, then) {
  let cancel = after(seconds, (late) => {
    if (late) cancel = after(1, then);
    else then();
  });
  return () => cancel();
}

/** A timer that keeps no program running: what it is for matters only while there is a connection. */
export const idle = (then, ms) => setTimeout(then, ms).unref?.();

export class Liveness {
  #asked = false;
  #cancel = () => {};

  /** `ping()` sends one that the far end answers, `dead()` is called when nothing came of it. */
  constructor(interval_s, timeout_s, ping, dead) {
    this.interval_s = interval_s;
    this.timeout_s = timeout_s;
    this.ping = ping;
    this.dead = dead;
    this.#rest();
  }

  /** Something came that only the far end can have sent. */
  heard() {
    if (this.#asked) this.#rest();
  }

  /** Asks now; an answer is due within `limit_s`. */
  probe(limit_s) {
    this.#cancel();
    this.#asked = true;
    this.#cancel = after(limit_s, (late) => (late ? this.probe(limit_s) : this.dead()));
    this.ping();
  }

  stop() {
    this.#cancel();
  }

  #rest() {
    this.#cancel();
    this.#asked = false;
    this.#cancel = after(this.interval_s, () => this.probe(this.timeout_s));
  }
}

/** Calls `wake` when a page is looked at or comes back, `hide` when it goes. Gives what ends that. */
export function watchPage(wake, hide) {
  const { document } = globalThis;
  const watched = [
    [document, 'visibilitychange', () => document.visibilityState === 'visible' && wake()],
    [document, 'resume', wake],
    [globalThis, 'pageshow', wake],
    [globalThis, 'online', wake],
    [globalThis, 'pagehide', hide],
  ];
  for (const [target, name, listener] of watched) target?.addEventListener?.(name, listener);
  return () => {
    for (const [target, name, listener] of watched) target?.removeEventListener?.(name, listener);
  };
}
