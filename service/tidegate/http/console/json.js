/**
 * JSON as text, laid out for reading. Works on the text itself: parsing and writing again would
 * change large numbers and repeated keys. Takes valid JSON only.
 */

import { h } from './dom.js';

const LINE = 110; // characters of data on one line; longer data opens on a click
const TOKENS = /"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*|true|false|null|[{}[\],:]/g;

/** Why `text` is not JSON, in words; null where it is. */
export function jsonFault(text) {
  if (!text.trim()) return 'JSON is missing here';
  try {
    JSON.parse(text);
    return null;
  } catch (error) {
    return error.message;
  }
}

/** The same JSON without white space. */
export function minified(text) {
  return (text.match(TOKENS) ?? []).join('');
}

/** The same JSON, indented by two. */
export function indented(text) {
  return [...laidOut(text, true)].map(([, part]) => part).join('');
}

/** A fragment with `text` on one line, cut after `limit` characters. */
export function oneLine(text, limit) {
  const fragment = new DocumentFragment();
  let length = 0;
  for (const [kind, part] of laidOut(text, false)) {
    const room = limit - length;
    length += part.length;
    fragment.append(piece(kind, length > limit ? `${part.slice(0, room)}…` : part));
    if (length > limit) break;
  }
  return fragment;
}

/** A fragment with `text` indented by two. */
export function manyLines(text) {
  const fragment = new DocumentFragment();
  for (const [kind, part] of laidOut(text, true)) fragment.append(piece(kind, part));
  return fragment;
}

/**
 * The texts of the values that `key` has in objects that are nested `depth` deep (1: the outermost), in their order.
 */
export function valuesOf(text, key, depth) {
  const found = [];
  const wanted = JSON.stringify(key);
  let [level, begun, last] = [0, null, ''];
  for (const { 0: token, index } of text.matchAll(TOKENS)) {
    const closes = token === '}' || token === ']';
    if (level === depth) {
      if (begun !== null && (closes || token === ',')) {
        found.push(text.slice(begun, index).trim());
        begun = null;
      } else if (begun === null && last === `${wanted}:`) {
        begun = index;
      }
    }
    if (token === '{' || token === '[') level += 1;
    if (closes) level -= 1;
    last = token === ':' ? `${last}:` : token;
  }
  return found;
}

/** Short data stands on one line; longer data is cut there, and laid out when it is opened. */
export function dataCell(data) {
  if (data.length <= LINE) return h('code', { class: 'data' }, oneLine(data, LINE * 2));
  const body = h('pre', { class: 'spread' });
  const details = h('details', { class: 'data' }, h('summary', {}, h('code', {}, oneLine(data, LINE))), body);
  details.addEventListener('toggle', () => {
    if (details.open && !body.hasChildNodes()) body.append(manyLines(data));
  });
  return details;
}

function piece(kind, text) {
  return kind === 'mark' ? text : h('span', { class: `json-${kind}` }, text);
}

/** Yields `[kind, text]`, kind one of key, string, number, word, mark. */
function* laidOut(text, indent) {
  const tokens = [...text.matchAll(TOKENS)];
  let depth = 0;
  for (const [index, [token]] of tokens.entries()) {
    const next = tokens[index + 1]?.[0];
    const line = () => (indent ? `\n${'  '.repeat(depth)}` : '');
    if (token === '{' || token === '[') {
      const empty = next === '}' || next === ']';
      depth += 1;
      yield ['mark', empty ? token : token + line()];
    } else if (token === '}' || token === ']') {
      depth -= 1;
      const empty = ['{', '['].includes(tokens[index - 1]?.[0]);
      yield ['mark', empty ? token : line() + token];
    } else if (token === ',') {
      yield ['mark', indent ? token + line() : ', '];
    } else if (token === ':') {
      yield ['mark', ': '];
    } else if (token[0] === '"') {
      yield [next === ':' ? 'key' : 'string', token];
    } else {
      yield [/[tfn]/.test(token[0]) ? 'word' : 'number', token];
    }
  }
}
