/** Commands at a cut, their deadlines and sizes: 9 and 10 of the machine. */

import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import { TidegateError, UnknownOutcome } from '../../src/index.js';
import { freeTime, Gateway, holdTime, pass, settled, sleep } from './gateway.mjs';

let gateway;
beforeEach(() => {
  holdTime();
  gateway = new Gateway();
});
afterEach(freeTime);

test('answers are given without their envelope, errors with their code', async () => {
  const tidegate = await gateway.open();
  await gateway.last.welcome();
  const call = tidegate.call('orders.create', { n: 1 });
  const refused = assert.rejects(tidegate.history('news'), (error) => error instanceof TidegateError && error.code === 'not_allowed');
  await settled();
  assert.deepEqual(gateway.last.commands.map(({ id, ...rest }) => rest), [
    { type: 'call', method: 'orders.create', data: { n: 1 } },
    { type: 'history', group: 'news' },
  ]);
  await gateway.last.answer('history', 'not_allowed');
  await gateway.last.answer('call', { status: 201, data: { type: 'x', id: 9 } });
  assert.deepEqual(await call, { status: 201, data: { type: 'x', id: 9 } });
  assert.deepEqual(await tidegate.ping(), { cursor: null });
  await refused;
});

test('a cut: what may be sent twice is sent again, the same bytes; the rest is unknown', async () => {
  const tidegate = await gateway.open();
  const first = gateway.last;
  await first.welcome();
  first.mute = true;
  const unknown = [
    tidegate.call('echo', 1),
    tidegate.ping(),
    tidegate.publish('news', 1, { key: false }),
  ].map((outcome) => assert.rejects(outcome, (error) => error instanceof UnknownOutcome && error.code === 'unknown_outcome'));
  const publish = tidegate.publish('news', { b: 1, a: 'ä' });
  const history = tidegate.history('news', { position: { epoch: 'e', offset: 3 }, limit: 2 });
  const presence = tidegate.presence('news');
  await settled();
  const sent = first.sent.slice();
  await first.end();
  await Promise.all(unknown);
  await pass(1);
  await gateway.last.welcome();
  assert.deepEqual(gateway.last.sent, sent.filter((text) => /history|presence|"key"/.test(text)));
  for (const type of ['publish', 'history', 'presence']) await gateway.last.answer(type, { offset: 1 });
  assert.deepEqual(await Promise.all([publish, history, presence]), [{ offset: 1 }, { offset: 1 }, { offset: 1 }]);
});

test('keys are all different, and one may give one', async () => {
  const tidegate = await gateway.open();
  freeTime();
  await gateway.last.welcome();
  for (let n = 0; n < 3; n++) tidegate.publish('news', n).catch(() => {});
  tidegate.publish('news', 1, { key: 'mine' }).catch(() => {});
  await settled();
  const keys = gateway.last.commands.map(({ key }) => key);
  assert.equal(new Set(keys).size, 4);
  assert.match(keys[0], /^[\w-]{25,128}$/);
  assert.equal(keys[3], 'mine');
  tidegate.close();
});

test('one deadline each, whether it waits for a connection or for an answer', async () => {
  const tidegate = await gateway.open({ answerTimeout_s: 3, welcomeTimeout_s: 60 });
  const waits = assert.rejects(tidegate.call('echo', 1), { code: 'timeout' });
  await pass(2);
  const sent = assert.rejects(tidegate.call('echo', 2), { code: 'timeout' });
  await pass(1.5);
  await waits;
  await gateway.last.welcome();
  assert.deepEqual(gateway.last.commands.map(({ data }) => data), [2]);
  await pass(2);
  await sent;
  await gateway.last.answer('call', { status: 200, data: 2 }); // too late, and to nobody
});

test('a program that stood still reads the answer before it judges', async () => {
  const tidegate = await gateway.open();
  await gateway.last.welcome();
  const call = tidegate.call('echo', 1);
  await settled();
  await sleep(60);
  await gateway.last.answer('call', { status: 200, data: 1 });
  assert.equal((await call).status, 200);
});

test('what is too large is not sent', async () => {
  const tidegate = await gateway.open();
  const big = { code: 'too_large' };
  await assert.rejects(tidegate.publish('news', 'x'.repeat(65535)), big);
  await assert.rejects(tidegate.call('echo', '€'.repeat(22_000)), big);
  tidegate.publish('news', 'x'.repeat(65534)).catch(() => {});
  await gateway.last.welcome({}, { limits: { data_bytes: 10, message_bytes: 200, groups: 100, newer: 1 } });
  await assert.rejects(tidegate.call('echo', '12345678901'), big);
  await assert.rejects(tidegate.refresh('x'.repeat(200)), big);
  tidegate.call('echo', '12345678').catch(() => {});
  await settled();
  assert.deepEqual(gateway.last.commands.map(({ type }) => type), ['publish', 'call']);
});

test('what cannot be sent is refused: names, values that are no JSON', async () => {
  const tidegate = await gateway.open();
  await assert.rejects(tidegate.publish('a b', 1), { code: 'bad_request' });
  await assert.rejects(tidegate.presence(), { code: 'bad_request' });
  await assert.rejects(tidegate.call('echo', 1n), TypeError);
  await gateway.last.welcome();
  tidegate.call('echo').catch(() => {});
  await settled();
  assert.equal(gateway.last.commands.at(-1).data, null);
});

test('disconnect: what was sent ends as at a cut, the rest waits; close ends all', async () => {
  const tidegate = await gateway.open();
  await gateway.last.welcome();
  const unknown = assert.rejects(tidegate.call('echo', 1), { code: 'unknown_outcome' });
  await settled();
  tidegate.disconnect();
  await unknown;
  const closed = [tidegate.call('echo', 2), tidegate.history('news')].map((outcome) => assert.rejects(outcome, { code: 'closed' }));
  await settled();
  tidegate.close();
  await Promise.all(closed);
  await assert.rejects(tidegate.ping(), { code: 'closed' });
});

test('a subscription speaks for its group', async () => {
  let group;
  const tidegate = await gateway.open({}, (client) => {
    group = client.group('news', () => {});
  });
  await gateway.last.welcome();
  group.publish(1, { key: 'k' }).catch(() => {});
  group.history({ limit: 0 }).catch(() => {});
  group.presence().catch(() => {});
  await settled();
  assert.deepEqual(gateway.last.commands.map(({ id, ...rest }) => rest), [
    { type: 'publish', group: 'news', data: 1, key: 'k' },
    { type: 'history', group: 'news', limit: 0 },
    { type: 'presence', group: 'news' },
  ]);
  assert.deepEqual([group.name, group.stream, group.joined], ['news', 'group:news', true]);
  tidegate.close();
  assert.equal(group.joined, false);
});
