/** Storage: 15 of the machine. And whose positions they are. */

import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import { begun, freeTime, Gateway, holdTime, later, pass, recorder, settled, storage } from './gateway.mjs';

let gateway;
beforeEach(() => {
  holdTime();
  gateway = new Gateway();
});
afterEach(freeTime);

const KEPT = { v: 1, client: 'alice', positions: { 'group:news': ['e', 10], 'group:later': ['e', 3], 'client:alice': ['e', 5] } };

/** A token that says who it is for, as a JWT does. */
const tokenOf = (claims) => `h.${Buffer.from(JSON.stringify(claims)).toString('base64url')}.s`;

test('it goes on from what is stored; what has no handler yet stays stored', async () => {
  const kept = storage(KEPT);
  const news = recorder();
  const group = recorder();
  const tidegate = await gateway.open({ storage: kept }, (client) => client.group('news', news));
  assert.deepEqual(gateway.last.cursor, { 'client:alice': ['e', 5], 'group:news': ['e', 10] });
  await gateway.last.welcome();
  await gateway.last.message('group:news', 'e', 11);
  await pass(1);
  assert.deepEqual(kept.positions, { ...KEPT.positions, 'group:news': ['e', 11] });
  tidegate.group('later', group);
  assert.deepEqual([gateway.last.commands[0].epoch, gateway.last.commands[0].offset], ['e', 3]);
  await gateway.last.answer('join', { stream: 'group:later', ...begun(['e', 3], { recovered: true, missed: 0 }) });
  assert.deepEqual(group.heard, ['joined 3']);
});

test('a lasting group that is stored and has no handler keeps the stored position', async () => {
  const tidegate = await gateway.open({ storage: storage(KEPT) });
  await gateway.last.welcome({ 'group:later': ['e', 9] });
  await gateway.last.message('group:later', 'e', 10);
  tidegate.group('later', () => {});
  assert.equal(gateway.last.commands[0].offset, 3);
});

test("another client's positions are dropped: by the option, by the token, by the welcome", async () => {
  const bobs = () => storage({ ...KEPT, client: 'bob' });
  const subscribe = (client) => client.group('news', () => {});
  await gateway.open({ storage: bobs() }, subscribe);
  assert.equal(gateway.last.cursor, null);
  await gateway.open({ storage: bobs(), token: async () => tokenOf({ sub: 'alice' }) }, subscribe);
  assert.equal(gateway.last.cursor, null);

  // A login by cookie: only the gateway knows who it is.
  const kept = bobs();
  const cookie = await gateway.open({ storage: kept, client: undefined }, subscribe);
  assert.deepEqual(Object.keys(gateway.last.cursor), ['group:news']);
  await gateway.last.welcome({ 'group:news': ['e', 12] }, { client: 'alice' });
  assert.deepEqual(cookie.positions['group:news'], ['e', 12]);
  await pass(0.5);
  assert.deepEqual(JSON.parse(kept.kept.get('tidegate')), { v: 1, client: 'alice', positions: { 'group:news': ['e', 12] } });
});

test("who is known by a cookie alone: each fourth attempt leaves the own stream out, for it may be another's", async () => {
  const own = recorder();
  await gateway.open({ storage: storage(KEPT), client: undefined }, (client) => {
    client.direct(own);
    client.group('news', () => {});
  });
  for (let n = 0; n < 3; n++) {
    assert.deepEqual(Object.keys(gateway.last.cursor), ['client:alice', 'group:news']);
    await gateway.last.end();
    await pass(3);
  }
  assert.deepEqual(Object.keys(gateway.last.cursor), ['group:news']);
  // It was no refusal of that kind: nothing is lost.
  await gateway.last.welcome({ 'client:alice': ['e', 7] });
  assert.equal(gateway.sockets.length, 5);
  assert.deepEqual(gateway.last.cursor['client:alice'], ['e', 5]);
  await gateway.last.welcome();
  await gateway.last.message('client:alice', 'e', 6, 7);
  assert.deepEqual(own.heard, ['joined 5', 6, 7]);
});

