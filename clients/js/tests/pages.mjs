/**
 * State, then stream, against a real gateway: a writer changes rows and pushes at random, pages load at random moments,
 * and go away and come back. When the writer rests each page must be equal to the data.
 * usage: pages.mjs WEBSOCKET_URL API_URL PAGES
 *
 * Each page loads in one of three ways: the data as it is; the data with the position that was read before it; an older
 * copy with its position, as from a cache. Writes the number of pages that were equal, and what they have been through.
 */

import assert from 'node:assert/strict';
import { Tidegate } from '../src/index.js';

const [url, api, pages] = process.argv.slice(2);
const AT_ONCE = 50;
const ROWS = 8;

const random = (most) => Math.floor(Math.random() * most);
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function request(path, body) {
  const init = { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) };
  const answer = await fetch(api + path, body && init);
  assert.ok(answer.ok, `${path}: ${answer.status}`);
  return answer.json();
}

const rows = new Map(); // the data
let version = 0;
let copy = { rows: new Map(), position: null };
const seen = { states: 0, gaps: 0, messages: 0, duplicates: 0 };

async function position() {
  const { epoch, top } = await request('api/groups/rows/history?limit=1');
  return { epoch, offset: top };
}

/** Commits before it pushes. A row has a value that is new each time, or goes away. */
async function write() {
  const id = random(ROWS);
  const value = random(5) ? ++version : null;
  if (value === null) rows.delete(id);
  else rows.set(id, value);
  await pause(random(3));
  await request('api/groups/rows/push', { data: { id, value } });
}

async function cache() {
  const at = await position();
  copy = { rows: new Map(rows), position: at };
}

class Page {
  rows = new Map();

  constructor(number) {
    this.way = number % 3;
    this.tidegate = new Tidegate(url, { client: `page-${number}`, backoff_s: [0.001, 0.01] });
    this.subscription = this.tidegate.group('rows', {
      state: () => this.load(),
      onMessage: ({ data: { id, value } }) => {
        seen.messages++;
        if (value === null) this.rows.delete(id);
        else this.rows.set(id, value);
        return random(4) ? undefined : pause(random(3));
      },
      onGap: () => void seen.gaps++,
    });
  }

  async load() {
    seen.states++;
    const old = copy;
    const at = this.way === 1 ? await position() : old.position;
    await pause(random(10));
    this.rows = new Map(this.way === 2 ? old.rows : rows);
    await pause(random(10));
    return this.way === 0 ? undefined : { position: at };
  }

  /** Goes away for a while, and comes back: with its positions, or by another join. */
  async live() {
    for (let times = random(3); times > 0; times--) {
      await pause(random(60));
      if (random(2)) {
        this.tidegate.disconnect();
        await pause(random(250));
        this.tidegate.connect();
      } else {
        this.subscription.leave();
        await pause(random(5));
        this.subscription.join();
      }
    }
    await this.tidegate.ready();
  }
}

async function eventually(condition, what) {
  const end = Date.now() + 15_000;
  while (!condition()) {
    assert.ok(Date.now() < end, what());
    await pause(5);
  }
}

const equal = (page) =>
  page.rows.size === rows.size && [...rows].every(([id, value]) => page.rows.get(id) === value);

let equals = 0;
await write();
await cache();
while (equals < pages) {
  let writing = true;
  const writer = (async () => {
    for (let n = 0; writing; n++) {
      await write();
      if (n % 7 === 0) await cache();
      await pause(random(4));
    }
    await cache();
  })();
  const opened = await Promise.all(
    Array.from({ length: Math.min(AT_ONCE, pages - equals) }, async (_, n) => {
      await pause(random(200));
      const page = new Page(equals + n);
      await page.live();
      return page;
    }),
  );
  writing = false;
  await writer;
  await eventually(
    () => opened.every(equal),
    () => `unequal: ${JSON.stringify([[...rows], opened.filter((page) => !equal(page)).map((page) => [page.way, [...page.rows]])])}`,
  );
  await pause(30); // and they stay so
  assert.ok(opened.every(equal));
  for (const { tidegate, subscription } of opened) {
    seen.duplicates += subscription.duplicates;
    tidegate.close();
  }
  equals += opened.length;
}
console.log(JSON.stringify({ equals, ...seen }));
process.exit();
