// What components share: many listeners of one stream, and data with the messages that change it.

import assert from 'node:assert/strict';
import { beforeEach, mock, test } from 'node:test';

import { Data } from '../../src/data.js';
import { listen } from '../../src/listeners.js';

let client;
const settle = () => new Promise(setImmediate);

beforeEach(() => {
  mock.timers.reset();
  mock.timers.enable({ apis: ['setTimeout'] });
  client = {
    joins: 0,
    left: 0,
    group(_, handlers) {
      this.joins++;
      this.handlers = handlers;
      return { leave: () => this.left++ };
    },
  };
});

const joined = (offset, recovered) => client.handlers.onJoined({ epoch: 'e', offset, top: offset, recovered });
const message = (offset, data = offset) => client.handlers.onMessage({ epoch: 'e', offset, data });
const gap = (to) => client.handlers.onGap({ epoch: 'e', from: null, to, reason: 'expired' });

// Listeners

test('all listeners hear each message, and one that throws keeps it from nobody', () => {
  const heard = [];
  const errors = [];
  listen(client, 'group:news', {
    onMessage() {
      throw new Error('mine');
    },
    onError: (error) => errors.push(error.message),
  });
  listen(client, 'group:news', { onMessage: ({ offset }) => heard.push(offset) });
  joined(0);
  message(1);
  assert.deepEqual([heard, errors, client.joins], [[1], ['mine'], 1]);
});

test('where a platform has no reportError the console is told, and the others hear all the same', () => {
  const written = mock.method(console, 'error', () => {});
  const heard = [];
  listen(client, 'group:news', {
    onMessage() {
      throw new Error('mine');
    },
  });
  listen(client, 'group:news', { onMessage: ({ offset }) => heard.push(offset) });
  joined(0);
  message(1);
  written.mock.restore();
  assert.deepEqual([heard, written.mock.calls.map(({ arguments: [error] }) => error.message)], [[1], ['mine']]);
});

test('who goes and comes in the same breath neither leaves nor joins', async () => {
  listen(client, 'group:news', {})();
  const off = listen(client, 'group:news', {});
  await settle();
  assert.deepEqual([client.joins, client.left], [1, 0]);
  off();
  await settle();
  assert.deepEqual([client.joins, client.left], [1, 1]);
  listen(client, 'group:news', {});
  assert.equal(client.joins, 2);
});

test('who comes late is told where the stream is now', () => {
  listen(client, 'group:news', {});
  joined(5);
  message(6);
  let at;
  listen(client, 'group:news', { onJoined: ({ offset }) => (at = offset) });
  assert.equal(at, 6);
});

test('the next message waits for those that take their time', async () => {
  let done;
  listen(client, 'group:news', { onMessage: () => new Promise((resolve) => (done = resolve)) });
  const pending = message(1);
  assert.equal(typeof pending.then, 'function');
  done();
  await pending;
});

// Data

/** Data of which `load` gives what `answers` has next: a promise, or an error. */
function follow(answers) {
  const data = new Data({
    load: async () => {
      const answer = await answers.shift();
      if (answer instanceof Error) throw answer;
      return answer;
    },
    apply: (all, { data: value }) => [...all, value],
    initial: [],
  });
  const off = data.follow((listener) => listen(client, 'group:news', listener), () => {});
  return { data, off, shown: () => data.snapshot.data };
}

const later = () => {
  let give;
  const promise = new Promise((resolve) => (give = resolve));
  return Object.assign(promise, { give });
};

test('what comes while it loads is applied behind it, but for what the data has by its position', async () => {
  const loading = later();
  const { data, shown } = follow([loading]);
  joined(5);
  for (const offset of [6, 7, 8]) message(offset);
  assert.deepEqual([shown(), data.snapshot.ready], [[], false]);
  loading.give({ data: ['up to 7'], position: { epoch: 'e', offset: 7 } });
  await settle();
  assert.deepEqual(shown(), ['up to 7', 8]);
});

test('data that is ahead of the stream waits for it to come by', async () => {
  const { shown } = follow([{ data: ['up to 7'], position: { epoch: 'e', offset: 7 } }]);
  joined(5);
  await settle();
  for (const offset of [6, 7, 8]) message(offset);
  assert.deepEqual(shown(), ['up to 7', 8]);
});