test('a page whose cookie is another user’s by now comes in, and begins anew', async () => {
  const own = recorder();
  await gateway.open({ client: undefined }, (client) => client.direct(own));
  await gateway.last.welcome({ 'client:alice': ['e', 5] });
  for (let n = 0; n < 4; n++) {
    await gateway.last.end();
    await pass(5);
  }
  assert.equal(gateway.last.cursor?.['client:alice'], undefined);
  await gateway.last.welcome({ 'client:bob': ['e', 2] }, { client: 'bob' });
  await gateway.last.message('client:bob', 'e', 3);
  assert.deepEqual(own.heard, ['joined 5', 'joined 2', 3]);
});

test('another user in the same client begins anew', async () => {
  let user = 'alice';
  const own = recorder();
  const news = recorder();
  const kept = storage();
  const tidegate = await gateway.open({ storage: kept, token: () => tokenOf({ sub: user }) }, (client) => {
    client.direct(own);
    client.group('news', news);
  });
  await gateway.last.welcome({ 'client:alice': ['e', 1], 'group:news': ['e', 1] });
  tidegate.disconnect();
  user = 'bob';
  tidegate.connect();
  await settled();
  assert.equal(gateway.last.cursor, null);
  await gateway.last.welcome({ 'client:bob': ['e', 7], 'group:news': ['e', 2] }, { client: 'bob' });
  await gateway.last.message('client:bob', 'e', 8);
  assert.deepEqual(own.heard, ['joined 1', 'joined 7', 8]);
  assert.deepEqual(news.heard, ['joined 1', 'joined 2']);
  assert.equal(tidegate.client, 'bob');
  await pass(0.5);
  assert.deepEqual(JSON.parse(kept.kept.get('tidegate')).client, 'bob');
  assert.deepEqual(Object.keys(kept.positions).sort(), ['client:bob', 'group:news']);
});

test('a claim that cannot be read is passed on as it is, and does not loop', async () => {
  for (const token of ['opaque', 'a.b.c', `a.${'!'.repeat(9)}.c`, tokenOf(7), tokenOf({ sub: 7, exp: 'never' }), tokenOf(null)]) {
    const tidegate = await gateway.open({ token });
    assert.deepEqual(gateway.last.protocols, ['tidegate.v1', `bearer.${token}`]);
    await gateway.last.welcome();
    assert.equal(tidegate.state, 'connected');
  }
});

for (const [what, text] of Object.entries({
  'no JSON': '{',
  null: 'null',
  'a number': '7',
  'another version': JSON.stringify({ ...KEPT, v: 2 }),
  'no positions': '{"v":1,"client":"alice"}',
  'a position that is none': JSON.stringify({ ...KEPT, positions: { 'group:news': ['e', '10'] } }),
  'a stream that is none': JSON.stringify({ ...KEPT, positions: { news: ['e', 10] } }),
  nothing: null,
})) {
  test(`a storage that holds ${what} is as an empty one`, async () => {
    const errors = [];
    const kept = { getItem: () => text, setItem() {}, removeItem() {} };
    await gateway.open({ storage: kept }, (client) => {
      client.on('error', (error) => errors.push(error));
      client.group('news', () => {});
    });
    assert.equal(gateway.last.cursor, null);
    assert.deepEqual(errors, []);
  });
}

test('a storage that throws, at once or later, is done without, and it is said once', async () => {
  const fail = () => {
    throw new Error('quota');
  };
  const reject = () => Promise.reject(new Error('quota'));
  for (const broken of [
    { getItem: fail, setItem: fail, removeItem: fail },
    { getItem: reject, setItem: fail, removeItem: fail },
    { getItem: () => null, setItem: fail, removeItem: fail },
    { getItem: () => null, setItem: reject, removeItem: reject },
  ]) {
    const errors = [];
    const news = recorder();
    const tidegate = await gateway.open({ storage: broken }, (client) => {
      client.on('error', (error) => errors.push(error.message));
      client.group('news', news);
    });
    await gateway.last.welcome();
    await gateway.last.message('group:news', 'e', 1);
    await pass(0.5);
    await gateway.last.message('group:news', 'e', 2);
    await pass(0.5);
    tidegate.disconnect();
    assert.deepEqual(errors, ['quota']);
    assert.deepEqual(news.heard, ['joined 0', 1, 2]);
  }
});

