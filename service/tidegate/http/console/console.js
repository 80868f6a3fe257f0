/**
 * The page: one client, its feed and its streams, and the panels beside it.
 *
 * Kept in localStorage: what was typed into the connection panel and whether it was connected, and for each
 * client its positions. Two tabs with one client share those; the last to write wins.
 */

import { Api, inWords } from './api.js';
import { Client, CLOSES, PILLS, subjectOf } from './client.js';
import { startCommand } from './command.js';
import { startCompare } from './compare.js';
import { groupOf, isId } from './cursor.js';
import { at, epochCell, h, replace, say, seldom, streamBadge } from './dom.js';
import { Feed } from './feed.js';
import { startJournal } from './journal.js';
import { startLookup } from './lookup.js';
import { Meter } from './meter.js';
import { startNodes } from './nodes.js';
import { canPace } from './pacedsocket.js';
import { startPush } from './push.js';
import { startRefusals } from './refusals.js';
import { startRejected } from './rejected.js';
import { forgetPositions, loadForm, loadPositions, saveForm, storageOf } from './store.js';
import { startTiles } from './tiles.js';
import { startTrace } from './trace.js';
import { startViews } from './views.js';
import { startWatch } from './watch.js';

const api = new Api(askKey);
const feed = new Feed();
let settings = null; // what console.json said
let client = null; // the Client since the first Connect
let was = 'idle'; // the state that the page last showed
let usualAddress = ''; // of this service itself

const drawStreams = seldom(showStreams);
const live = () => (client?.state === 'online' ? client : null);

function byToken() {
  return settings.auth === 'jwt';
}

/** The application says who we are, by a cookie that this page sends, or a token of its own. */
function byApplication() {
  return settings.auth === 'callback';
}

/** Who would connect now; null where the token does not say. */
function chosenClient() {
  if (byApplication()) return 'me';
  return byToken() ? subjectOf(at('token').value.trim()) : at('client').value.trim();
}

function chosenGroups() {
  return at('groups').value.split(',').map((name) => name.trim()).filter(Boolean);
}

/** Why the connection panel cannot be used as it is; null where it can. */
function formFault() {
  const name = chosenClient();
  if (name === null) return 'that is not a JWT with a client in "sub"';
  if (!isId(name)) return 'a client is 1 to 128 of A-Z a-z 0-9 _ . @ -';
  const wrong = chosenGroups().find((group) => !isId(group));
  return wrong === undefined ? null : `not a group: ${wrong}`;
}

function remember(connected) {
  const address = at('address').value === usualAddress ? '' : at('address').value;
  saveForm({ client: at('client').value.trim(), groups: at('groups').value, address, connected });
}

/** Connects as the form says; behind the kept positions where there are any. */
function connect() {
  const fault = formFault();
  if (fault) {
    say(at('connect-words'), fault, true);
    return;
  }
  const name = chosenClient();
  const groups = chosenGroups();
  const token = byToken() || byApplication() ? at('token').value.trim() : null;
  // A group taken out of the field is not to come back with the cursor.
  const storage = storageOf(name, (stream) => groupOf(stream) === null || groups.includes(groupOf(stream)));
  client?.close();
  was = 'idle';
  try {
    const who = { address: at('address').value, client: name, token, groups, storage };
    client = new Client(who, { onstate, onevent, onpositions: drawStreams });
  } catch (error) {
    client = null;
    say(at('connect-words'), error.message, true);
    return;
  }
  remember(true);
  client.read(at('pace').value);
  client.connect();
}

function cut() {
  const connected = live() !== null;
  client.cut();
  remember(false);
  if (!connected) return;
  say(at('connect-words'), 'Cut here; the cursor is kept.');
  feed.note('warn', 'Cut', 'the socket was dropped here; the cursor is kept');
}

function forget() {
  const name = client?.client ?? chosenClient();
  client?.close();
  client = null;
  was = 'idle';
  forgetPositions(name);
  remember(false);
  feed.note('note', 'Forgotten', `${name} has no cursor any more`);
  showConnection();
  drawStreams();
}

async function onstate() {
  const { state, words } = client;
  const before = was;
  was = state;
  showConnection();
  drawStreams();
  if (state === 'waiting' && client.reached) feed.note('warn', 'Connection lost', words);
  if (state === 'idle' && before !== 'idle' && words) feed.note('fault', 'Ended', words);
  if (state === 'waiting' && !client.reached && at('address').value === usualAddress) {
    const alive = await api.alive();
    const hint = 'The service itself answers: look at client, token and groups.';
    if (alive && client?.words === words) say(at('connect-words'), `${words}. ${hint}`, true);
  }
}

