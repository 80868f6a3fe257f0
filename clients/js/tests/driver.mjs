/**
 * The library's driver: see clients/README.md. Runs in Node with lines on standard input and output; in a page
 * `drive(write)` gives the function that takes an order.
 */

import { Tidegate } from '../src/index.js';

const page = typeof process === 'undefined';

/** Gives what carries out an order; `write(object)` is called with each thing that the library says. */
export function drive(write) {
  let tidegate;
  let options;
  let stored = new Map();
  const subscriptions = new Map();
  const asked = { token: [], states: new Map() };
  const count = { token: 0 };

  const answerOf = (as, promise) =>
    promise.then(
      (reply) => write({ answer: as, reply }),
      (error) => write({ answer: as, error: error.code ?? error.message }),
    );

  function storageOf(given) {
    if (given === undefined) return undefined;
    if (given === 'throws') {
      const fail = () => {
        throw new Error('this storage throws');
      };
      return { getItem: fail, setItem: fail, removeItem: fail };
    }
    const key = options.storageKey ?? 'tidegate';
    stored = new Map([[key, JSON.stringify(given)]]);
    return {
      getItem: (name) => stored.get(name) ?? null,
      setItem: (name, text) => stored.set(name, text),
      removeItem: (name) => stored.delete(name),
    };
  }

  function tokenOf(given) {
    if (typeof given !== 'object') return given;
    return () =>
      new Promise((resolve, reject) => {
        asked.token.push({ resolve, reject });
        write({ asks: 'token', n: ++count.token });
      });
  }

  function handlersOf({ slow_ms, throws, state, inside, group }) {
    let first = true;
    const handlers = {
      onMessage({ stream, epoch, offset, data, missed }) {
        write({ heard: 'message', stream, epoch, offset, data, missed });
        if (first && inside) order(inside);
        first = false;
        if (throws) throw new Error('this handler throws');
        return slow_ms && new Promise((resolve) => setTimeout(resolve, slow_ms));
      },
      onGap({ stream, epoch, from, to, reason }) {
        write({ heard: 'gap', stream, epoch, from, to, reason });
      },
      onJoined({ stream, offset, recovered }) {
        write({ heard: 'joined', stream, offset, recovered });
      },
      onLeft(reason) {
        write({ heard: 'left', stream: `group:${group}`, reason });
      },
    };
    if (state) {
      let n = 0;
      handlers.state = () =>
        new Promise((resolve, reject) => {
          asked.states.set(group, { resolve, reject });
          write({ asks: 'state', group, n: ++n });
        });
    }
    return handlers;
  }

  function subscribe(name, order, make) {
    const known = subscriptions.get(name);
    if (known && order.slow_ms === undefined && !order.state && !order.throws && !order.inside) known.join();
    else subscriptions.set(name, make(handlersOf(order)));
  }

  function open({ url, options: given = {} }) {
    options = given;
    const { storage, token, ...rest } = given;
    tidegate = new Tidegate(url, { ...rest, storage: storageOf(storage), token: tokenOf(token) });
    tidegate.on('state', (state, reason) => write({ state, word: reason?.word, code: reason?.code }));
    tidegate.on('error', (error) => write({ heard: 'error', message: error.message }));
    tidegate.on('joined', ({ stream, group, offset, recovered }) => {
      if (group && !subscriptions.has(group)) write({ heard: 'joined', stream, offset, recovered });
    });
    tidegate.on('left', ({ stream, group, reason }) => {
      if (group && !subscriptions.has(group)) write({ heard: 'left', stream, reason });
    });
  }

  function answer(given) {
    if ('token' in given) asked.token.shift()?.resolve(given.token);
    if ('token_error' in given) asked.token.shift()?.reject(new Error(given.token_error));
    if ('state' in given) asked.states.get(given.group)?.resolve(given.state);
    if ('state_error' in given) asked.states.get(given.group)?.reject(new Error(given.state_error));
  }

  const orders = {
    open,
    group: (given) => subscribe(given.group, given, (handlers) => tidegate.group(given.group, handlers)),
    direct: (given) => subscribe('client:', given, (handlers) => tidegate.direct(handlers)),
    all: (given) => subscribe('all', given, (handlers) => tidegate.all(handlers)),
    join: ({ group }) => {
      if (subscriptions.has(group)) subscriptions.get(group).join();
      else orders.group({ group });
    },
    leave: ({ group }) => tidegate.leave(group),
    connect: () => tidegate.connect(),
    disconnect: () => tidegate.disconnect(),
    close: () => tidegate.close(),
    wake: () => wake(),
    publish: ({ as, group, data, key }) => answerOf(as, tidegate.publish(group, data, { key })),
    history: ({ as, group, limit, position }) => answerOf(as, tidegate.history(group, { limit, position })),
    presence: ({ as, group }) => answerOf(as, tidegate.presence(group)),
    call: ({ as, method, data }) => answerOf(as, tidegate.call(method, data)),
    refresh: ({ as, token }) => answerOf(as, tidegate.refresh(token)),
    ping: ({ as }) => answerOf(as, tidegate.ping()),
    stored: () => {
      const text = stored.get(options.storageKey ?? 'tidegate');
      write({ stored: text === undefined ? {} : JSON.parse(text) });
    },
    positions: () => write({ positions: tidegate.positions }),
  };

  function order(given) {
    if (given.do === undefined) answer(given);
    else orders[given.do](given);
  }

  return order;
}

/** What a page is told when it is looked at again. */
let wake = () => globalThis.dispatchEvent(new Event('online'));

if (!page) {
  const { createInterface } = await import('node:readline');
  const pageEvents = Object.assign(new EventTarget(), { visibilityState: 'visible' });
  globalThis.document = pageEvents;
  wake = () => pageEvents.dispatchEvent(new Event('visibilitychange'));
  const write = (said) => process.stdout.write(`${JSON.stringify(said)}\n`);
  const order = drive(write);
  createInterface({ input: process.stdin })
    .on('line', (line) => order(JSON.parse(line)))
    .on('close', () => process.exit());
  write({ ready: true });
}