test('data that is older than what is held is loaded again', async () => {
  const old = { data: ['old'], position: { epoch: 'e', offset: 3 } };
  const { data, shown } = follow([old, { data: ['new'], position: { epoch: 'e', offset: 6 } }]);
  joined(5);
  message(6);
  await settle();
  assert.match(data.snapshot.error.message, /older/);
  message(7);
  mock.timers.tick(30_000);
  await settle();
  assert.deepEqual(shown(), ['new', 7]);
  assert.equal(data.snapshot.error, null);
});

test('without a position all that is held is applied', async () => {
  const { shown } = follow([{ data: ['all'] }]);
  joined(5);
  message(6);
  await settle();
  assert.deepEqual(shown(), ['all', 6]);
});

test('after a gap it is loaded again, and a load under way is void', async () => {
  const first = later();
  const { shown } = follow([first, { data: ['second'] }]);
  joined(5);
  message(6);
  gap(9);
  message(10);
  first.give({ data: ['first'] });
  await settle();
  assert.deepEqual(shown(), ['second', 10]);
});

test('a return that lost nothing loads nothing, one that began anew does', async () => {
  const { shown } = follow([{ data: ['one'] }, { data: ['two'] }]);
  joined(5);
  await settle();
  joined(5, true);
  message(6);
  await settle();
  assert.deepEqual(shown(), ['one', 6]);
  joined(9);
  await settle();
  assert.deepEqual(shown(), ['two']);
});

test('what cannot be loaded is said, and tried again', async () => {
  const { data, shown } = follow([new Error('away'), new Error('away'), { data: ['here'] }]);
  joined(5);
  await settle();
  assert.equal(data.snapshot.error.message, 'away');
  for (const offset of [6, 7]) {
    message(offset);
    mock.timers.tick(30_000);
    await settle();
  }
  assert.deepEqual(shown(), ['here', 6, 7]);
});

test('too much to hold is dropped for a fresh load', async () => {
  const first = later();
  const { shown } = follow([first, { data: ['fresh'] }]);
  joined(0);
  for (let offset = 1; offset <= 1002; offset++) message(offset);
  await settle();
  first.give({ data: ['first'] });
  await settle();
  assert.deepEqual(shown(), ['fresh', 1002]);
});

test('nobody looks any more: what is loaded late changes nothing', async () => {
  const loading = later();
  const { off, shown } = follow([loading]);
  joined(5);
  off();
  loading.give({ data: ['late'] });
  await settle();
  assert.deepEqual(shown(), []);
  assert.equal(client.left, 1);
});

test('a writer that changes at random moments, and loads at others: it ends equal to the data', async () => {
  for (let round = 0; round < 200; round++) {
    const rows = {};
    let offset = 0;
    const loads = [];
    const data = new Data({
      load: () => new Promise((resolve) => loads.push(resolve)),
      apply: (all, { data: [key, value] }) => ({ ...all, [key]: value }),
      initial: {},
    });
    const fresh = { ...client, group: client.group };
    client = fresh;
    data.follow((listener) => listen(fresh, 'group:rows', listener), () => {});
    joined(0);
    const queue = []; // pushed, and not here yet
    const answered = []; // read, and not here yet
    for (let step = 0; step < 40; step++) {
      const chance = Math.random();
      if (chance < 0.4) {
        const key = 'abc'[Math.floor(Math.random() * 3)];
        rows[key] = step; // commits, then pushes
        queue.push([++offset, [key, step]]);
      } else if (chance < 0.7 && queue.length) {
        message(...queue.shift());
      } else if (chance < 0.8 && loads.length) {
        const before = Math.random() < 0.5 ? { epoch: 'e', offset } : null;
        answered.push([loads.shift(), { data: { ...rows }, position: before }]);
      } else if (chance < 0.9 && answered.length) {
        const [resolve, answer] = answered.shift();
        resolve(answer);
        await settle();
      } else if (chance > 0.97) {
        queue.length = 0;
        gap(offset);
      }
    }
    for (const [resolve, answer] of answered) resolve(answer);
    await settle();
    for (const entry of queue) message(...entry);
    while (loads.length) {
      loads.shift()({ data: { ...rows }, position: null });
      await settle();
      mock.timers.tick(30_000);
      await settle();
    }
    assert.deepEqual(data.snapshot.data, rows);
  }
});