function onevent(event, { missed, data }) {
  if (event.type !== 'message') keepGroups();
  switch (event.type) {
    case 'message':
      feed.message(event, data, missed);
      break;
    case 'gap':
      feed.gap(event);
      break;
    case 'welcome':
      welcomed(event);
      break;
    case 'joined':
      feed.offer(event.stream);
      feed.note('good', 'Joined', `by the application, from offset ${event.offset} on`, event.stream);
      break;
    case 'left':
      feed.note('warn', 'Left', event.reason, event.stream);
      break;
    case 'expiring':
      feed.note('warn', 'Token expires', `in ${event.seconds} s; put in a new one and refresh`);
      break;
    case 'error':
      feed.note('fault', 'Error', `${event.code}: ${event.message}`);
      break;
    case 'alarm':
      feed.note('fault', 'Promise broken', event.words, event.stream);
      break;
    case 'pong':
      showFacts();
      break;
  }
}

function welcomed({ connection, node, streams }) {
  const all = Object.entries(streams);
  const missed = all.reduce((sum, [, { missed: count }]) => sum + (count ?? 0), 0);
  const given = all.filter(([, { recovered }]) => recovered !== undefined);
  const lost = given.filter(([, { recovered }]) => !recovered).map(([stream]) => stream);
  for (const [stream] of all) feed.offer(stream);
  const words = [`${connection} on ${node}`];
  if (given.length) words.push(`${missed} missed`);
  if (lost.length) words.push(`not without loss: ${lost.join(', ')}`);
  feed.note(lost.length ? 'warn' : 'good', given.length ? 'Resumed' : 'Connected', words.join(' · '));
}

function showConnection() {
  const state = client?.state ?? 'idle';
  const settled = state === 'idle';
  const name = chosenClient();
  const kept = name !== null && loadPositions(name).size > 0;
  at('pill').className = `pill ${state}`;
  at('pill').textContent = PILLS[state];
  say(at('connect-words'), client?.words ?? '', state === 'idle' || state === 'waiting');
  if (!client && kept) say(at('connect-words'), `${name} has a cursor from before.`);
  for (const id of ['client', 'groups', 'address']) at(id).readOnly = !settled;
  at('connect').hidden = state === 'online' || state === 'connecting';
  at('connect').textContent = state === 'waiting' ? 'Now' : kept ? 'Resume' : 'Connect';
  at('cut').hidden = settled;
  at('cut').textContent = state === 'waiting' ? 'Stop' : 'Cut';
  at('forget').hidden = settled && !kept;
  at('refresh').hidden = state !== 'online' || !byToken();
  at('pace-field').hidden = settled;
  document.title = state === 'online' ? `${client.client} · Tidegate console` : 'Tidegate console';
  showFacts();
}

function showFacts() {
  const welcome = client?.welcome ?? null;
  at('facts').hidden = welcome === null;
  if (welcome === null) return;
  at('fact-node').textContent = welcome.node;
  at('fact-connection').textContent = welcome.connection;
  at('fact-heartbeat').textContent = `every ${welcome.ping_interval} s, timeout ${welcome.ping_timeout} s`;
  at('fact-trip').textContent = client.roundTrip_ms === null ? '–' : `${client.roundTrip_ms.toFixed(1)} ms`;
  at('fact-cursor').textContent = { null: '–', true: 'agrees', false: 'differs' }[client.agrees];
}

function showStreams() {
  const positions = client?.positions ?? new Map();
  const rows = [...positions].sort().map(([stream, [epoch, offset]]) => {
    const top = client.tops.get(stream);
    const group = groupOf(stream);
    const title = `Leave ${group}`;
    const onclick = () => leaveGroup(group);
    const properties = { type: 'button', class: 'quiet', title, 'aria-label': title, 'data-focus': `leave ${stream}`, onclick };
    const leave = h('button', properties, '×');
    return h(
      'tr',
      { 'data-stream': stream },
      h('th', { scope: 'row' }, streamBadge(stream)),
      epochCell(epoch, `epoch ${stream}`),
      h('td', { class: 'number' }, String(offset)),
      h('td', { class: 'number' }, top === undefined ? '–' : String(top)),
      h('td', {}, !live() ? 'kept' : offset < top ? `${top - offset} to come` : 'live'),
      h('td', {}, group !== null && live() ? leave : null),
    );
  });
  replace(at('streams'), rows);
  at('streams-none').hidden = rows.length > 0;
  at('streams-count').textContent = rows.length ? String(rows.length) : '';
}

/** While connected the field says what is so; it is what the next connection starts from. */
function keepGroups() {
  const groups = [...client.positions.keys()].map(groupOf).filter((group) => group !== null);
  at('groups').value = groups.sort().join(', ');
  remember(true);
}

