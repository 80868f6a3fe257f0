/** Attempts, states, coming back: 1, 2, 3, 12, 14 and 16 of the machine. */

import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import { NotAllowed, Tidegate } from '../../src/index.js';
import { freeTime, Gateway, holdTime, later, pass, recorder, settled, sleep, storage } from './gateway.mjs';

let gateway;
beforeEach(() => {
  holdTime();
  gateway = new Gateway();
});
afterEach(freeTime);

test('it connects by itself, with what was asked for in the same breath', async () => {
  const tidegate = await gateway.open({}, (client) => client.group('news', recorder()));
  assert.deepEqual(gateway.last.groups, ['news']);
  assert.equal(gateway.last.query.get('client'), 'alice');
  assert.deepEqual(gateway.last.protocols, ['tidegate.v1']);
  const ready = tidegate.ready();
  await gateway.last.welcome();
  await ready;
  assert.equal(tidegate.state, 'connected');
  assert.deepEqual(tidegate.heard, ['connecting', 'connected']);
});

test('with autoConnect: false, and where it was disconnected at once, it waits', async () => {
  const tidegate = await gateway.open({ autoConnect: false });
  await gateway.open({}, (client) => client.disconnect());
  assert.equal(gateway.sockets.length, 0);
  tidegate.connect();
  await settled();
  assert.equal(gateway.sockets.length, 1);
});

test('a url may be of http, and have a query', async () => {
  new Tidegate('https://gateway/ws/?edge=2#here', { WebSocket: gateway.WebSocket, client: 'a.b@c' });
  await settled();
  assert.equal(gateway.last.url, 'wss://gateway/ws/?edge=2&client=a.b@c');
});

test('what is no name is refused where it is said, not by the gateway', () => {
  const options = { WebSocket: gateway.WebSocket, autoConnect: false };
  for (const client of ['', 'a b', '..', 'x'.repeat(129), null, 7])
    assert.throws(() => new Tidegate('ws://gateway/', { ...options, client }), { code: 'bad_request' });
  const tidegate = new Tidegate('ws://gateway/', options);
  assert.throws(() => tidegate.group('a,b', () => {}), { code: 'bad_request' });
  assert.throws(() => tidegate.leave('ä'), { code: 'bad_request' });
  assert.throws(() => new Tidegate('not a url', options));
});

test('the state is set before it is told', async () => {
  const seen = [];
  const tidegate = await gateway.open({}, (client) => client.on('state', () => seen.push(client.state)));
  await gateway.last.welcome();
  tidegate.close();
  assert.deepEqual(seen, ['connecting', 'connected', 'closed']);
});

test('whoever listens may throw, and it is reported; the others are told all the same', async () => {
  const errors = [];
  const tidegate = await gateway.open({}, (client) => {
    client.on('error', (error) => errors.push(error.message));
    client.on('state', () => {
      throw new Error('listener');
    });
  });
  await gateway.last.welcome();
  assert.deepEqual(errors, ['listener', 'listener']);
  assert.equal(tidegate.state, 'connected');
});

test('who closes while the welcome is told is closed, and nobody is told that it is ready', async () => {
  const tidegate = await gateway.open({}, (client) => client.on('state', (state) => state === 'connected' && client.close()));
  const ready = assert.rejects(tidegate.ready(), { code: 'closed' });
  await settled();
  await gateway.last.welcome();
  await ready;
  assert.equal(tidegate.state, 'closed');
  assert.equal(gateway.last.closed, 1000);
  assert.throws(() => tidegate.connect(), { code: 'closed' });
  await assert.rejects(tidegate.ready(), { code: 'closed' });
});

test('who closes in the breath in which it asked whether it is ready is told so', async () => {
  const tidegate = await gateway.open();
  const ready = tidegate.ready();
  tidegate.close();
  await assert.rejects(ready, { code: 'closed' });
});

test('of two who listen the second is not told of a state that the first has changed', async () => {
  const told = [];
  await gateway.open({}, (client) => {
    client.on('state', (state) => state === 'connected' && client.disconnect());
    client.on('state', (state) => told.push(state));
  });
  await gateway.last.welcome();
  assert.deepEqual(told, ['connecting', 'disconnected']);
});

