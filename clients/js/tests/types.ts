/** What an application writes, for the type checker alone: see test_client.py. */

import { NotAllowed, Tidegate, TidegateError, UnknownOutcome } from 'tidegate-client';
import type { Gap, Message, Reason, State } from 'tidegate-client';

type Order = { order: number; state: string };

const tidegate = new Tidegate('wss://example.org/ws-notifications/', {
  token: async () => {
    const answer = await fetch('/token');
    if (answer.status === 401) throw new NotAllowed();
    return answer.text();
  },
  storage: sessionStorage,
  backoff_s: [0.5, 30],
});

const orders = tidegate.group<Order>('orders', {
  onMessage(message) {
    const state: string = message.data.state;
    const offset: number = message.offset;
    return [state, offset];
  },
  onGap: (gap: Gap) => console.log(gap.from, gap.reason),
  onLeft: (reason) => console.log(reason.length),
  state: async () => ({ position: { epoch: 'k3f9', offset: 12 } }),
});
tidegate.group('news', (message: Message) => console.log(message.data));
tidegate.group('more', { state: async () => {} });
tidegate.direct<string>(({ data }) => console.log(data.length)).leave();
tidegate.all({ onMessage: async () => {} });

const off = tidegate.on('state', (state: State, reason: Reason | null) => console.log(state, reason?.word));
off();

try {
  await tidegate.ready();
  const { epoch, offset } = await orders.publish({ order: 1 }, { key: false });
  const { messages, more } = await tidegate.history<Order>('orders', { position: { epoch, offset }, limit: 10 });
  console.log(messages[0]?.data.order, more, (await orders.presence()).clients.length, orders.name.length);
  const traceparent = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01';
  await orders.publish({ order: 2 }, { traceparent });
  const { status, data } = await tidegate.call<{ n: number }>('echo', { n: 1 }, { traceparent });
  console.log(status, data.n, tidegate.positions['all']?.[1]);
} catch (error) {
  if (error instanceof UnknownOutcome) console.log(error.message);
  else if (error instanceof TidegateError) console.log(error.code);
}

// @ts-expect-error there is no such option
new Tidegate('ws://localhost', { tokens: 'x' });
// @ts-expect-error there is no such event
tidegate.on('message', () => {});
// @ts-expect-error a state of the client is not written
tidegate.state = 'closed';
