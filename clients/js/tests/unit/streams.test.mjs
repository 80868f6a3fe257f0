/** Positions, handlers and cursors: 4 to 7 of the machine. */

import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import { begun, freeTime, Gateway, holdTime, pass, recorder, settled, storage, worker } from './gateway.mjs';

let gateway;
beforeEach(() => {
  holdTime();
  gateway = new Gateway();
});
afterEach(freeTime);

test('duplicates are dropped and counted, a hole is told before what comes behind it', async () => {
  const { heard, group } = await gateway.following();
  await gateway.last.message('group:news', 'e', 11, 11, 10, 3, 12, 15, 14, 16);
  assert.deepEqual(heard, [11, 12, 'gap 13-14 hole', 15, 16]);
  assert.equal(group.duplicates, 4);
});

test('another epoch without a word is a gap', async () => {
  const { heard } = await gateway.following();
  await gateway.last.message('group:news', 'f', 7, 8);
  assert.deepEqual(heard, ['gap null-6 reset', 7, 8]);
});

test('after a gap the position is its epoch and to, also where that is lower', async () => {
  const { heard, tidegate } = await gateway.following();
  await gateway.last.say({ type: 'gap', stream: 'group:news', epoch: 'e', from: 11, to: 20, reason: 'newer' });
  await gateway.last.message('group:news', 'e', 21);
  await gateway.last.say({ type: 'gap', stream: 'group:news', epoch: 'e', from: null, to: 2, reason: 'reset' });
  assert.deepEqual(tidegate.positions['group:news'], ['e', 2]);
  await gateway.last.message('group:news', 'e', 3);
  assert.deepEqual(heard, ['gap 11-20 newer', 21, 'gap null-2 reset', 3]);
});

test('to: null leaves the next offset open', async () => {
  const { heard, tidegate } = await gateway.following();
  await gateway.last.say({ type: 'gap', stream: 'group:news', epoch: 'f', from: null, to: null, reason: 'reset' });
  assert.deepEqual(tidegate.positions['group:news'], ['f', 0]);
  await gateway.last.message('group:news', 'f', 5, 5, 7);
  assert.deepEqual(heard, ['gap null-null reset', 5, 'gap 6-6 hole', 7]);
});

test('offsets go up to 2^53', async () => {
  const { heard, tidegate } = await gateway.following(['e', 2 ** 53 - 2]);
  await gateway.last.message('group:news', 'e', 2 ** 53 - 1, 2 ** 53);
  assert.deepEqual(heard, [2 ** 53 - 1, 2 ** 53]);
  assert.deepEqual((await gateway.again()).cursor['group:news'], ['e', 2 ** 53]);
  assert.equal(tidegate.state, 'connecting');
});

test('a welcome that begins further on, or in another epoch, without saying so is a gap', async () => {
  const { heard } = await gateway.following();
  const second = await gateway.again();
  await second.welcome({ 'group:news': begun(['e', 12], { recovered: true, missed: 0 }) });
  const third = await gateway.again();
  await third.welcome({ 'group:news': begun(['f', 3], { recovered: true, missed: 0 }) });
  assert.deepEqual(heard, ['joined 12', 'gap 11-12 hole', 'joined 3', 'gap null-3 reset']);
});

test('at offset 0 the epoch may be another one: nothing had been said', async () => {
  const { heard } = await gateway.following(['common', 0]);
  await (await gateway.again()).welcome({ 'group:news': begun(['e', 0], { recovered: true, missed: 1 }) });
  await gateway.last.message('group:news', 'e', 1);
  assert.deepEqual(heard, ['joined 0', 1]);
});

test('what was missed is known by the top of the welcome', async () => {
  const missed = [];
  const { tidegate } = await gateway.following(['e', 10], {}, { onMessage: ({ missed: it, group, stream }) => missed.push([group, stream, it]) });
  const start = { epoch: 'e', offset: 10, top: 11, recovered: true, missed: 1 };
  await (await gateway.again()).welcome({ 'group:news': start });
  await gateway.last.message('group:news', 'e', 11, 12);
  assert.deepEqual(missed, [['news', 'group:news', true], ['news', 'group:news', false]]);
  assert.equal(tidegate.state, 'connected');
});

