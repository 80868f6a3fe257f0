/** Liveness and tokens on a connection: 11 and 13 of the machine. */

import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import { NotAllowed } from '../../src/index.js';
import { freeTime, Gateway, holdTime, later, pass, settled, sleep } from './gateway.mjs';

let gateway;
beforeEach(() => {
  holdTime();
  gateway = new Gateway();
});
afterEach(() => {
  freeTime();
  delete globalThis.document;
});

/** As if this were a page. */
function page() {
  globalThis.document = Object.assign(new EventTarget(), { visibilityState: 'hidden' });
  return async (name) => {
    globalThis.document.visibilityState = 'visible';
    globalThis.document.dispatchEvent(new Event(name));
    await settled();
  };
}

async function connected(options) {
  const tidegate = await gateway.open(options);
  await gateway.last.welcome();
  return tidegate;
}

test('a JSON ping at each interval, and silence ends the connection', async () => {
  const tidegate = await connected({ pingInterval_s: 5, pongTimeout_s: 3 });
  await pass(16);
  assert.equal(gateway.last.pings, 3);
  assert.equal(tidegate.state, 'connected');
  const { last } = gateway;
  last.mute = true;
  await pass(5);
  assert.equal(last.closed, null);
  await pass(2.5);
  assert.equal(last.closed, 1000);
  assert.equal(tidegate.reason.message, 'no answer to a ping');
});

test('the interval is that of the gateway where that is shorter', async () => {
  const tidegate = await gateway.open();
  await gateway.last.welcome({}, { ping_interval: 4 });
  await pass(9);
  assert.equal(gateway.last.pings, 2);
  tidegate.close();
});

test('whatever is JSON is a sign of life; the text pong is none', async () => {
  const tidegate = await connected({ pingInterval_s: 5, pongTimeout_s: 3 });
  const { last } = gateway;
  last.mute = true;
  await pass(5.5);
  await last.message('all', 'e', 1);
  await pass(3);
  assert.equal(tidegate.state, 'connected');
  await pass(2);
  assert.equal(last.pings, 2);
  await last.say('pong', 'Pong');
  await pass(3.5);
  assert.equal(last.closed, 1000);
});

test('silence is counted from a ping, not from the last message', async () => {
  const tidegate = await connected({ pingInterval_s: 20, pongTimeout_s: 3 });
  await pass(19);
  assert.equal(tidegate.state, 'connected');
});

test('a timer that comes late judges nobody: a new ping, and it begins to count anew', async () => {
  const tidegate = await connected({ pingInterval_s: 5, pongTimeout_s: 3 });
  const { last } = gateway;
  last.mute = true;
  await pass(5);
  await sleep(120);
  assert.equal(last.closed, null);
  assert.equal(last.pings, 2);
  await sleep(120);
  assert.equal(last.closed, null);
  last.mute = false;
  await sleep(120);
  assert.equal(tidegate.state, 'connected');
  last.mute = true;
  await pass(8);
  assert.equal(last.closed, 1000);
});

for (const name of ['visibilitychange', 'resume']) {
  test(`${name} asks at once, and the answer is due within 5 s`, async () => {
    const happens = page();
    const tidegate = await connected({ pongTimeout_s: 60 });
    const { last } = gateway;
    await happens(name);
    assert.equal(last.pings, 1);
    await pass(10);
    assert.equal(tidegate.state, 'connected');
    last.mute = true;
    await happens(name);
    await pass(5);
    assert.equal(last.closed, 1000);
  });
}

test('a page that is looked at ends a waiting delay; one that goes away is not listened to any more', async () => {
  const happens = page();
  const tidegate = await connected();
  await gateway.last.end(1013);
  await happens('visibilitychange');
  assert.equal(gateway.sockets.length, 2);
  await gateway.last.welcome();
  tidegate.disconnect();
  const { pings } = gateway.last;
  await happens('visibilitychange');
  assert.equal(gateway.sockets.length, 2);
  assert.equal(gateway.last.pings, pings);
});

