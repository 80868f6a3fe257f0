// The leading tab: what each reader is given, whatever it comes with. The client of the gateway is scripted.

import assert from 'node:assert/strict';
import { beforeEach, mock, test } from 'node:test';

import { encodeCursor } from '../../src/cursor.js';
import { Hub } from '../../src/hub.js';
import { Stream } from '../../src/stream.js';

/** A client as the hub needs it. */
class Client {
  state = 'disconnected';
  reason = null;
  client = 'alice';
  groups = new Map(); // name -> handlers
  left = [];

  constructor(positions) {
    this.positions = positions;
  }

  on(_, tell) {
    this.tell = tell;
  }

  become(state, reason = null) {
    this.state = state;
    this.reason = reason;
    this.tell(state);
  }

  connect() {
    this.become('connecting');
  }

  close() {
    this.become('closed', { code: 1000, message: '' });
  }

  direct(handlers) {
    this.own = handlers;
  }

  all(handlers) {
    this.everybody = handlers;
  }

  group(name, handlers) {
    this.groups.set(name, handlers);
    return { leave: () => this.left.push(name) };
  }

  /** Welcomed, with all groups at `offset` unless they have a position. */
  connected(offset = 0, top = offset) {
    const joined = (stream) => {
      const [epoch, at] = this.positions.get(stream) ?? ['e', offset];
      return { stream, epoch, offset: at, top };
    };
    this.become('connected');
    this.own.onJoined(joined('client:alice'));
    this.everybody.onJoined(joined('all'));
    for (const [name, handlers] of this.groups) handlers.onJoined(joined(`group:${name}`));
  }

  message(offset, epoch = 'e', group = 'news') {
    this.groups.get(group).onMessage({ stream: `group:${group}`, epoch, offset, time: 0, data: offset });
  }

  gap(epoch, to, reason = 'reset', from = null) {
    this.groups.get('news').onGap({ stream: 'group:news', epoch, from, to, reason });
  }

  async publish() {
    throw Object.assign(new Error('no'), { code: 'not_allowed' });
  }
}

let clients;
let told; // socket -> events
let hub;

beforeEach(() => {
  mock.timers.reset();
  mock.timers.enable({ apis: ['setTimeout'] });
  clients = [];
  told = new Map();
  const make = (positions) => {
    clients.push(new Client(positions));
    return clients.at(-1);
  };
  const post = (_, { socket, text, close }) => {
    if (!told.has(socket)) told.set(socket, []);
    if (text) told.get(socket).push(JSON.parse(text));
    if (close) told.get(socket).push({ type: 'closed', code: close[0] });
  };
  hub = new Hub(make, post, () => {}, () => {});
});

/** A tab opens a socket; `at` is its position in `news`, null where it has none. */
function open(socket, at = null, groups = 'news') {
  const query = at ? `cursor=${encodeCursor(new Map([['group:news', at]]))}` : `groups=${groups}`;
  hub.open(`tab ${socket}`, socket, `ws://gateway/?client=alice&${query}`);
}

const begin = () => mock.timers.tick(150);
const client = () => clients.at(-1);
const streamsOf = (socket) => told.get(socket).find(({ type }) => type === 'welcome')?.streams;
const heard = (socket) =>
  told
    .get(socket)
    .filter(({ type }) => type === 'message' || type === 'gap')
    .map(({ type, offset, epoch, to }) => (type === 'gap' ? `gap ${epoch} ${to}` : offset));

test('tabs that come with positions begin at the lowest, and each is given what lies behind its own', () => {
  open('a', ['e', 7]);
  open('b', ['e', 5]);
  begin();
  assert.deepEqual([...client().positions], [['group:news', ['e', 5]]]);
  client().connected(0, 8);
  for (const offset of [6, 7, 8]) client().message(offset);
  assert.deepEqual(heard('a'), [8]);
  assert.deepEqual(heard('b'), [6, 7, 8]);
  assert.equal(streamsOf('a')['group:news'].offset, 7);
});

test('who comes later is given the newest from here, while it reaches', () => {
  open('a', ['e', 5]);
  begin();
  client().connected(0, 5);
  for (const offset of [6, 7, 8]) client().message(offset);
  open('b', ['e', 6]);
  open('c');
  assert.deepEqual(heard('b'), [7, 8]);
  assert.deepEqual(streamsOf('b')['group:news'], { epoch: 'e', offset: 6, top: 8, recovered: true, missed: 2 });
  assert.deepEqual(streamsOf('c')['group:news'], { epoch: 'e', offset: 8, top: 8 });
  assert.equal(clients.length, 1);
});

test('who comes from further back makes the client begin anew, and the others are given nothing twice', () => {
  open('a', ['e', 5]);
  begin();
  client().connected(0, 5);
  client().message(6);
  open('b', ['e', 2]);
  begin();
  assert.equal(clients.length, 2);
  assert.deepEqual(client().positions.get('group:news'), ['e', 2]);
  clients[0].message(7); // over the old one, which counts no more
  client().connected(0, 7);
  for (const offset of [3, 4, 5, 6, 7]) client().message(offset);
  assert.deepEqual(heard('a'), [6, 7]);
  assert.deepEqual(heard('b'), [3, 4, 5, 6, 7]);
  assert.equal(clients[0].state, 'closed');
  assert.equal(told.get('a').some(({ type }) => type === 'closed'), false);
});

