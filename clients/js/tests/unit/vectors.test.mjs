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
    await comesAfter({ growing: 0.5, random: 2.5, longer: 30 }[delay]);
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

/** Plays one vector. What the vector's client sends is asked of the library in its own words. */
class Played {
  gateway = new Gateway();
  ids = new Map(); // the vector's ids -> those that the library chose
  absent = new Set(); // streams that were asked for and are not in the welcome: `left` follows
  states = new Map(); // group -> what gives the data's position

  async play({ steps }) {
    const first = steps[0].opened?.cursor ? decodeCursor(steps[0].opened.cursor) : new Map();
    const events = steps.filter(({ got }) => got).map(({ got }) => read(got));
    const followed = new Set(events.flatMap(groupsIn));
    const joins = steps.map(({ sent }) => sent && JSON.parse(sent)).filter((sent) => sent?.type === 'join');
    for (const { group, epoch, offset } of joins)
      if (epoch && !followed.has(group)) first.set(`group:${group}`, [epoch, offset]);
    for (const name of first.keys()) if (name.startsWith('group:') && !joins.length) followed.add(name.slice(6));
    const moved = joins.filter(({ group, epoch }) => epoch && followed.has(group)).map(({ group }) => group);
    const open = () =>
      this.gateway.open({ storage: storage({ v: 1, client: 'alice', positions: Object.fromEntries(first) }) }, (client) => {
        client.direct(() => {});
        client.all(() => {});
        for (const group of followed) client.group(group, moved.includes(group) ? { state: () => this.state(group) } : () => {});
      });
    this.tidegate = await open();
    for (const [index, step] of steps.entries()) {
      if (step.opened && index > 0) {
        if (step.opened.cursor) {
          this.tidegate.disconnect();
          this.tidegate.connect();
          await settled();
          assert.deepEqual(this.gateway.last.cursor, Object.fromEntries(decodeCursor(step.opened.cursor)));
        } else this.tidegate = await open();
      }
      if (step.sent) await this.send(JSON.parse(step.sent));
      if (step.got) await this.get(step.got, step.cursor);
    }
  }

  state(group) {
    return new Promise((resolve) => this.states.set(group, (position) => resolve({ position })));
  }

  async send(command) {
    const { type, group, epoch, offset, data, method, token, limit } = command;
    const before = this.gateway.last.sent.length;
    const { tidegate } = this;
    const ignore = (outcome) => outcome.catch(() => {});
    if (type === 'join' && this.states.has(group)) {
      if (epoch) this.states.get(group)({ epoch, offset });
      this.absent.add(`group:${group}`); // until it is answered its position is that of the join
    } else if (type === 'join' && !tidegate.positions[`group:${group}`]) tidegate.group(group, () => {});
    else if (type === 'leave') tidegate.leave(group);
    else if (type === 'publish') ignore(tidegate.publish(group, data));
    else if (type === 'history') ignore(tidegate.history(group, { position: epoch && { epoch, offset }, limit }));
    else if (type === 'presence') ignore(tidegate.presence(group));
    else if (type === 'call') ignore(tidegate.call(method, data));
    else if (type === 'refresh') ignore(tidegate.refresh(token));
    else if (type === 'ping') ignore(tidegate.ping());
    await settled();
    const sent = this.gateway.last.sent.slice(before).map((text) => JSON.parse(text));
    this.ids.set(command.id, sent.find((one) => one.type === type)?.id ?? `not sent: ${command.id}`);
  }

  async get(text, wanted) {
    const event = read(text);
    if (event.type === 'welcome')
      for (const name of Object.keys(this.tidegate.positions)) if (!(name in event.streams)) this.absent.add(name);
    if (event.stream && event.type !== 'message') this.absent.delete(event.stream);
    await this.gateway.last.say(this.ids.has(event.id) ? { ...event, id: this.ids.get(event.id) } : text);
    const positions = Object.entries(this.tidegate.positions).filter(([name]) => !this.absent.has(name));
    const rest = Object.entries(wanted).filter(([name]) => !this.absent.has(name));
    assert.deepEqual(Object.fromEntries(positions), Object.fromEntries(rest), text);
  }
}

for (const vector of VECTORS.clients) {
  test(`clients: ${vector.name}`, async () => {
    holdTime();
    await new Played().play(vector);
  });
}
