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