async function joinGroup(group) {
  if (!isId(group)) {
    say(at('join-words'), 'a group is 1 to 128 of A-Z a-z 0-9 _ . @ -', true);
    return;
  }
  try {
    const { event } = await client.send({ type: 'join', group });
    feed.offer(event.stream);
    feed.note('good', 'Joined', `from offset ${event.offset} on`, event.stream);
    say(at('join-words'), '');
    at('join-group').value = '';
  } catch (error) {
    say(at('join-words'), inWords(error), true);
  }
}

async function leaveGroup(group) {
  try {
    await client.send({ type: 'leave', group });
    feed.note('note', 'Left', 'asked for here', `group:${group}`);
    say(at('join-words'), '');
  } catch (error) {
    say(at('join-words'), inWords(error), true);
  }
}

async function refreshToken() {
  const token = at('token').value.trim();
  try {
    const { event } = await client.send({ type: 'refresh', token });
    feed.note('good', 'Token refreshed', `it expires ${new Date(event.expires * 1000).toLocaleString('en-GB')}`);
  } catch (error) {
    say(at('connect-words'), inWords(error), true);
  }
}

function askKey(words) {
  at('key-open').hidden = false;
  say(at('key-words'), words);
  if (at('key-dialog').open) return;
  at('key-dialog').returnValue = ''; // it would keep the last one when closed with Escape
  at('key-dialog').showModal();
}

async function keyGiven() {
  if (at('key-dialog').returnValue !== 'save') return;
  api.key = at('key').value.trim();
  at('key').value = '';
  dispatchEvent(new Event('keychange'));
  try {
    await api.call('GET', 'api/nodes');
  } catch {
    return; // where the key was the reason, askKey has been called
  }
  say(at('push-words'), '');
}

/** Tabs by click and by arrow keys (WAI-ARIA: tabs with automatic activation). */
function startTabs() {
  const tabs = [...document.querySelectorAll('[role="tab"]')];
  const choose = (chosen) => {
    for (const tab of tabs) {
      tab.setAttribute('aria-selected', String(tab === chosen));
      tab.tabIndex = tab === chosen ? 0 : -1;
      at(tab.getAttribute('aria-controls')).hidden = tab !== chosen;
    }
  };
  for (const [index, tab] of tabs.entries()) {
    tab.addEventListener('click', () => choose(tab));
    tab.addEventListener('keydown', (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const next = tabs[(index + step + tabs.length) % tabs.length];
      next.click();
      next.focus();
    });
  }
}

function startForms() {
  at('connect-form').addEventListener('submit', (event) => {
    event.preventDefault();
    if (client?.state === 'waiting') client.connect();
    else if (!client || client.state === 'idle') connect();
  });
  for (const id of ['client', 'token', 'groups', 'address']) {
    at(id).addEventListener('input', () => {
      if (client?.state === 'idle') client = null;
      showConnection();
      drawStreams();
    });
  }
  at('cut').addEventListener('click', cut);
  at('forget').addEventListener('click', forget);
  at('refresh').addEventListener('click', refreshToken);
  at('pace').addEventListener('change', () => client?.read(at('pace').value));
  at('join-form').addEventListener('submit', (event) => {
    event.preventDefault();
    if (live()) joinGroup(at('join-group').value.trim());
    else say(at('join-words'), 'connect first', true);
  });
  at('key-open').addEventListener('click', () => askKey(''));
  at('key-dialog').addEventListener('close', keyGiven);
  addEventListener('online', () => {
    if (client?.state === 'waiting') client.connect();
  });
}

function startMonitoring() {
  const meter = new Meter(api);
  startTiles(meter);
  startWatch(meter);
  startNodes(api, meter, settings.node);
  startRefusals(api, meter, CLOSES);
  startLookup(api, startJournal(api));
  startRejected(api);
  startCompare(api, settings, usualAddress);
  startTrace(api);
  startViews();
  meter.start();
}

async function start() {
  startTabs();
  try {
    settings = await api.settings();
  } catch (error) {
    say(at('connect-words'), inWords(error), true);
    return;
  }
  api.keyRequired = settings.key_required;
  at('version').textContent = settings.version;
  at('node').textContent = settings.node;
  at('pace').disabled = !canPace;
  at('client-field').hidden = byToken() || byApplication();
  at('client').required = !at('client-field').hidden;
  at('token-field').hidden = !at('client-field').hidden;
  at('key-open').hidden = !settings.key_required;
  const scheme = location.protocol === 'https:' ? 'wss' : 'ws';
  usualAddress = `${scheme}://${location.hostname}:${settings.ws.port}${settings.ws.path}`;
  const form = loadForm();
  at('client').value = form?.client || at('client').value;
  at('groups').value = form?.groups ?? at('groups').value;
  at('address').value = form?.address || usualAddress;
  at('more').open = at('address').value !== usualAddress;
  startForms();
  startPush(api);
  startCommand(live);
  startMonitoring();
  showConnection();
  if (form?.connected && !byToken()) connect();
  if (!api.open) askKey('This service wants its API key.');
}

start();
