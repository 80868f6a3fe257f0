/** State, then stream. */

import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import { begun, freeTime, Gateway, holdTime, later, pass, recorder, settled, storage } from './gateway.mjs';

let gateway;
beforeEach(() => {
  holdTime();
  gateway = new Gateway();
});
afterEach(freeTime);

const RETRY = { stream: 'group:news', epoch: 'e' };

/** A client that is welcomed at `at`, whose `state()` waits to be answered: `loads.shift().resolve(…)`. */
async function loading(at = ['e', 10], options = {}) {
  const loads = [];
  const news = recorder({
    state() {
      news.heard.push('state');
      loads.push(later());
      return loads.at(-1).promise;
    },
  });
  let group;
  const tidegate = await gateway.open(options, (client) => {
    group = client.group('news', news);
  });
  await gateway.last.welcome({ 'group:news': at });
  const give = async (result) => {
    const load = loads.shift();
    if (result instanceof Error) load.reject(result);
    else load.resolve(result);
    await settled();
  };
  return { tidegate, group, heard: news.heard, give };
}

test('what comes while the data is loaded is held, and applied behind it', async () => {
  const { heard, give } = await loading();
  await gateway.last.message('group:news', 'e', 11, 12);
  assert.deepEqual(heard, ['joined 10', 'state']);
  await give();
  await gateway.last.message('group:news', 'e', 13);
  assert.deepEqual(heard, ['joined 10', 'state', 11, 12, 13]);
});

test('a function for `state` need give no promise', async () => {
  const news = recorder({ state: () => {} });
  await gateway.open({}, (client) => client.group('news', news));
  await gateway.last.welcome({ 'group:news': ['e', 10] });
  await gateway.last.message('group:news', 'e', 11);
  assert.deepEqual(news.heard, ['joined 10', 11]);
});

test('a position that the server read drops what the data has, also what is still on its way', async () => {
  const { heard, give } = await loading();
  await gateway.last.message('group:news', 'e', 11, 12);
  await give({ position: { epoch: 'e', offset: 13 } });
  await gateway.last.message('group:news', 'e', 13, 14);
  assert.deepEqual(heard, ['joined 10', 'state', 14]);
});

test('a position before that of the join: joined again with it, and what was held is dropped', async () => {
  const { heard, give } = await loading();
  await gateway.last.message('group:news', 'e', 11);
  await give({ position: { epoch: 'e', offset: 8 } });
  const { last } = gateway;
  await last.message('group:news', 'e', 12);
  assert.deepEqual(last.commands, [{ type: 'join', group: 'news', epoch: 'e', offset: 8, id: last.commands[0].id }]);
  await last.answer('join', { ...RETRY, offset: 8, top: 12, recovered: true, missed: 4 });
  await last.message('group:news', 'e', 9, 10, 11, 12);
  assert.deepEqual(heard, ['joined 10', 'state', 'joined 8', 9, 10, 11, 12]);
});

test('a position of another epoch: joined again with it; the gap that this says loads again', async () => {
  const { heard, give } = await loading();
  await give({ position: { epoch: 'old', offset: 8 } });
  await gateway.last.answer('join', { ...RETRY, offset: 10, top: 10, recovered: false, missed: 0 });
  await gateway.last.say({ type: 'gap', ...RETRY, from: null, to: 10, reason: 'reset' });
  await pass(0.5); // not at once: a server that always says so would be asked without end
  assert.deepEqual(heard, ['joined 10', 'state', 'joined 10', 'gap null-10 reset', 'state']);
  await give({ position: { epoch: 'e', offset: 10 } });
  await gateway.last.message('group:news', 'e', 11);
  assert.deepEqual(heard.slice(5), [11]);
});

test('state() that throws is reported, and called again with a growing delay; nothing is lost', async () => {
  const { heard, give } = await loading();
  await give(new Error('500'));
  await gateway.last.message('group:news', 'e', 11);
  await pass(0.5);
  await give(new Error('again'));
  await pass(0.4);
  assert.deepEqual(heard, ['joined 10', 'state', 'error 500', 'state', 'error again']);
  await pass(0.2);
  await give();
  assert.deepEqual(heard.slice(5), ['state', 11]);
});

