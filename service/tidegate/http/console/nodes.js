/** The nodes that run, by asking for them every two seconds while they are in sight. */

import { inWords } from './api.js';
import { at, counted, h, replace, say } from './dom.js';
import { onView } from './views.js';

const number = new Intl.NumberFormat('en', { maximumFractionDigits: 1 });

/** How what is known of a node is called, and shown. What is not listed is shown as it came. */
const FACTS = {
  connections: ['Connections', number.format],
  trunk_sessions: ['On trunks', number.format],
  trunks: ['Trunks', (trunks) => number.format(trunks.length)],
  version: ['Version', String],
  started_ms: ['Started', (ms) => new Date(ms).toLocaleString('en-GB')],
  lag_ms: ['Through the broker', (ms) => (ms === null ? 'no canary yet' : `${number.format(ms)} ms`)],
};
const IN_HEAD = ['node', 'draining'];

/** Draws whenever `meter` has looked and the list is in sight; `own` is the name of the node that answers. */
export function startNodes(api, meter, own) {
  const draw = async () => {
    if (at('view-watch').hidden) return;
    if (!api.open) {
      say(at('nodes-words'), 'The list of nodes needs the API key.');
      return;
    }
    try {
      const { nodes } = await api.call('GET', 'api/nodes');
      const all = nodes.reduce((sum, { connections }) => sum + connections, 0);
      say(at('nodes-words'), `${counted(nodes.length, 'node')}, ${counted(all, 'connection')} together`);
      replace(at('nodes'), nodes.map((node) => nodeItem(node, node.node === own)));
    } catch (error) {
      say(at('nodes-words'), inWords(error), true);
    }
  };
  meter.onlook(draw);
  onView('watch', draw);
  addEventListener('keychange', draw);
}

function nodeItem(node, isOwn) {
  const state = node.draining
    ? h('span', { class: 'pill waiting' }, 'draining')
    : h('span', { class: 'pill online' }, 'serving');
  const others = Object.keys(node).filter((key) => !(key in FACTS) && !IN_HEAD.includes(key));
  return h(
    'li',
    {},
    h('div', { class: 'node-head' }, h('strong', {}, node.node), isOwn ? h('span', { class: 'hint' }, 'this one') : null, state),
    h(
      'dl',
      { class: 'facts' },
      ...Object.entries(FACTS).map(([key, [name, shown]]) => (key in node ? fact(name, shown(node[key])) : null)),
      ...others.map((key) => fact(key, JSON.stringify(node[key]))),
    ),
  );
}

/** A line of a list of facts. */
function fact(name, value) {
  return h('div', {}, h('dt', {}, name), h('dd', {}, value));
}
