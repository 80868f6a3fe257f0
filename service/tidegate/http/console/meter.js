/**
 * What this node does, by asking its /metrics every two seconds: the numbers of the last five minutes. No DOM but
 * whether the page is hidden: then nothing is asked.
 */

import { quantile, rate, Scrape } from './prometheus.js';

const EVERY_MS = 2000;
const KEPT_MS = 300_000;
const SCRAPES = 31; // a minute: as far back as a window reaches

const taken = ({ result }) => result === 'accepted' || result === 'published';
const refused = (labels) => !taken(labels);

/** Each gives a value of now, or null, from the scrapes until now: `{at_ms, scrape}`, the newest last. */
const READINGS = {
  connections: gauge('tidegate_connections'),
  pushes: growth('tidegate_pushes_total', taken),
  pushesRefused: growth('tidegate_pushes_total', refused),
  deliveries: growth('tidegate_deliveries_total'),
  handshakes: growth('tidegate_handshakes_total', taken),
  handshakesRefused: growth('tidegate_handshakes_total', refused),
  closes: growth('tidegate_closes_total'),
  write50: time('tidegate_push_to_write_seconds', 0.5, 5),
  write99: time('tidegate_push_to_write_seconds', 0.99, 5),
  heartbeat50: time('tidegate_heartbeat_seconds', 0.5, 30),
  heartbeat99: time('tidegate_heartbeat_seconds', 0.99, 30),
  lag50: time('tidegate_loop_lag_seconds', 0.5, 5),
  lag99: time('tidegate_loop_lag_seconds', 0.99, 5),
};

function gauge(name) {
  return (scrapes) => scrapes.at(-1).scrape.sum(name);
}

/** Per second, since the scrape before. */
function growth(name, wanted) {
  return (scrapes) => between(scrapes, 1, (before, after, ms) => rate(before, after, ms, name, wanted));
}

/** In ms, of what was observed within so many scrapes. */
function time(name, share, window) {
  return (scrapes) =>
    between(scrapes, window, (before, after) => {
      const seconds = quantile(before, after, name, share);
      return seconds === null ? null : seconds * 1000;
    });
}

function between(scrapes, window, read) {
  const before = scrapes.at(-1 - Math.min(window, scrapes.length - 1));
  const after = scrapes.at(-1);
  return before === after ? null : read(before.scrape, after.scrape, after.at_ms - before.at_ms);
}

export class Meter {
  rows = []; // {at_ms, values: {name: number or null}}, the oldest first
  scrape = null; // the newest; null while the node does not answer
  #scrapes = [];
  #api;
  #listeners = [];

  constructor(api) {
    this.#api = api;
  }

  /** `listener()` is called after each look. */
  onlook(listener) {
    this.#listeners.push(listener);
  }

  /** The values of one reading, the oldest first. */
  column(name) {
    return this.rows.map(({ values }) => values[name]);
  }

  /** Looks from now on. */
  async start() {
    try {
      if (!document.hidden) await this.#look();
    } finally {
      setTimeout(() => this.start(), EVERY_MS); // whatever a listener made of it
    }
  }

  async #look() {
    try {
      this.scrape = new Scrape(await this.#api.metrics());
    } catch {
      this.scrape = null;
      this.#scrapes = []; // it may have been started anew
    }
    const at_ms = Date.now();
    if (this.scrape) this.#scrapes.push({ at_ms, scrape: this.scrape });
    if (this.#scrapes.length > SCRAPES) this.#scrapes.shift();
    const values = Object.fromEntries(
      Object.entries(READINGS).map(([name, read]) => [name, this.scrape ? read(this.#scrapes) : null]),
    );
    this.rows.push({ at_ms, values });
    while (this.rows[0].at_ms < at_ms - KEPT_MS) this.rows.shift();
    for (const listener of this.#listeners) listener();
  }
}
