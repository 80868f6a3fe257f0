/** The push panel: a message to one client, a group or everybody, and the same as shell commands. */

import { inWords } from './api.js';
import { isId } from './cursor.js';
import { at, copy, say } from './dom.js';
import { indented, jsonFault, minified } from './json.js';

const NAMES = { client: 'alice', group: 'news', all: '' };

/** Binds the panel to `api`. */
export function startPush(api) {
  const form = at('push-form');
  const names = { ...NAMES }; // what was last typed for each kind
  const kind = () => form.elements.kind.value;

  const show = () => {
    at('push-name-field').hidden = kind() === 'all';
    at('push-name-label').textContent = kind() === 'group' ? 'Group' : 'Client';
    const fault = jsonFault(at('push-data').value);
    say(at('push-fault'), fault ?? '', true);
    at('push-data').setAttribute('aria-invalid', String(fault !== null));
    const data = fault === null ? minified(at('push-data').value) : '…';
    at('curl').textContent = curlOf(api, pathOf(kind(), names[kind()]), data, at('push-key').value);
    at('xadd').textContent = xaddOf(kind(), names[kind()], data, at('push-key').value);
  };

  for (const radio of form.elements.kind) {
    radio.addEventListener('change', () => {
      at('push-name').value = names[kind()];
      show();
    });
  }
  form.addEventListener('input', () => {
    if (kind() !== 'all') names[kind()] = at('push-name').value.trim();
    show();
  });
  at('push-tidy').addEventListener('click', () => {
    if (jsonFault(at('push-data').value) === null) at('push-data').value = indented(at('push-data').value);
    show();
  });
  at('push-data').addEventListener('keydown', (event) => {
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  for (const button of document.querySelectorAll('[data-copies]')) {
    button.addEventListener('click', async () => {
      const source = at(button.dataset.copies);
      button.textContent = (await copy(source.textContent, source)) ? 'Copied' : 'Selected';
      setTimeout(() => (button.textContent = 'Copy'), 1500);
    });
  }

  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    if (jsonFault(at('push-data').value) !== null) {
      at('push-data').focus();
      return;
    }
    if (kind() !== 'all' && !isId(names[kind()])) {
      say(at('push-words'), `a ${kind()} is 1 to 128 of A-Z a-z 0-9 _ . @ -`, true);
      at('push-name').focus();
      return;
    }
    at('push').disabled = true;
    try {
      const data = minified(at('push-data').value);
      await pushTimes(api, pathOf(kind(), names[kind()]), data, at('push-key').value, at('push-times').valueAsNumber);
    } catch (error) {
      say(at('push-words'), inWords(error), true);
    } finally {
      at('push').disabled = false;
    }
  });
  addEventListener('keychange', show);
  show();
}

/** One push after the other, so that each has its own position and they keep their order. */
async function pushTimes(api, path, data, key, times) {
  const headers = key ? { 'Idempotency-Key': key } : {};
  let first = null;
  for (let n = 1; n <= times; n += 1) {
    const position = await api.call('POST', path, `{"data":${data}}`, headers);
    first ??= position;
    const offsets = first.offset === position.offset ? position.offset : `${first.offset} to ${position.offset}`;
    const counted = times > 1 ? `, ${n} of ${times}` : '';
    say(at('push-words'), `Accepted: ${position.stream} at ${offsets}, epoch ${position.epoch}${counted}`);
  }
}

function pathOf(kind, name) {
  return kind === 'all' ? 'api/all/push' : `api/${kind}s/${name}/push`;
}

/** `text` as one word of a shell. */
function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

function curlOf(api, path, data, key) {
  return [
    `curl -X POST ${new URL(path, location.href)}`,
    "-H 'Content-Type: application/json'",
    api.keyRequired ? '-H "Authorization: Bearer $TIDEGATE_API_KEY"' : null,
    key ? `-H ${quoted(`Idempotency-Key: ${key}`)}` : null,
    `-d ${quoted(`{"data":${data}}`)}`,
  ].filter((part) => part !== null).join(' \\\n  ');
}

function xaddOf(kind, name, data, key) {
  const address = kind === 'all' ? 'all 1' : `${kind} ${name}`;
  const repeatable = key ? ` key ${quoted(key)}` : '';
  return `redis-cli XADD tidegate:push '*' ${address} \\\n  data ${quoted(data)}${repeatable}`;
}