test('a reset is told to those who are in the old epoch alone', () => {
  open('a', ['e', 40]);
  open('b', ['f', 3]);
  begin();
  client().connected(0, 40);
  // Whichever of the two it began with, both end at the same place.
  if (client().positions.get('group:news')[0] === 'e') client().gap('f', 0);
  begin();
  if (clients.length > 1) {
    client().connected(0, 4);
    if (client().positions.get('group:news')[0] === 'e') client().gap('f', 0);
  }
  for (const offset of [1, 2, 3, 4]) client().message(offset, 'f');
  assert.deepEqual(heard('a'), ['gap f 0', 1, 2, 3, 4]);
  assert.deepEqual(heard('b'), [4]);
});

test('what is put back within an epoch is told to all', () => {
  open('a', ['e', 5]);
  begin();
  client().connected(0, 5);
  client().gap('e', 2);
  client().message(3);
  assert.deepEqual(heard('a'), ['gap e 2', 3]);
});

test('of a gap each tab tells its handlers what it has not heard, from another leader or at all', () => {
  open('a', ['e', 10]);
  open('b', ['e', 13]);
  open('c', ['e', 15]);
  begin();
  client().connected(0, 16);
  client().gap('e', 15, 'expired', 11);
  client().message(16);
  const toldTo = (socket, offset) => {
    const stream = new Stream('group:news');
    stream.at = ['e', offset];
    const items = told.get(socket).flatMap((event) => {
      if (event.type === 'welcome') return stream.begin(event.streams['group:news']);
      return event.type === 'gap' ? stream.gap(event) : stream.message(event);
    });
    return items.map(({ type, event }) => (type === 'gap' ? `gap ${event.from}-${event.to}` : `${type} ${event.offset}`));
  };
  assert.deepEqual(toldTo('a', 10), ['joined 10', 'gap 11-15', 'message 16']);
  assert.deepEqual(toldTo('b', 13), ['joined 13', 'gap 14-15', 'message 16']);
  assert.deepEqual(toldTo('c', 15), ['joined 15', 'message 16']);
});

test('a position that no message has leads to a gap, not to silence', () => {
  open('a');
  begin();
  client().connected(5);
  client().message(6);
  open('b', ['e', 90]);
  client().message(7);
  assert.deepEqual(heard('b'), ['gap e 5', 6, 7]);
  assert.equal(streamsOf('b')['group:news'].recovered, false);
});

test('what cannot be helped by beginning anew ends in a gap, once', () => {
  open('a', ['e', 5]);
  begin();
  client().connected(0, 5);
  open('b', ['old', 1]);
  begin();
  client().connected(0, 5); // it says nothing of the old epoch: a client that is wrong
  client().message(6);
  begin();
  begin();
  assert.ok(clients.length <= 3);
  assert.ok(heard('b').length > 0);
});

test('a welcome waits for the groups, and one that is refused is told behind it', () => {
  open('a', null, 'news,secret');
  begin();
  client().become('connected');
  client().own.onJoined({ epoch: 'e', offset: 0, top: 0 });
  client().everybody.onJoined({ epoch: 'e', offset: 0, top: 0 });
  client().groups.get('news').onJoined({ epoch: 'e', offset: 1, top: 1 });
  assert.equal(streamsOf('a'), undefined);
  client().groups.get('secret').onLeft('not_allowed');
  assert.deepEqual(Object.keys(streamsOf('a')), ['group:news', 'client:alice', 'all']);
  assert.deepEqual(told.get('a').at(-1), { type: 'left', stream: 'group:secret', reason: 'not_allowed' });
  open('b', null, 'secret'); // it is asked for again
  assert.equal(streamsOf('b'), undefined);
  client().groups.get('secret').onJoined({ epoch: 'e', offset: 0, top: 0 });
  assert.ok(streamsOf('b')['group:secret']);
});

test('a group is joined for the first tab and left with the last', () => {
  open('a');
  open('b');
  begin();
  client().connected();
  hub.send('a', '{"type":"leave","id":1,"group":"news"}');
  assert.deepEqual(client().left, []);
  client().message(1);
  assert.deepEqual([heard('a'), heard('b')], [[], [1]]);
  hub.gone('tab b');
  assert.deepEqual(client().left, ['news']);
  hub.send('a', '{"type":"join","id":2,"group":"news"}');
  client().groups.get('news').onJoined({ epoch: 'e', offset: 1, top: 1 });
  assert.deepEqual(told.get('a').at(-1), {
    type: 'reply',
    id: 2,
    stream: 'group:news',
    epoch: 'e',
    offset: 1,
    top: 1,
  });
});

test('answers go back to who asked, errors as well', async () => {
  open('a');
  begin();
  client().connected();
  hub.send('a', '{"type":"ping","id":1}');
  assert.deepEqual(told.get('a').at(-1), { type: 'pong', id: 1, cursor: null });
  hub.send('a', '{"type":"publish","id":2,"group":"news","data":1}');
  await new Promise(setImmediate);
  assert.deepEqual(told.get('a').at(-1), { type: 'error', id: 2, code: 'not_allowed', message: 'no' });
  hub.send('a', '{"type":"dance","id":3}');
  await new Promise(setImmediate);
  assert.equal(told.get('a').at(-1).code, 'unknown_command');
});

test('a cut and an end are told to all, by their code', () => {
  open('a');
  begin();
  client().connected();
  client().become('connecting', { code: 1012, message: 'restart' });
  assert.deepEqual(told.get('a').at(-1), { type: 'closed', code: 1012 });
  open('b'); // waits
  assert.equal(told.get('b').length, 0);
  client().become('closed', { code: 4501, message: '' });
  assert.deepEqual(told.get('b').at(-1), { type: 'closed', code: 4501 });
});