test('after a gap: what is queued is dealt with, then held, and loaded again', async () => {
  const { heard, give } = await loading();
  await give();
  const { last } = gateway;
  await last.message('group:news', 'e', 11);
  await last.say({ type: 'gap', ...RETRY, from: 12, to: 14, reason: 'expired' });
  await last.message('group:news', 'e', 15);
  assert.deepEqual(heard, ['joined 10', 'state', 11, 'gap 12-14 expired', 'state']);
  await give({ position: { epoch: 'e', offset: 14 } });
  assert.deepEqual(heard.slice(5), [15]);
});

test('a gap while the data is loaded makes the result void; one load at a time', async () => {
  const { heard, give } = await loading();
  const { last } = gateway;
  await last.message('group:news', 'e', 11);
  await last.say({ type: 'gap', ...RETRY, from: 12, to: 14, reason: 'expired' });
  await last.message('group:news', 'e', 15);
  assert.deepEqual(heard, ['joined 10', 'state']);
  await give({ position: { epoch: 'e', offset: 11 } });
  await pass(0.5);
  assert.deepEqual(heard, ['joined 10', 'state', 'gap 12-14 expired', 'state']);
  await give();
  assert.deepEqual(heard.slice(4), [15]);
});

test('a reconnection that recovered loads nothing, one that did not loads again', async () => {
  const { heard, give } = await loading();
  await give();
  await gateway.last.end();
  await pass(1);
  assert.deepEqual(gateway.last.cursor['group:news'], ['e', 10]);
  await gateway.last.welcome({ 'group:news': { epoch: 'e', offset: 10, top: 11, recovered: true, missed: 1 } });
  await gateway.last.message('group:news', 'e', 11);
  assert.deepEqual(heard, ['joined 10', 'state', 'joined 10', 11]);
  await gateway.last.end();
  await pass(1);
  await gateway.last.welcome({ 'group:news': { epoch: 'f', offset: 3, top: 3, recovered: false, missed: 0 } });
  await gateway.last.say({ type: 'gap', stream: 'group:news', epoch: 'f', from: null, to: 3, reason: 'reset' });
  assert.deepEqual(heard.slice(4), ['joined 3', 'gap null-3 reset', 'state']);
});

test('a cut while the data is loaded changes nothing', async () => {
  const { heard, give } = await loading();
  await gateway.last.message('group:news', 'e', 11);
  await gateway.last.end();
  await pass(1);
  assert.deepEqual(gateway.last.cursor['group:news'], ['e', 11]);
  await gateway.last.welcome();
  await gateway.last.message('group:news', 'e', 12);
  await give();
  assert.deepEqual(heard, ['joined 10', 'state', 11, 'joined 11', 12]);
});

test('leave() makes the result void; join() begins anew, when the old one has ended', async () => {
  const { group, heard, give } = await loading();
  const { last } = gateway;
  await last.message('group:news', 'e', 11);
  group.leave();
  await last.answer('leave', { stream: 'group:news' });
  group.join();
  await last.answer('join', { stream: 'group:news', ...begun(['e', 20]) });
  await last.message('group:news', 'e', 21);
  assert.deepEqual(heard, ['joined 10', 'state']);
  await give({ position: { epoch: 'x', offset: 1 } });
  assert.deepEqual(heard, ['joined 10', 'state', 'joined 20', 'state']);
  await give();
  assert.deepEqual(heard.slice(4), [21]);
});

test('removed while the data is loaded: it is told, and the next join loads again', async () => {
  const { heard, give } = await loading();
  const { last } = gateway;
  await last.say({ type: 'left', stream: 'group:news', reason: 'removed' });
  await last.say({ type: 'joined', stream: 'group:news', ...begun(['e', 20]) });
  await give();
  await pass(0.5);
  assert.deepEqual(heard, ['joined 10', 'state', 'left removed', 'joined 20', 'state']);
});