test('nothing that waits keeps a program running that has closed its client', async () => {
  freeTime();
  const running = () => process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length;
  const before = running();
  const tidegate = await gateway.open({ token: () => 't', backoff_s: [60, 60] }, (client) => client.group('news', () => {}));
  await gateway.last.welcome({ 'group:news': null });
  await gateway.last.say({ type: 'left', stream: 'group:news', reason: 'removed' });
  tidegate.group('chat', () => {});
  await gateway.last.answer('join', 'broker_down');
  await gateway.last.say({ type: 'expiring', seconds: 60 });
  await gateway.last.answer('refresh', 'broker_down');
  assert.ok(running() > before);
  tidegate.close();
  assert.equal(running(), before);
});

test('who disconnects and connects while the welcome is told has one new connection', async () => {
  let once = true;
  const tidegate = await gateway.open({}, (client) =>
    client.on('state', (state) => {
      if (state !== 'connected' || !once) return;
      once = false;
      client.disconnect();
      client.connect();
    }),
  );
  await gateway.last.welcome();
  assert.equal(gateway.sockets.length, 2);
  assert.equal(tidegate.state, 'connecting');
  await gateway.last.welcome();
  assert.equal(tidegate.state, 'connected');
});

test('log out and in again while a token is on its way: the old one is never used', async () => {
  const tokens = [];
  const tidegate = await gateway.open({
    token() {
      tokens.push(later());
      return tokens.at(-1).promise;
    },
  });
  tidegate.disconnect();
  tidegate.connect();
  await settled();
  tokens[1].resolve('new');
  await settled();
  tokens[0].resolve('old');
  await settled();
  assert.deepEqual(gateway.sockets.map(({ protocols }) => protocols[1]), ['bearer.new']);
});

test('a token that comes too late says nothing of who this is', async () => {
  const tokens = [];
  const tidegate = await gateway.open({
    token() {
      tokens.push(later());
      return tokens.at(-1).promise;
    },
  });
  tidegate.disconnect();
  tidegate.connect();
  await settled();
  const of = (sub) => `h.${btoa(JSON.stringify({ sub }))}.s`;
  tokens[1].resolve(of('bob'));
  await settled();
  tokens[0].resolve(of('alice'));
  await settled();
  assert.equal(tidegate.client, 'bob');
});

test('who closes while something is told: those behind are not told of it', async () => {
  const told = [];
  await gateway.open({}, (client) => {
    client.all(() => {});
    client.on('joined', () => client.close());
    client.on('joined', () => told.push('joined'));
    client.on('state', (state) => told.push(state));
  });
  await gateway.last.welcome();
  assert.deepEqual(told, ['connecting', 'connected', 'closed']);
});

test('1012 of a connection that was welcomed waits a random while each time; of one that was not, as any failure', async () => {
  await gateway.open({ backoff_s: [1, 1] });
  for (let n = 1; n < 4; n++) {
    await gateway.last.welcome();
    await gateway.last.end(1012);
    await pass(2);
    assert.equal(gateway.sockets.length, n);
    await pass(1);
    assert.equal(gateway.sockets.length, n + 1);
  }
  await gateway.last.end(1012);
  await pass(0.5);
  assert.equal(gateway.sockets.length, 5);
});

test('what an older socket still says or does is dropped', async () => {
  const tidegate = await gateway.open();
  const [older] = gateway.sockets;
  const { onmessage, onclose } = older;
  tidegate.disconnect();
  assert.equal(older.closed, 1000);
  tidegate.connect();
  await settled();
  onmessage({ data: '{"type":"welcome","client":"mallory","streams":{}}' });
  onclose({ code: 4501, reason: '' });
  assert.equal(tidegate.state, 'connecting');
  await gateway.last.welcome();
  assert.equal(tidegate.client, 'alice');
});

test('a socket that opens and is silent is given up, and so is a token that does not come', async () => {
  await gateway.open({ welcomeTimeout_s: 3 });
  await pass(2.5);
  assert.equal(gateway.last.closed, null);
  await pass(1);
  assert.equal(gateway.sockets[0].closed, 1000);
  assert.equal(gateway.sockets.length, 2);

  let asked = 0;
  await gateway.open({
    welcomeTimeout_s: 3,
    token() {
      asked++;
      return new Promise(() => {});
    },
  });
  await pass(3.5);
  assert.equal(asked, 2);
});

