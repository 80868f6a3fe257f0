// Drives service/tidegate/http/console/client.js, from beside it, without a network: reads {client, steps} from stdin, and writes what
// came of them.
// A step is an event that the gateway sends, as an object, or "open" (the page connects) or "cut" (the connection breaks).

import { readFileSync } from 'node:fs';

import { Client } from './client.js';

const { client: options, steps } = JSON.parse(readFileSync(0, 'utf8'));
const sent = [];
const handled = [];
let socket = null;

globalThis.WebSocket = class {
  constructor(url) {
    sent.push({ opens: Object.fromEntries(new URL(url).searchParams) });
    socket = this;
  }
  send(text) {
    sent.push(JSON.parse(text));
  }
  close() {}
};

const positions = new Map(Object.entries(options.positions));
const handlers = { onstate() {}, onpositions() {}, onevent: (event) => handled.push(event) };
const client = new Client({ address: 'ws://gateway/', ...options, positions }, handlers);
for (const step of steps) {
  if (step === 'open') client.connect();
  else if (step === 'cut') socket.onclose({ code: 1006, reason: '' });
  else socket.onmessage({ data: JSON.stringify(step) });
}
console.log(JSON.stringify({ sent, handled, state: client.state, positions: Object.fromEntries(client.positions) }));
process.exit(0); // or its timers would keep it