test('handlers of a subscription run one after the other, and others do not wait for them', async () => {
  const { begun: running, done, onMessage } = worker();
  const other = recorder();
  const { tidegate } = await gateway.following(['e', 0], {}, { onMessage });
  tidegate.direct(other);
  await gateway.last.message('group:news', 'e', 1, 2);
  await gateway.last.message('client:alice', 'e', 1);
  assert.deepEqual(running, [1]);
  assert.deepEqual(other.heard, ['joined 0', 1]);
  await done(new Error('late'));
  assert.deepEqual(running, [1, 2]);
});

test('a handler that throws has dealt with its message, and where it is reported', async () => {
  const kept = storage();
  const errors = [];
  const { tidegate, heard } = await gateway.following(['e', 0], { storage: kept }, {
    onMessage: ({ offset }) => {
      if (offset === 1) throw new Error('now');
      return Promise.reject(new Error('later'));
    },
  });
  await gateway.last.message('group:news', 'e', 1, 2);
  assert.deepEqual(heard, ['error now', 'error later']);
  tidegate.on('error', (error) => errors.push(error.message));
  tidegate.all(() => {
    throw new Error('no onError');
  });
  tidegate.direct({ onMessage: () => Promise.reject(new Error('first')), onError: () => { throw new Error('second'); } });
  await gateway.last.message('all', 'e', 1);
  await gateway.last.message('client:alice', 'e', 1);
  assert.deepEqual(errors, ['no onError', 'second']);
  await pass(0.5);
  assert.deepEqual(kept.positions['group:news'], ['e', 2]);
});

test('a cut while a handler is at work repeats nothing', async () => {
  const kept = storage();
  const { begun: heard, done, onMessage } = worker();
  const { tidegate } = await gateway.following(['e', 0], { storage: kept }, { onMessage });
  await gateway.last.message('group:news', 'e', 1, 2);
  const second = await gateway.again();
  assert.deepEqual(second.cursor['group:news'], ['e', 2]);
  assert.deepEqual(kept.positions['group:news'], ['e', 0]);
  await second.welcome();
  await second.message('group:news', 'e', 3);
  for (let n = 0; n < 3; n++) await done();
  await pass(1);
  assert.deepEqual(heard, [1, 2, 3]);
  assert.deepEqual(kept.positions['group:news'], ['e', 3]);
  assert.equal(tidegate.state, 'connected');
});

test('over the limit a group is left to the journal, and joined again behind what was received', async () => {
  const { begun: heard, done, onMessage } = worker();
  await gateway.following(['e', 0], { queueLimit: 4 }, { onMessage });
  const { last } = gateway;
  await last.message('group:news', 'e', 1, 2, 3, 4, 5, 6, 7);
  await done();
  await done();
  assert.equal(last.commands.length, 0);
  await done();
  assert.deepEqual(last.commands, [{ type: 'join', group: 'news', epoch: 'e', offset: 5, id: last.commands[0]?.id }]);
  await last.message('group:news', 'e', 8);
  await last.answer('join', { stream: 'group:news', epoch: 'e', offset: 5, top: 8, recovered: true, missed: 3 });
  for (const offset of [6, 7, 8]) {
    await last.message('group:news', 'e', offset);
    await done();
  }
  for (let n = 0; n < 3; n++) await done();
  assert.deepEqual(heard, [1, 2, 3, 4, 5, 6, 7, 8]);
});

test('a cut while a stream is over the limit leaves it out, until there is room', async () => {
  const { begun: heard, done, onMessage } = worker();
  await gateway.following(['e', 0], { queueLimit: 2 }, { onMessage });
  await gateway.last.message('group:news', 'e', 1, 2, 3, 4);
  const second = await gateway.again();
  assert.equal(second.cursor['group:news'], undefined);
  assert.deepEqual(second.groups, []);
  await second.welcome();
  assert.equal(second.commands.length, 0);
  for (let n = 0; n < 3; n++) await done();
  assert.deepEqual([second.commands[0].type, second.commands[0].offset], ['join', 3]);
  await second.answer('join', { stream: 'group:news', ...begun(['e', 3], { recovered: true, missed: 1 }) });
  await second.message('group:news', 'e', 4);
  assert.deepEqual(heard, [1, 2, 3, 4]);
});

