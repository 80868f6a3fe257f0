/** tests/vectors/protocol.json, through the library. */

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { afterEach, test } from 'node:test';
import { Tidegate } from '../../src/index.js';
import { decodeCursor, encodeCursor } from '../../src/cursor.js';
import { freeTime, Gateway, holdTime, later, pass, settled, storage } from './gateway.mjs';

const VECTORS = JSON.parse(readFileSync(new URL('../../../../tests/vectors/protocol.json', import.meta.url)));

afterEach(freeTime);

test('cursors', () => {
  for (const { positions, cursor } of VECTORS.cursors) {
    const token = encodeCursor(new Map(Object.entries(positions)));
    if (cursor === null) assert.equal(token, null);
    else {
      assert.deepEqual(Object.fromEntries(decodeCursor(cursor)), positions);
      assert.equal(token, cursor);
    }
  }
});

const ROUNDED = 'eyJhbGwiOlsiazNmOSIsOTAwNzE5OTI1NDc0MDk5M119'; // 2^53 + 1, which JSON.parse makes 2^53

test('not_cursors', () => {
  for (const token of VECTORS.not_cursors) if (token !== ROUNDED) assert.equal(decodeCursor(token), null, token);
});

for (const { code, again, delay, first } of VECTORS.closes) {
  test(`closes: ${code}`, async () => {
    holdTime();
    const gateway = new Gateway();
    let tokens = 0;
    const tidegate = await gateway.open({ token: () => `t${++tokens}`, backoff_s: [1, 1] });
    const comesAfter = async (seconds) => {
      const { length } = gateway.sockets;
      await pass(seconds - 0.1);
      assert.equal(gateway.sockets.length, length, 'too early');
      await pass(0.2);
      assert.equal(gateway.sockets.length, length + 1, 'too late');
    };
    await gateway.last.welcome();
    await gateway.last.end(code);
    if (!again) {
      await pass(120);
      assert.equal(gateway.sockets.length, 1);
      assert.equal(tidegate.state, 'closed');
      return;
    }
    assert.equal(tidegate.state, 'connecting');
    // Math.random() is 0.5
    if (first === 'token') {
      await pass(0.001);
      assert.equal(tokens, 2);
      await gateway.last.welcome();
      await gateway.last.end(code);
    }
    await comesAfter({ growing: 0.5, random: 2.5, longer: 45 }[delay]);
  });
}

test('refusals: a page is told of none, so that each is a cut, after which it comes again', async () => {
  for (const { status } of VECTORS.refusals) {
    let knocks = 0;
    const again = later();
    const server = createServer();
    server.on('upgrade', (_, socket) => {
      socket.write(`HTTP/1.1 ${status} No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n`);
      socket.destroySoon();
      if (++knocks === 2) again.resolve();
    });
    await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
    const url = `ws://127.0.0.1:${server.address().port}/`;
    const tidegate = new Tidegate(url, { client: 'alice', backoff_s: [0.001, 0.001] });
    await again.promise;
    assert.equal(tidegate.state, 'connecting');
    tidegate.close();
    server.close();
  }
});

const groupsIn = (event) =>
  [...Object.keys(event.streams ?? {}), ...(event.type === 'joined' ? [event.stream] : [])]
    .filter((stream) => stream.startsWith('group:'))
    .map((stream) => stream.slice(6));

const read = (text) => {
  try {
    return JSON.parse(text);
  } catch {
    return {};
  }
};

/** Joins that go somewhere: `{group, at, before}`, where the client stood before. */
function moves(steps) {
  const found = [];
  let positions = {};
  for (const { sent, cursor } of steps) {
    positions = cursor ?? positions;
    const { type, group, epoch, offset } = read(sent ?? '');
    if (type === 'join' && epoch) found.push({ group, at: [epoch, offset], before: positions[`group:${group}`] });
  }
  return found;
}

/** An address so long that the longest cursor of these steps finds room in the request's target, and no more. */
function addressFor(steps) {
  const lengths = steps.map(({ opened }) => opened?.cursor?.length ?? 0);
  const longest = Math.max(...lengths.slice(1));
  const path = longest > 0 ? 6144 - longest - ',client=alice,?&cursor=&groups='.length : 4;
  return `ws://gateway/${'p'.repeat(path - 2)}/`;
}

/**
 * Plays one vector. What the vector's client sends is asked of the library in its own words; joins that follow from what
 * was joined before it must send by itself.
 */
class Played {
  gateway = new Gateway();
  ids = new Map(); // the vector's ids -> those that the library chose
  groups = new Set(); // that have a subscription
  open = new Set(); // streams of which it is not settled where the client stands: refused, being left, joined anew
  states = new Map(); // group -> what gives the data's position