test('a program that stood still reads the welcome before it judges', async () => {
  const tidegate = await gateway.open();
  await sleep(60);
  assert.equal(gateway.last.closed, null);
  await gateway.last.welcome();
  assert.equal(tidegate.state, 'connected');
});

test('the delays grow at random up to the longest, and begin anew only after a stable while', async () => {
  const delays = [];
  const tidegate = await gateway.open({ backoff_s: [1, 4], stable_s: 10 });
  async function next() {
    const { length } = gateway.sockets;
    const began = Date.now();
    while (gateway.sockets.length === length) await pass(0.5);
    delays.push((Date.now() - began) / 1000);
  }
  for (let n = 0; n < 4; n++) {
    await gateway.last.end();
    await next();
  }
  await gateway.last.welcome();
  await pass(9);
  await gateway.last.end();
  await next();
  await gateway.last.welcome();
  await pass(10);
  await gateway.last.end();
  await next();
  assert.deepEqual(delays, [0.5, 1, 2, 2, 2, 0.5]); // Math.random() is 0.5
  assert.equal(tidegate.state, 'connecting');
  assert.deepEqual(tidegate.reason, { code: 1006, word: 'cut', message: '', again: true });
});

test('1013 waits longer, 1012 a few seconds, 4009 with a function not at all the first time', async () => {
  await gateway.open({ token: () => 'x' });
  const { sockets } = gateway;
  await gateway.last.welcome();
  await gateway.last.end(1012);
  await pass(2);
  assert.equal(sockets.length, 1);
  await pass(0.5);
  assert.equal(sockets.length, 2);
  await gateway.last.welcome();
  await pass(10);
  await gateway.last.end(1013);
  await pass(44.5);
  assert.equal(sockets.length, 2);
  await pass(0.5);
  assert.equal(sockets.length, 3);
  await gateway.last.welcome();
  await pass(10);
  await gateway.last.end(4009);
  await pass(0.001);
  assert.equal(sockets.length, 4);
  await gateway.last.welcome();
  await gateway.last.end(4009);
  await pass(0.25);
  assert.equal(sockets.length, 4);
});

for (const [code, word] of Object.entries({
  1000: 'done',
  1002: 'protocol',
  1009: 'too_large',
  4500: 'not_understood',
  4501: 'disconnected',
  4502: 'taken_over',
  4777: 'code',
})) {
  test(`${code} is an end, ${word}, from which connect() starts again`, async () => {
    const tidegate = await gateway.open();
    await gateway.last.welcome();
    const call = assert.rejects(tidegate.call('echo', 1), { code: 'unknown_outcome' });
    await settled();
    await gateway.last.end(Number(code), 'why');
    await call;
    assert.equal(tidegate.state, 'closed');
    assert.deepEqual(tidegate.reason, { code: Number(code), word, message: 'why', again: false });
    await assert.rejects(tidegate.call('echo', 1), { code: 'closed' });
    await pass(60);
    assert.equal(gateway.sockets.length, 1);
    tidegate.connect();
    await settled();
    await gateway.last.welcome();
    assert.equal(tidegate.state, 'connected');
  });
}

test('without a welcome for too long it gives up, if it was told to', async () => {
  const tidegate = await gateway.open({ giveUpAfter_s: 20 });
  await gateway.last.welcome();
  await pass(60);
  await gateway.last.end();
  for (let n = 0; n < 39; n++) {
    await pass(0.5);
    await gateway.last.end();
  }
  assert.equal(tidegate.state, 'connecting');
  await pass(1);
  assert.equal(tidegate.state, 'closed');
  assert.equal(tidegate.reason.word, 'unreachable');
  const { length } = gateway.sockets;
  await pass(60);
  assert.equal(gateway.sockets.length, length);
});

test('a socket that cannot be made is an end that says why', async () => {
  class Never {
    constructor() {
      throw new SyntaxError('the subprotocol is no word');
    }
  }
  const tidegate = await gateway.open({ WebSocket: Never, token: 'a b' });
  assert.equal(tidegate.state, 'closed');
  assert.equal(tidegate.reason.word, 'refused');
  assert.match(tidegate.reason.message, /subprotocol/);
});

