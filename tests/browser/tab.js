// A page of a test: `begin([url, groups, options])` makes a client that all tabs share, and keeps what it hears.

import { SharedTidegate } from '/src/tabs.js';

window.heard = {}; // stream -> data of its messages; gaps as {gap: reason}
window.states = [];

const hear = (stream, what) => {
  window.heard[stream] ??= [];
  window.heard[stream].push(what);
};

const handlers = {
  onMessage: ({ stream, data }) => hear(stream, data),
  onGap: ({ stream, reason }) => hear(stream, { gap: reason }),
  onLeft: (reason) => hear('left', reason),
};

window.begin = async ([url, groups, { storage, ...options }]) => {
  const client = new SharedTidegate(url, {
    client: 'alice',
    ...options,
    storage: storage ? sessionStorage : undefined,
  });
  window.client = client;
  client.on('state', (state) => window.states.push(state));
  client.on('error', (error) => hear('error', String(error)));
  for (const group of groups.split(',').filter(Boolean)) window.follow(group);
  client.direct(handlers);
  await client.ready();
};

window.follow = (group) => {
  window.subscriptions ??= {};
  window.subscriptions[group] = window.client.group(group, handlers);
};
