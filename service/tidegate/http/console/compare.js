/**
 * The same client on several ways at once: directly, and through each edge. For each message one sees when it came on
 * which way, by one clock; and what a cut, a slow reader or a disconnect does on one way and not on the others.
 */

import { inWords } from './api.js';
import { Chart } from './chart.js';
import { subjectOf } from './client.js';
import { isId } from './cursor.js';
import { at, h, replace, say, seldom, streamBadge } from './dom.js';
import { Lane } from './lane.js';
import { loadLanes, saveLanes } from './store.js';
import { onView } from './views.js';

const ROWS = 200;
const SAMPLES = 150;
const EVERY_MS = 2000;

/** `usual`: the address of the service itself. */
export function startCompare(api, settings, usual) {
  const lanes = [];
  const arrivals = new Map(); // `stream epoch offset` -> {event, at_ms: Map from lane}
  const trips = []; // {at_ms, values: Map from lane}
  let chart = null;

  const draw = seldom(() => {
    if (at('view-compare').hidden) return;
    const heads = lanes.map(({ name }) => h('th', { scope: 'col', class: 'number' }, name));
    replace(at('compare-head'), [h('th', { scope: 'col' }, 'Message'), ...heads]);
    replace(at('compare-rows'), [...arrivals.values()].reverse().map((arrival) => rowOf(arrival, lanes)));
    at('compare-none').hidden = arrivals.size > 0;
  });

  const drawTrips = () => {
    if (!at('view-compare').hidden) chart.draw(trips.map(({ at_ms }) => at_ms), lanes.map((lane) => trips.map(({ values }) => values.get(lane) ?? null)));
  };

  const arrived = (lane, event, missed) => {
    const key = `${event.stream} ${event.epoch} ${event.offset}`;
    if (!arrivals.has(key)) arrivals.set(key, { event, ways: new Map() });
    arrivals.get(key).ways.set(lane, { ms: Date.now() - event.time, missed });
    if (arrivals.size > ROWS) arrivals.delete(arrivals.keys().next().value);
    draw();
  };

  const changed = () => {
    chart = new Chart({ title: 'Round trip of a JSON ping', unit: 'ms', series: lanes.map(({ name }) => name) });
    at('compare-chart').replaceChildren(chart.element);
    draw();
    drawTrips();
  };

  const add = (name, address, isOwn = false) => {
    const lane = new Lane(
      { name, address, api },
      {
        onmessage: (event, missed) => arrived(lane, event, missed),
        onremove: isOwn
          ? null
          : () => {
              lane.remove();
              lanes.splice(lanes.indexOf(lane), 1);
              keep();
              changed();
            },
      },
    );
    lanes.push(lane);
    at('lanes').append(lane.element);
  };

  const keep = () => saveLanes(lanes.slice(1).map(({ name, address }) => ({ name, address })));

  /** `{client, token, groups}`. Raises Error. */
  const who = () => {
    const token = settings.auth === 'jwt' ? at('compare-token').value.trim() : null;
    const client = token === null ? at('compare-client').value.trim() : subjectOf(token);
    if (client === null) throw new Error('that is not a JWT with a client in "sub"');
    if (!isId(client)) throw new Error('a client is 1 to 128 of A-Z a-z 0-9 _ . @ -');
    const group = at('compare-group').value.trim();
    if (!isId(group)) throw new Error('a group is 1 to 128 of A-Z a-z 0-9 _ . @ -');
    return { client, token, groups: [group] };
  };

  const act = async (action) => {
    try {
      say(at('compare-words'), (await action()) ?? '');
    } catch (error) {
      say(at('compare-words'), inWords(error), true);
    }
  };

  at('compare-token-field').hidden = settings.auth !== 'jwt';
  at('compare-client-field').hidden = settings.auth !== 'none';
  at('compare-form').addEventListener('submit', (event) => {
    event.preventDefault();
    act(() => {
      const given = who();
      for (const lane of lanes) lane.connect(given);
    });
  });
  at('compare-cut').addEventListener('click', () => {
    for (const lane of lanes) lane.cut();
  });
  at('compare-push').addEventListener('click', () =>
    act(async () => {
      const { groups } = who();
      const { stream, offset } = await api.call('POST', `api/groups/${groups[0]}/push`, `{"data":{"pushed_ms":${Date.now()}}}`);
      return `Accepted: ${stream} at ${offset}`;
    }),
  );
  at('lane-form').addEventListener('submit', (event) => {
    event.preventDefault();
    act(() => {
      const address = new URL(at('lane-address').value.trim());
      if (!['ws:', 'wss:'].includes(address.protocol)) throw new Error('an address begins with ws:// or wss://');
      add(at('lane-name').value.trim() || address.host, address.href);
      keep();
      changed();
      at('lane-name').value = '';
    });
  });

  const { hostname, protocol } = location;
  const { port, tls_port } = settings.edge;
  const edge = protocol === 'https:' && tls_port ? `wss://${hostname}:${tls_port}` : `ws://${hostname}:${port}`;
  add('direct', usual, true);
  for (const { name, address } of loadLanes() ?? [{ name: 'edge', address: `${edge}${settings.ws.path}` }]) add(name, address);
  at('lane-address').value = `${edge}${settings.ws.path}`;
  changed();
  setInterval(() => {
    if (!lanes.some(({ trip_ms }) => trip_ms !== null) && !trips.length) return;
    trips.push({ at_ms: Date.now(), values: new Map(lanes.map((lane) => [lane, lane.trip_ms])) });
    if (trips.length > SAMPLES) trips.shift();
    drawTrips();
  }, EVERY_MS);
  onView('compare', () => {
    draw();
    drawTrips();
  });
}

/** The way on which it came first is marked. */
function rowOf({ event, ways }, lanes) {
  const live = [...ways.values()].filter(({ missed }) => !missed).map(({ ms }) => ms);
  const first = ways.size > 1 ? Math.min(...live) : null;
  const cell = (lane) => {
    const way = ways.get(lane);
    if (!way) return h('td', { class: 'number' }, '–');
    if (way.missed) return h('td', { class: 'number' }, h('span', { class: 'mark' }, 'missed'));
    return h('td', { class: way.ms === first ? 'number first' : 'number' }, `${way.ms.toLocaleString('en')} ms`);
  };
  const head = h('th', { scope: 'row' }, streamBadge(event.stream), ` #${event.offset}`);
  return h('tr', { 'data-offset': event.offset }, head, ...lanes.map(cell));
}