test('more than can be held: all of it is dropped up to the next call, and loaded anew', async () => {
  const { heard, give } = await loading(['e', 10], { queueLimit: 3 });
  const { last } = gateway;
  await last.message('group:news', 'e', 11, 12, 13, 14, 15);
  await give();
  await pass(0.5);
  assert.deepEqual(heard, ['joined 10', 'state', 'state']);
  await last.message('group:news', 'e', 16);
  await give();
  assert.deepEqual(heard.slice(3), [16]);
  assert.equal(last.commands.length, 0);
});

test('a position before what has come takes nothing back', async () => {
  const { heard, give } = await loading();
  await gateway.last.message('group:news', 'e', 11, 12, 13);
  await give({ position: { epoch: 'e', offset: 12 } });
  await gateway.last.message('group:news', 'e', 14);
  assert.deepEqual(heard.slice(2), [13, 14]);
});

test('taken out and brought back: loaded again', async () => {
  const { heard, give } = await loading();
  await give();
  await gateway.last.say({ type: 'left', stream: 'group:news', reason: 'removed' });
  await gateway.last.say({ type: 'joined', stream: 'group:news', ...begun(['e', 20]) });
  assert.deepEqual(heard, ['joined 10', 'state', 'left removed', 'joined 20', 'state']);
});

test('over the limit, and then all that waited is in the data: it goes on behind that', async () => {
  const work = later();
  const loads = [];
  await gateway.open({ queueLimit: 4 }, (client) =>
    client.group('news', {
      onMessage: () => work.promise,
      state() {
        loads.push(later());
        if (loads.length === 1) loads[0].resolve();
        return loads.at(-1).promise;
      },
    }),
  );
  const { last } = gateway;
  await last.welcome({ 'group:news': ['e', 10] });
  await last.message('group:news', 'e', 11, 12);
  await last.say({ type: 'gap', ...RETRY, from: 13, to: 14, reason: 'expired' });
  await last.message('group:news', 'e', 15, 16, 17, 18);
  work.resolve();
  await settled();
  assert.equal(loads.length, 2);
  assert.equal(last.commands.length, 0);
  loads[1].resolve({ position: { epoch: 'e', offset: 20 } });
  await settled();
  assert.deepEqual(last.commands.map(({ type, offset }) => [type, offset]), [['join', 20]]);
});

test('it begins without a stored position, and also for the own stream', async () => {
  const kept = storage({ v: 1, client: 'alice', positions: { 'group:news': ['e', 5], 'client:alice': ['e', 1] } });
  const own = recorder({ state: () => own.heard.push('state') });
  const news = recorder({ state: () => {} });
  await gateway.open({ storage: kept }, (client) => {
    client.group('news', news);
    client.direct(own);
  });
  assert.deepEqual(gateway.last.groups, ['news']);
  await gateway.last.welcome({ 'group:news': ['e', 10], 'client:alice': ['e', 3] });
  await gateway.last.message('client:alice', 'e', 4);
  assert.deepEqual(own.heard, ['joined 3', 'state', 4]);
});

test('a handler that is at work when a gap comes has its turn first', async () => {
  const work = later();
  const heard = [];
  await gateway.open({}, (client) =>
    client.group('news', {
      onMessage: ({ offset }) => {
        heard.push(offset);
        return work.promise;
      },
      onGap: () => heard.push('gap'),
      state: () => heard.push('state'),
    }),
  );
  await gateway.last.welcome({ 'group:news': ['e', 10] });
  await gateway.last.message('group:news', 'e', 11);
  await gateway.last.say({ type: 'gap', ...RETRY, from: 12, to: 14, reason: 'expired' });
  assert.deepEqual(heard, ['state', 11]);
  work.resolve();
  await settled();
  assert.deepEqual(heard, ['state', 11, 'gap', 'state']);
});