test('over the limit in the own stream the client connects again, beside the connection', async () => {
  const { begun: heard, done, onMessage } = worker();
  const tidegate = await gateway.open({ queueLimit: 2 }, (client) => client.direct(onMessage));
  await gateway.last.welcome();
  await gateway.last.message('client:alice', 'e', 1, 2, 3, 4);
  assert.equal(gateway.sockets.length, 1);
  for (let n = 0; n < 3; n++) await done();
  assert.equal(gateway.sockets.length, 2);
  assert.deepEqual(gateway.last.cursor['client:alice'], ['e', 3]);
  await gateway.last.welcome();
  await gateway.last.message('client:alice', 'e', 4, 5);
  await done();
  assert.deepEqual(heard, [1, 2, 3, 4, 5]);
  assert.equal(gateway.sockets[0].closed, 1000);
  assert.deepEqual(tidegate.heard, ['connecting', 'connected']);
});

test('a lasting group whose handler comes later goes on from where it was first told', async () => {
  const news = recorder();
  const joined = [];
  const tidegate = await gateway.open({}, (client) => client.on('joined', ({ group }) => joined.push(group)));
  await gateway.last.welcome({ 'group:news': ['e', 10] });
  await gateway.last.message('group:news', 'e', 11, 12);
  const second = await gateway.again();
  assert.equal(second.cursor['group:news'], undefined);
  await second.welcome({ 'group:news': ['e', 12] });
  await second.say({ type: 'joined', stream: 'group:vip', ...begun(['e', 3]) });
  assert.deepEqual(joined, ['vip']);
  tidegate.group('news', news);
  tidegate.group('vip', news);
  assert.deepEqual(second.commands.map(({ group, offset }) => [group, offset]), [['news', 10], ['vip', 3]]);
  await second.message('group:news', 'e', 13);
  await second.say({ type: 'reply', id: second.commands[0].id, stream: 'group:news', epoch: 'e', offset: 10, top: 13, recovered: true, missed: 3 });
  await second.message('group:news', 'e', 11, 12, 13);
  assert.deepEqual(news.heard, ['joined 10', 11, 12, 13]);
});

test('the own stream whose handler comes later: nothing was dropped, or the client connects again', async () => {
  const all = recorder();
  const direct = recorder();
  const tidegate = await gateway.open();
  await gateway.last.welcome();
  await gateway.last.message('client:alice', 'e', 1);
  tidegate.all(all);
  await settled();
  assert.equal(gateway.sockets.length, 1);
  assert.deepEqual(all.heard, ['joined 0']);
  tidegate.direct(direct);
  await settled();
  assert.equal(gateway.sockets.length, 2);
  assert.deepEqual(gateway.last.cursor, { 'client:alice': ['e', 0], all: ['e', 0] });
  await gateway.last.welcome();
  await gateway.last.message('client:alice', 'e', 1);
  assert.deepEqual(direct.heard, ['joined 0', 1]);
});

test('who leaves the own stream and comes again begins there, without a new connection', async () => {
  const first = recorder();
  const second = recorder();
  const tidegate = await gateway.open({}, (client) => (client.first = client.direct(first)));
  await gateway.last.welcome();
  await gateway.last.message('client:alice', 'e', 1);
  tidegate.first.leave();
  await gateway.last.message('client:alice', 'e', 2);
  tidegate.direct(second);
  await gateway.last.message('client:alice', 'e', 3);
  assert.deepEqual(first.heard, ['joined 0', 1]);
  assert.deepEqual(second.heard, ['joined 2', 3]);
  assert.equal(gateway.sockets.length, 1);
  assert.throws(() => tidegate.first.join(), /has a subscription already/);
});

test('a stream has one subscription at a time', async () => {
  const { tidegate } = await gateway.following();
  assert.throws(() => tidegate.group('news', () => {}), /news has a subscription already/);
});

