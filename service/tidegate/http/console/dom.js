/** Elements without HTML in strings: what comes over the wire is only ever put in as text. */

/** The element with this id; every id asked for is in index.html. */
export function at(id) {
  return document.getElementById(id);
}

/** A new element. `on…` properties are listeners, null and false are left out, the rest are attributes. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** The badge of a stream; its kind gives the colour. */
export function streamBadge(stream) {
  return h('span', { class: `badge ${stream.split(':')[0]}` }, stream);
}

/** `3 nodes`, `1 node`. */
export function counted(number, word, many = `${word}s`) {
  return `${number.toLocaleString('en')} ${number === 1 ? word : many}`;
}

/**
 * Puts `children` in the place of what is in `element`. What had the focus has it again: the element with the same
 * `data-focus`, or that stands where it stood.
 */
export function replace(element, children) {
  const selector = 'a, button, input, [tabindex]';
  const focused = element.contains(document.activeElement) ? document.activeElement : null;
  const place = focused ? [...element.querySelectorAll(selector)].indexOf(focused) : -1;
  const key = focused?.dataset.focus;
  element.replaceChildren(...children);
  if (!focused) return;
  const next = key && element.querySelector(`[data-focus="${CSS.escape(key)}"]`);
  (next || element.querySelectorAll(selector)[place])?.focus();
}

/** The epoch of a position: short, and whole when it is pointed at or has the focus. */
export function epochCell(epoch, focus) {
  return h('td', { class: 'epoch', 'data-whole': epoch, 'data-focus': focus, tabindex: '0' }, h('span', {}, epoch));
}

/** Shows `words` in an element that is announced; `fault` colours them. */
export function say(element, words, fault = false) {
  element.textContent = words;
  element.classList.toggle('fault', fault);
}

/** Calls `draw` soon after it was asked for; at most ten times a second, for each drawing lays out and paints. */
export function seldom(draw) {
  let asked = false;
  let last_ms = -Infinity;
  const frame = () => {
    asked = false;
    last_ms = performance.now();
    draw();
  };
  return () => {
    if (asked) return;
    asked = true;
    const due_ms = last_ms + 100 - performance.now();
    if (due_ms > 0) setTimeout(() => requestAnimationFrame(frame), due_ms);
    else requestAnimationFrame(frame);
  };
}

/** Copies `text`; true if it worked. Without a clipboard (an insecure context, no permission) `source` is selected. */
export async function copy(text, source) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    getSelection().selectAllChildren(source);
    return false;
  }
}
