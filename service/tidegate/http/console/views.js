/**
 * The views of the page. Which one is shown stands in the address behind #, with what it shows, so that it can be linked
 * to and comes back after a reload: `#find/client/alice`.
 */

const FIRST = 'try';

/** Goes to a view; `parts` say what it is to show. */
export function go(view, ...parts) {
  location.hash = [view, ...parts.map(encodeURIComponent)].join('/');
}

/** The address of a view, for a link. */
export function linkTo(view, ...parts) {
  return `#${[view, ...parts.map(encodeURIComponent)].join('/')}`;
}

/** `listener(...parts)` is called whenever `view` comes into sight, or is to show something else. */
export function onView(view, listener) {
  addEventListener('view', ({ detail }) => {
    if (detail.view === view) listener(...detail.parts);
  });
}

/** Shows what the address says, from now on. */
export function startViews() {
  const names = [...document.querySelectorAll('[data-view]')].map(({ dataset }) => dataset.view);
  const show = () => {
    const [asked, ...parts] = location.hash.slice(1).split('/').map(decoded);
    const view = names.includes(asked) ? asked : FIRST;
    for (const name of names) {
      document.getElementById(`view-${name}`).hidden = name !== view;
      const link = document.querySelector(`[data-view="${name}"]`);
      if (name === view) link.setAttribute('aria-current', 'page');
      else link.removeAttribute('aria-current');
    }
    dispatchEvent(new CustomEvent('view', { detail: { view, parts } }));
  };
  addEventListener('hashchange', show);
  show();
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