test('a cursor that would be too long: own streams first, the rest joined with positions, over further cuts', async () => {
  const heard = new Map();
  const names = Array.from({ length: 60 }, (_, n) => `${n}-`.padEnd(100, 'x'));
  const tidegate = await gateway.open({}, (client) => {
    for (const name of names) client.group(name, ({ offset }) => heard.set(name, [...(heard.get(name) ?? []), offset]));
    client.direct(() => {});
    client.all(() => {});
  });
  const { last } = gateway;
  assert.ok(last.url.length < 6200);
  assert.ok(last.groups.length > 50);
  await last.welcome();
  const late = last.commands.filter(({ type }) => type === 'join');
  assert.deepEqual(late.map(({ group }) => group), names.slice(last.groups.length));
  for (const { group, id } of late) await last.say({ type: 'reply', id, stream: `group:${group}`, ...begun(['e', 0]) });
  for (const name of names) await last.message(`group:${name}`, 'e', 1);

  for (let cut = 2; cut < 5; cut++) {
    const next = await gateway.again();
    const carried = Object.keys(next.cursor);
    assert.deepEqual(carried.slice(0, 2), ['client:alice', 'all']);
    assert.ok(next.query.get('cursor').length <= 4096 && next.query.get('cursor').length > 3900);
    assert.deepEqual(next.groups, []);
    const left = names.filter((name) => !carried.includes(`group:${name}`));
    // One of them is brought by a lasting membership all the same, from now on.
    await next.welcome({ [`group:${left[0]}`]: ['e', cut] });
    assert.deepEqual(next.commands.map(({ group, epoch, offset }) => [group, epoch, offset]).sort(), left.map((name) => [name, 'e', cut - 1]).sort());
    await next.message(`group:${left[0]}`, 'e', cut + 1);
    for (const { group, id } of next.commands)
      await next.say({ type: 'reply', id, stream: `group:${group}`, epoch: 'e', offset: cut - 1, top: cut, recovered: true, missed: 1 });
    for (const name of names) await next.message(`group:${name}`, 'e', cut);
  }
  assert.deepEqual([...heard.values()], names.map(() => [1, 2, 3, 4]));
  assert.equal(tidegate.state, 'connected');
});

test('a cut before those joins are answered keeps their positions', async () => {
  const names = Array.from({ length: 40 }, (_, n) => `${n}-`.padEnd(120, 'x'));
  const tidegate = await gateway.open({}, (client) => {
    for (const name of names) client.group(name, () => {});
  });
  await gateway.last.welcome();
  for (const { group, id } of gateway.last.commands) await gateway.last.say({ type: 'reply', id, stream: `group:${group}`, ...begun(['e', 0]) });
  const before = tidegate.positions;
  await (await gateway.again()).welcome();
  await (await gateway.again()).welcome();
  assert.deepEqual(tidegate.positions, before);
  assert.equal(Object.keys(before).length, 42);
});

test('no more groups in a handshake than a connection may have; the gateway says what becomes of the rest', async () => {
  const limits = { groups: 3, data_bytes: 65536, message_bytes: 131072 };
  const tidegate = await gateway.open();
  await gateway.last.welcome({}, { limits });
  for (let n = 0; n < 5; n++) tidegate.group(`g${n}`, () => {});
  const second = await gateway.again();
  assert.deepEqual(second.groups, ['g0', 'g1', 'g2']);
  await second.welcome({}, { limits });
  assert.deepEqual(second.commands.map(({ group }) => group), ['g3', 'g4']);
  for (const { group, id } of second.commands) await second.say({ type: 'reply', id, stream: `group:${group}`, ...begun(['e', 0]) });
  const third = await gateway.again();
  assert.deepEqual(Object.keys(third.cursor), ['client:alice', 'all', 'group:g0', 'group:g1', 'group:g2']);
  assert.deepEqual(third.groups, []);
});

test('what was over the limit for one user is not for the next', async () => {
  const { begun: heard, onMessage } = worker();
  const tidegate = await gateway.open({ client: undefined, queueLimit: 1 }, (client) => client.group('news', { onMessage }));
  await gateway.last.welcome();
  await gateway.last.message('group:news', 'e', 1, 2, 3);
  await (await gateway.again()).welcome({ 'group:news': ['e', 7] }, { client: 'bob' });
  assert.equal(tidegate.client, 'bob');
  assert.deepEqual(heard, [1]);
  assert.deepEqual(tidegate.positions['group:news'], ['e', 7]);
  await gateway.last.message('group:news', 'e', 8);
  assert.deepEqual(tidegate.positions['group:news'], ['e', 8]);
});