test('a storage that hangs is waited for 2 s, and that time counts for nothing else', async () => {
  const errors = [];
  await gateway.open({ storage: { getItem: () => new Promise(() => {}) }, welcomeTimeout_s: 1 }, (client) =>
    client.on('error', (error) => errors.push(error.message)),
  );
  await pass(1.5);
  assert.equal(gateway.sockets.length, 0);
  await pass(0.5);
  assert.equal(gateway.sockets.length, 1);
  assert.equal(errors.length, 1);
  assert.equal(gateway.last.closed, null);
});

test('an asynchronous storage is read before the first attempt only, and written one at a time', async () => {
  const reading = later();
  const writes = [];
  let reads = 0;
  const kept = {
    getItem() {
      reads++;
      return reading.promise;
    },
    setItem(_, text) {
      writes.push({ text, ...later() });
      return writes.at(-1).promise;
    },
  };
  const tidegate = await gateway.open({ storage: kept }, (client) => client.group('news', () => {}));
  assert.equal(gateway.sockets.length, 0);
  reading.resolve(JSON.stringify(KEPT));
  await settled();
  assert.deepEqual(gateway.last.cursor['group:news'], ['e', 10]);
  await gateway.last.welcome();
  await gateway.last.message('group:news', 'e', 11);
  await pass(0.5);
  await gateway.last.message('group:news', 'e', 12);
  await pass(0.5);
  assert.equal(writes.length, 1);
  writes[0].resolve();
  await settled();
  await pass(0.5);
  assert.deepEqual(writes.map(({ text }) => JSON.parse(text).positions['group:news'][1]), [11, 12]);
  tidegate.disconnect();
  tidegate.connect();
  await settled();
  assert.equal(reads, 1);
});

test('it is written at most every 250 ms, and at once by disconnect and close', async () => {
  const writes = [];
  const kept = { getItem: () => null, setItem: (key, text) => writes.push([key, JSON.parse(text).positions['group:news']]) };
  const tidegate = await gateway.open({ storage: kept, storageKey: 'mine' }, (client) => client.group('news', () => {}));
  await gateway.last.welcome();
  await gateway.last.message('group:news', 'e', 1, 2);
  await pass(0.2);
  assert.equal(writes.length, 0);
  await gateway.last.message('group:news', 'e', 3);
  await pass(0.05);
  assert.deepEqual(writes, [['mine', ['e', 3]]]);
  await gateway.last.message('group:news', 'e', 4);
  tidegate.disconnect();
  assert.equal(writes.length, 2);
  tidegate.close();
  await pass(1);
  assert.equal(writes.length, 2);
});

test('where no position is left it is removed', async () => {
  const kept = storage({ v: 1, client: 'alice', positions: { 'group:news': ['e', 10] } });
  let group;
  await gateway.open({ storage: kept }, (client) => {
    group = client.group('news', () => {});
  });
  await gateway.last.welcome();
  group.leave();
  await pass(0.5);
  assert.equal(kept.kept.size, 0);
});

test('with last nothing is stored', async () => {
  const kept = storage(KEPT);
  await gateway.open({ storage: kept, last: true }, (client) => client.group('news', () => {}));
  assert.equal(gateway.last.query.get('cursor'), 'last');
  assert.deepEqual(gateway.last.groups, ['news']);
  await gateway.last.welcome();
  await gateway.last.message('group:news', 'e', 1);
  await pass(1);
  assert.deepEqual(kept.positions, KEPT.positions);
});

test('who closes when it is told that the storage failed is closed', async () => {
  const throws = () => {
    throw new Error('denied');
  };
  const tidegate = await gateway.open({ storage: { getItem: throws, setItem: throws, removeItem: throws } }, (client) =>
    client.on('error', () => client.close()),
  );
  assert.equal(tidegate.state, 'closed');
  assert.deepEqual(tidegate.heard, ['connecting', 'closed done']);
});