test('connect() ends a waiting delay, and is nothing where it is connected or tries', async () => {
  const tidegate = await gateway.open();
  tidegate.connect();
  await settled();
  assert.equal(gateway.sockets.length, 1);
  await gateway.last.end(1013);
  tidegate.connect();
  await settled();
  assert.equal(gateway.sockets.length, 2);
  await gateway.last.welcome();
  tidegate.connect();
  await pass(60);
  assert.equal(gateway.sockets.length, 2);
});

test('moving: a second connection takes over, and nobody notices', async () => {
  const news = recorder();
  const tidegate = await gateway.open({}, (client) => client.group('news', news));
  const [old] = gateway.sockets;
  await old.welcome({ 'group:news': ['e', 10] });
  await old.message('group:news', 'e', 11);
  const call = tidegate.call('slow', 1);
  const publish = tidegate.publish('news', 1);
  await old.say({ type: 'moving', within: 12.5 });
  const anew = gateway.last;
  assert.notEqual(anew, old);
  assert.deepEqual(anew.cursor['group:news'], ['e', 11]);
  await old.message('group:news', 'e', 12, 13);
  await anew.welcome();
  await old.message('group:news', 'e', 14);
  await anew.message('group:news', 'e', 12, 13, 14, 15);
  assert.deepEqual(news.heard, ['joined 10', 11, 12, 13, 'joined 13', 14, 15]);
  assert.deepEqual(tidegate.heard, ['connecting', 'connected']);

  assert.equal(old.closed, null); // it owes answers
  await old.answer('call', { status: 200, data: 2 });
  assert.deepEqual(await call, { status: 200, data: 2 });
  await old.answer('publish', { stream: 'group:news', epoch: 'e', offset: 15 });
  assert.equal((await publish).offset, 15);
  assert.equal(old.closed, 1000);
  assert.equal(anew.commands.length, 0);
});

test('moving: a gap that the new connection tells of, and the old one had filled, is none', async () => {
  const news = recorder();
  await gateway.open({}, (client) => client.group('news', news));
  const [old] = gateway.sockets;
  await old.welcome({ 'group:news': ['e', 10] });
  await old.say({ type: 'moving', within: 10 });
  await old.message('group:news', 'e', 11, 12, 13);
  await gateway.last.welcome({ 'group:news': { epoch: 'e', offset: 10, top: 13, recovered: false, missed: 1 } });
  await gateway.last.say({ type: 'gap', stream: 'group:news', epoch: 'e', from: 11, to: 12, reason: 'expired' });
  await gateway.last.message('group:news', 'e', 13, 14);
  assert.deepEqual(news.heard, ['joined 10', 11, 12, 13, 'joined 13', 14]);
});

test('moving: of a gap that the old connection had filled in part, the rest is told', async () => {
  const news = recorder();
  const tidegate = await gateway.open({}, (client) => client.group('news', news));
  const [old] = gateway.sockets;
  await old.welcome({ 'group:news': ['e', 10] });
  await old.say({ type: 'moving', within: 10 });
  await old.message('group:news', 'e', 11, 12, 13);
  await gateway.last.welcome({ 'group:news': { epoch: 'e', offset: 10, top: 16, recovered: false, missed: 1 } });
  await gateway.last.say({ type: 'gap', stream: 'group:news', epoch: 'e', from: 11, to: 15, reason: 'expired' });
  await gateway.last.message('group:news', 'e', 16);
  assert.deepEqual(news.heard, ['joined 10', 11, 12, 13, 'joined 13', 'gap 14-15 expired', 16]);
  assert.deepEqual(tidegate.positions['group:news'], ['e', 16]);
});

test('moving: what the old connection still says of streams is passed over, and a join under way is made anew', async () => {
  const news = recorder();
  const tidegate = await gateway.open({}, (client) => client.group('news', news));
  const [old] = gateway.sockets;
  await old.welcome({ 'group:news': ['e', 10] });
  tidegate.group('chat', news);
  await old.say({ type: 'moving', within: 10 });
  assert.deepEqual(gateway.last.groups, ['chat']);
  const { onmessage } = old;
  await gateway.last.welcome({ 'group:chat': null });
  assert.equal(old.closed, 1000); // a join is no answer to wait for
  onmessage({ data: '{"type":"left","stream":"group:news","reason":"removed"}' });
  onmessage({ data: `{"type":"error","id":${old.commands[0].id},"code":"not_allowed"}` });
  await gateway.last.say({ type: 'left', stream: 'group:chat', reason: 'not_allowed' });
  assert.deepEqual(news.heard, ['joined 10', 'joined 10', 'left not_allowed']);
});