  async play({ steps }) {
    const first = steps[0].opened?.cursor ? decodeCursor(steps[0].opened.cursor) : new Map();
    for (const { group, at, before } of moves(steps)) if (!before) first.set(`group:${group}`, at);
    const moved = moves(steps).filter(({ at, before }) => before && String(at) !== String(before));
    this.moved = new Set(moved.map(({ group }) => group));
    const joined = steps.map(({ sent }) => read(sent ?? '')).filter(({ type }) => type === 'join');
    const asked = joined.length ? [] : [...first.keys()].filter((name) => name.startsWith('group:'));
    const followed = [
      ...steps.filter(({ got }) => got).flatMap(({ got }) => groupsIn(read(got))),
      ...asked.map((name) => name.slice(6)),
      ...(steps[0].opened?.groups?.split(',') ?? []),
    ];
    const start = async () => {
      this.groups.clear();
      const kept = storage({ v: 1, client: 'alice', positions: Object.fromEntries(first) });
      this.tidegate = await this.gateway.open({ storage: kept, url: addressFor(steps) }, (client) => {
        client.direct(() => {});
        client.all(() => {});
        for (const group of followed) this.follow(group, client);
      });
    };
    await start();
    for (const [index, step] of steps.entries()) {
      if (step.opened && index > 0) {
        this.ids.clear();
        if (step.opened.cursor) {
          this.tidegate.disconnect();
          this.tidegate.connect();
          await settled();
          assert.deepEqual(this.gateway.last.cursor, Object.fromEntries(decodeCursor(step.opened.cursor)));
        } else await start();
      }
      if (step.sent) await this.send(JSON.parse(step.sent));
      if (step.got) await this.get(step.got, step.cursor, read(steps[index + 1]?.sent ?? ''));
    }
  }

  follow(group, client = this.tidegate) {
    if (this.groups.has(group)) return;
    this.groups.add(group);
    client.group(group, this.moved.has(group) ? { state: () => this.state(group) } : () => {});
  }

  state(group) {
    return new Promise((resolve) => this.states.set(group, (position) => resolve({ position })));
  }

  /** What the library sent and no step of the vector has taken yet. */
  sent({ type, group }) {
    const taken = new Set(this.ids.values());
    return this.gateway.last.sent
      .map((text) => JSON.parse(text))
      .find((one) => one.type === type && one.group === group && one.id !== 0 && !taken.has(one.id));
  }

  async send(command) {
    if (!this.sent(command)) this.ask(command);
    await settled();
    if (command.type === 'join' && !this.sent(command)) await pass(1); // once more, after one that was refused
    const { id, epoch, offset } = this.sent(command) ?? { id: `not sent: ${command.id}` };
    if (command.epoch) assert.deepEqual([epoch, offset], [command.epoch, command.offset]);
    this.ids.set(command.id, id);
  }

  ask({ type, group, epoch, offset, data, method, token, limit }) {
    const { tidegate } = this;
    const ignore = (outcome) => outcome.catch(() => {});
    if (type === 'join' && this.states.has(group)) {
      if (epoch) this.states.get(group)({ epoch, offset });
      this.open.add(`group:${group}`); // until it is answered its position is that of the join
    } else if (type === 'join') this.follow(group);
    else if (type === 'leave') {
      this.groups.delete(group);
      this.open.add(`group:${group}`); // to the library it is left already
      tidegate.leave(group);
    } else if (type === 'publish') ignore(tidegate.publish(group, data));
    else if (type === 'history') ignore(tidegate.history(group, { position: epoch && { epoch, offset }, limit }));
    else if (type === 'presence') ignore(tidegate.presence(group));
    else if (type === 'call') ignore(tidegate.call(method, data));
    else if (type === 'refresh') ignore(tidegate.refresh(token));
    else if (type === 'ping') ignore(tidegate.ping());
  }

  async get(text, wanted, next) {
    const event = read(text);
    if (event.type === 'welcome') {
      // `left` follows
      for (const name of Object.keys(this.gateway.last.cursor ?? {})) if (!(name in event.streams)) this.open.add(name);
      // The library leaves again what it has left: unless it is wanted again.
      const again = next.type === 'leave' ? next.group : null;
      for (const group of groupsIn(event)) if (group !== again) this.follow(group);
    }
    if (event.stream && event.type !== 'message') this.open.delete(event.stream);
    await this.gateway.last.say(this.ids.has(event.id) ? { ...event, id: this.ids.get(event.id) } : text);
    const settledOf = (positions) => Object.fromEntries(Object.entries(positions).filter(([name]) => !this.open.has(name)));
    assert.deepEqual(settledOf(this.tidegate.positions), settledOf(wanted), text);
  }
}

for (const vector of VECTORS.clients) {
  test(`clients: ${vector.name}`, async () => {
    holdTime();
    await new Played().play(vector);
  });
}
