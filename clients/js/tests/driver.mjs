/**
 * The library's driver: see clients/README.md. Runs in Node with lines on standard input and output; in a page
 * `drive(write)` gives the function that takes an order.
 */

import { Tidegate } from '../src/index.js';

const page = typeof process === 'undefined';

/** Gives what carries out an order; `write(object)` is called with each thing that the library says. */
export function drive(write) {
  let tidegate;
  const stored = new Map();
  const subscriptions = new Map();
  const asked = []; // {what, group, n, resolve, reject}, the oldest first

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
    for (const [key, kept] of Object.entries(given)) stored.set(key, typeof kept === 'string' ? kept : JSON.stringify(kept));
    return {
      getItem: (name) => stored.get(name) ?? null,
      setItem: (name, text) => stored.set(name, text),
      removeItem: (name) => stored.delete(name),
    };
  }

  /** A function that asks for an answer, and counts. */
  function asking(what, group) {
    let n = 0;
    return () =>
      new Promise((resolve, reject) => {
        asked.push({ what, group, n: ++n, resolve, reject });
        write({ asks: what, group, n });
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
    if (state) handlers.state = asking('state', group);
    return handlers;
  }

  function subscribe(name, order, make) {
    const known = subscriptions.get(name);
    if (known && order.slow_ms === undefined && !order.state && !order.throws && !order.inside) known.join();
    else subscriptions.set(name, make(handlersOf(order)));
  }

  function open({ url, options: { storage, token, chance, ...options } }) {
    if (chance !== undefined) Math.random = () => chance;
    tidegate = new Tidegate(url, {
      ...options,
      storage: storageOf(storage),
      token: token?.ask ? asking('token') : token,
    });
    tidegate.on('state', (state, reason) => write({ state, word: reason?.word, code: reason?.code }));
    tidegate.on('error', (error) => write({ heard: 'error', message: error.message }));
  }

  function answer(given) {
    const what = 'token' in given || 'token_error' in given ? 'token' : 'state';
    const index = asked.findIndex(
      (it) => it.what === what && it.group === given.group && (given.n === undefined || it.n === given.n),
    );
    const [{ resolve, reject }] = asked.splice(index, 1);
    const error = given[`${what}_error`];
    if (error === undefined) resolve(given[what]);
    else reject(new Error(error));
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
    connect: () => {
      try {
        tidegate.connect();
      } catch (error) {
        if (error.code !== 'closed') throw error; // after `close` there is none
      }
    },
    disconnect: () => tidegate.disconnect(),
    close: () => tidegate.close(),
    wake: () => wake(),
    publish: ({ as, group, data, key, conflate, traceparent }) =>
      answerOf(as, tidegate.publish(group, data, { key, conflate, traceparent })),
    history: ({ as, group, limit, position }) => answerOf(as, tidegate.history(group, { limit, position })),
    presence: ({ as, group }) => answerOf(as, tidegate.presence(group)),
    call: ({ as, method, data, traceparent }) => answerOf(as, tidegate.call(method, data, { traceparent })),
    refresh: ({ as, token }) => answerOf(as, tidegate.refresh(token)),
    ping: ({ as }) => answerOf(as, tidegate.ping()),
    stored: () =>
      write({ stored: Object.fromEntries([...stored].map(([key, text]) => [key, JSON.parse(text)])) }),
    positions: () => write({ positions: tidegate?.positions ?? {} }),
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