test('moving: the end of the old connection ends nothing of the new one', async () => {
  const tidegate = await gateway.open();
  const [old] = gateway.sockets;
  await old.welcome();
  const first = assert.rejects(tidegate.call('slow', 1), { code: 'unknown_outcome' });
  await old.say({ type: 'moving', within: 3 });
  await gateway.last.welcome();
  const second = tidegate.call('slow', 2);
  await settled();
  await old.say({ type: 'left', stream: 'all', reason: 'odd' });
  await pass(3.5);
  await first;
  await gateway.last.answer('call', { status: 200, data: 2 });
  assert.equal((await second).data, 2);
});

test('moving: what the old connection did not answer in time is unknown, or sent again', async () => {
  const tidegate = await gateway.open();
  const [old] = gateway.sockets;
  await old.welcome();
  const call = assert.rejects(tidegate.call('slow', 1), { code: 'unknown_outcome' });
  const presence = tidegate.presence('news');
  await old.say({ type: 'moving', within: 3 });
  await gateway.last.welcome();
  assert.equal(gateway.last.commands.length, 0);
  await pass(3.5);
  await call;
  assert.equal(old.closed, 1000);
  await gateway.last.answer('presence', { clients: [] });
  assert.deepEqual(await presence, { clients: [] });
});

test('moving: a second attempt that fails is tried again; a cut meanwhile is a cut, and the attempt goes on', async () => {
  const tidegate = await gateway.open();
  const [old] = gateway.sockets;
  await old.welcome();
  await old.say({ type: 'moving', within: 10 });
  await gateway.last.end();
  assert.equal(tidegate.state, 'connected');
  assert.equal(tidegate.reason, null);
  await pass(1);
  assert.equal(gateway.sockets.length, 3);
  await old.end(1012, 'service restart');
  assert.equal(tidegate.state, 'connecting');
  assert.equal(tidegate.reason.word, 'restart');
  await pass(5);
  assert.equal(gateway.sockets.length, 3);
  await gateway.last.welcome();
  assert.equal(tidegate.state, 'connected');
});

test('moving with cursor=last: to be taken over by oneself is no end', async () => {
  const tidegate = await gateway.open({ last: true, device: 'phone' });
  const [old] = gateway.sockets;
  assert.equal(old.query.get('cursor'), 'last');
  assert.equal(old.query.get('device'), 'phone');
  await old.welcome();
  await old.say({ type: 'moving', within: 10 });
  await old.end(4502);
  assert.equal(tidegate.state, 'connecting');
});

test('no word of the user is lost: NotAllowed and null are ends, anything else is tried again', async () => {
  const ended = await gateway.open({
    token: () => {
      throw new NotAllowed();
    },
  });
  const empty = await gateway.open({ token: async () => null });
  assert.deepEqual([ended.reason.word, empty.reason.word], ['not_allowed', 'not_allowed']);
  assert.deepEqual([ended.state, empty.state], ['closed', 'closed']);
  let asked = 0;
  const again = await gateway.open({
    token: async () => {
      if (++asked < 3) throw new Error('the network');
      return 't';
    },
  });
  assert.deepEqual([again.state, again.reason.word, again.reason.message], ['connecting', 'token', 'the network']);
  await pass(2);
  assert.equal(asked, 3);
  assert.deepEqual(gateway.last.protocols, ['tidegate.v1', 'bearer.t']);
});

test('after close() nothing is told but the state, not even what waits', async () => {
  const news = recorder();
  const told = [];
  const tidegate = await gateway.open({ storage: storage() }, (client) => {
    client.group('news', news);
    for (const name of ['gap', 'joined', 'left', 'error']) client.on(name, () => told.push(name));
  });
  await gateway.last.welcome();
  told.length = 0;
  news.heard.length = 0;
  const saying = gateway.last.say({ type: 'message', stream: 'group:news', epoch: 'e', offset: 1, time: 1, data: 1 });
  tidegate.close();
  tidegate.close();
  await saying;
  assert.deepEqual([...news.heard, ...told], []);
  assert.deepEqual(tidegate.heard, ['connecting', 'connected', 'closed done']);
});