test('expiring: one chain, however often it is said', async () => {
  const tokens = [];
  const tidegate = await connected({
    token() {
      tokens.push(later());
      if (tokens.length === 1) tokens[0].resolve('t1');
      return tokens.at(-1).promise;
    },
  });
  const { last } = gateway;
  await last.say({ type: 'expiring', seconds: 60 }, { type: 'expiring', seconds: 30 });
  assert.equal(tokens.length, 2);
  tokens[1].resolve('t2');
  await settled();
  assert.deepEqual(last.commands.map(({ type, token }) => [type, token]), [['refresh', 't2']]);
  await last.say({ type: 'expiring', seconds: 20 });
  assert.equal(tokens.length, 2);
  await last.answer('refresh', { expires: 9 });
  await last.say({ type: 'expiring', seconds: 60 });
  assert.equal(tokens.length, 3);
  tidegate.close();
});

test('a refresh that is refused is not repeated: the gateway says when it ends', async () => {
  let asked = 0;
  const tidegate = await connected({ token: () => `t${++asked}` });
  const { last } = gateway;
  for (const code of ['unauthorized', 'not_allowed', 'bad_request']) {
    await last.say({ type: 'expiring', seconds: 60 });
    const { length } = last.commands;
    await last.answer('refresh', code);
    await pass(120);
    assert.equal(last.commands.length, length);
  }
  assert.equal(asked, 4);
  assert.equal(tidegate.state, 'connected');
  await last.end(4009);
  await pass(0.001);
  assert.deepEqual(gateway.last.protocols[1], 'bearer.t5');
});

test('a function that fails at expiring is asked again, until the connection is another one', async () => {
  let asked = 0;
  await connected({
    token() {
      if (asked++ && asked < 4) throw new Error('the network');
      return `t${asked}`;
    },
  });
  await gateway.last.say({ type: 'expiring', seconds: 60 });
  await pass(3);
  assert.deepEqual(gateway.last.commands.map(({ token }) => token), ['t4']);
  await gateway.last.answer('refresh', 'internal_error');
  await pass(1);
  assert.deepEqual(gateway.last.commands.map(({ token }) => token), ['t4', 't5']);
  await gateway.last.end();
  await pass(5);
  assert.equal(asked, 6);
});

test('a user who may no longer connect is an end, also at expiring', async () => {
  let allowed = true;
  const tidegate = await connected({
    token() {
      if (!allowed) throw new NotAllowed('logged out');
      return 't';
    },
  });
  allowed = false;
  await gateway.last.say({ type: 'expiring', seconds: 60 });
  assert.deepEqual([tidegate.state, tidegate.reason.word, tidegate.reason.message], ['closed', 'not_allowed', 'logged out']);
});

test('a token that was asked for before a log-out refreshes nothing after it', async () => {
  const second = later();
  let asked = 0;
  const tidegate = await connected({ token: () => (asked++ === 1 ? second.promise : `t${asked}`) });
  await gateway.last.say({ type: 'expiring', seconds: 60 });
  tidegate.disconnect();
  tidegate.connect();
  await settled();
  await gateway.last.welcome();
  second.resolve('old');
  await settled();
  assert.equal(gateway.last.commands.length, 0);
});

test('a fixed token that has ended is one clear error, before an attempt and after 4009', async () => {
  const ended = `h.${Buffer.from('{"exp":1792612345}').toString('base64url')}.s`;
  const never = await gateway.open({ token: ended });
  assert.deepEqual([never.state, never.reason.word, gateway.sockets.length], ['closed', 'token_expired', 0]);
  const tidegate = await connected({ token: 'opaque' });
  await gateway.last.say({ type: 'expiring', seconds: 60 });
  assert.equal(gateway.last.commands.length, 0);
  await gateway.last.end(4009, 'token expired');
  assert.deepEqual([tidegate.state, tidegate.reason.word, tidegate.reason.code], ['closed', 'token_expired', 4009]);
});

test('refresh() hands over a token, and a fixed one is the new one from then on', async () => {
  const tidegate = await connected({ token: 't1' });
  const refresh = tidegate.refresh('t2');
  await settled();
  await gateway.last.answer('refresh', { expires: 7 });
  assert.deepEqual(await refresh, { expires: 7 });
  await gateway.last.end();
  await pass(1);
  assert.equal(gateway.last.protocols[1], 'bearer.t2');
});
