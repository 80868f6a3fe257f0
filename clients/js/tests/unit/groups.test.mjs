/** Groups that are joined, left and refused: 8 of the machine. */

import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import { begun, freeTime, Gateway, holdTime, pass, recorder, settled, storage, worker } from './gateway.mjs';

let gateway;
beforeEach(() => {
  holdTime();
  gateway = new Gateway();
});
afterEach(freeTime);

test('a group that is refused is told once, is left out of the next attempt, and join() asks again', async () => {
  const { heard, group, tidegate } = await gateway.following(['e', 10]);
  const second = await gateway.again();
  await second.welcome({ 'group:news': null });
  assert.equal(second.commands.length, 0);
  let ready = false;
  tidegate.ready().then(() => (ready = true));
  await settled();
  assert.equal(ready, false);
  await second.say({ type: 'left', stream: 'group:news', reason: 'not_allowed' });
  assert.equal(ready, true);
  const third = await gateway.again();
  assert.equal(third.cursor['group:news'], undefined);
  assert.deepEqual(third.groups, []);
  await third.welcome();
  group.join();
  assert.deepEqual(third.commands.map(({ type, offset }) => [type, offset]), [['join', undefined]]);
  await third.answer('join', 'not_allowed');
  group.join();
  await third.answer('join', { stream: 'group:news', ...begun(['e', 12]) });
  assert.deepEqual(heard, ['left not_allowed', 'left not_allowed', 'joined 12']);
});

test('what the application takes out it may bring back', async () => {
  const { heard } = await gateway.following();
  const { last } = gateway;
  await last.message('group:news', 'e', 11);
  await last.say({ type: 'left', stream: 'group:news', reason: 'removed' });
  await last.message('group:news', 'e', 12);
  await last.say({ type: 'joined', stream: 'group:news', ...begun(['e', 20]) });
  await last.message('group:news', 'e', 21);
  assert.deepEqual(heard, [11, 'left removed', 'joined 20', 21]);
});

test('a join that may succeed later is repeated', async () => {
  const heard = recorder();
  const tidegate = await gateway.open();
  await gateway.last.welcome();
  tidegate.group('news', heard);
  await gateway.last.answer('join', 'broker_down');
  await pass(0.5);
  assert.equal(gateway.last.commands.length, 2);
  await gateway.last.answer('join', { stream: 'group:news', ...begun(['e', 1]) });
  assert.deepEqual(heard.heard, ['joined 1']);
});

test('after leave() nothing reaches a handler, also what was queued or is on its way', async () => {
  const kept = storage();
  const { begun: heard, done, onMessage } = worker();
  const { group } = await gateway.following(['e', 0], { storage: kept }, { onMessage, onLeft: () => heard.push('left') });
  const { last } = gateway;
  await last.message('group:news', 'e', 1, 2);
  group.leave();
  await last.message('group:news', 'e', 3);
  await last.say({ type: 'gap', stream: 'group:news', epoch: 'e', from: 4, to: 5, reason: 'expired' });
  await last.answer('leave', { stream: 'group:news' });
  await done();
  await pass(1);
  assert.deepEqual(heard, [1]);
  assert.equal(kept.positions?.['group:news'], undefined);
});

test('leave() inside the handler ends it there; join inside it begins anew', async () => {
  const heard = [];
  let group;
  const tidegate = await gateway.open({}, (client) => {
    group = client.group('news', ({ offset }) => {
      heard.push(offset);
      if (offset === 1) group.leave();
      if (offset === 1) group.join();
    });
  });
  await gateway.last.welcome();
  await gateway.last.message('group:news', 'e', 1, 2);
  const { last } = gateway;
  assert.deepEqual(last.commands.map(({ type }) => type), ['leave']);
  await last.answer('leave', { stream: 'group:news' });
  await last.answer('join', { stream: 'group:news', ...begun(['e', 2]) });
  await last.message('group:news', 'e', 3);
  assert.deepEqual(heard, [1, 3]);
  assert.equal(tidegate.state, 'connected');
});

test('join, leave, join: one command at a time, and what was wished last', async () => {
  const news = recorder();
  const tidegate = await gateway.open();
  await gateway.last.welcome();
  const { last } = gateway;
  const group = tidegate.group('news', news);
  group.leave();
  group.join();
  assert.deepEqual(last.commands.map(({ type }) => type), ['join']);
  await last.answer('join', { stream: 'group:news', ...begun(['e', 1]) });
  await last.message('group:news', 'e', 2);
  assert.deepEqual(last.commands.map(({ type }) => type), ['join', 'join']);
  await last.answer('join', { stream: 'group:news', ...begun(['e', 2]) });
  await last.message('group:news', 'e', 3);
  assert.deepEqual(news.heard, ['joined 2', 3]);

  group.leave();
  assert.equal(last.commands.at(-1).type, 'leave');
  group.join();
  group.leave();
  await last.answer('leave', { stream: 'group:news' });
  assert.equal(last.commands.length, 3);
  group.join();
  assert.equal(last.commands.length, 4);
});

test('a group that was left is left again when a lasting membership brings it back', async () => {
  const { group, heard } = await gateway.following();
  group.leave();
  await gateway.last.answer('leave', { stream: 'group:news' });
  const second = await gateway.again();
  assert.deepEqual(second.groups, []);
  await second.welcome({ 'group:news': ['e', 12] });
  await second.message('group:news', 'e', 13);
  assert.deepEqual(second.commands.map(({ type }) => type), ['leave']);
  await second.answer('leave', { stream: 'group:news' });
  assert.deepEqual(heard, []);
});

test('a subscription that was left long ago can be joined again', async () => {
  const { group, heard } = await gateway.following();
  group.leave();
  await gateway.last.answer('leave', { stream: 'group:news' });
  await (await gateway.again()).welcome();
  group.join();
  await gateway.last.answer('join', { stream: 'group:news', ...begun(['e', 20]) });
  await gateway.last.message('group:news', 'e', 21);
  assert.deepEqual(heard, ['joined 20', 21]);
  assert.equal(group.joined, true);
});

test('a reconnection goes on with the wishes of that moment, whatever was under way', async () => {
  const news = recorder();
  const chat = recorder();
  const tidegate = await gateway.open({}, (client) => (client.news = client.group('news', news)));
  await gateway.last.welcome();
  tidegate.news.leave();
  tidegate.group('chat', chat);
  const second = await gateway.again();
  assert.deepEqual(second.groups, ['chat']);
  assert.deepEqual(Object.keys(second.cursor ?? {}).filter((name) => name.startsWith('group:')), []);
  tidegate.group('more', chat);
  tidegate.leave('chat');
  await second.welcome();
  assert.deepEqual(second.commands.map(({ type, group }) => `${type} ${group}`), ['leave chat', 'join more']);
});

test('what is not known is passed over', async () => {
  const { heard, tidegate } = await gateway.following();
  const { last } = gateway;
  await last.say('pong', 'Pong', '[1]', 'null', '{"newer":1}', '{"type":7}', '{"type":"newer","stream":"group:news"}', '{');
  await last.say({ type: 'reply', id: 999 }, { type: 'error', id: null, code: 'bad_request', message: '' });
  await last.say({ type: 'message', stream: 'group:other', epoch: 'e', offset: 1, data: 1 });
  await last.say({ type: 'message', stream: 'group:news', epoch: 'e', offset: 11, time: 1, data: 1, newer: 1 });
  assert.deepEqual(heard, [11]);
  assert.equal(tidegate.state, 'connected');
});
