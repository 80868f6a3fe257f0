/** What outlives the page, in localStorage. What cannot be read there counts as absent. */

const FORM = 'tidegate.console';
const LANES = 'tidegate.lanes';
const POSITIONS = 'tidegate.positions:'; // and the client id

function load(key) {
  try {
    return JSON.parse(localStorage.getItem(key));
  } catch {
    return null;
  }
}

/** The connection panel as it was: `{client, groups, address, connected}`; null where there is none. */
export function loadForm() {
  return load(FORM);
}

export function saveForm(form) {
  localStorage.setItem(FORM, JSON.stringify(form));
}

/** The ways that are compared, beside the direct one: `[{name, address}]`; null where none were ever chosen. */
export function loadLanes() {
  return load(LANES);
}

export function saveLanes(lanes) {
  localStorage.setItem(LANES, JSON.stringify(lanes));
}

/** A client's positions; an empty Map where there are none. */
export function loadPositions(client) {
  return new Map(Object.entries(load(POSITIONS + client) ?? {}));
}

export function savePositions(client, positions) {
  localStorage.setItem(POSITIONS + client, JSON.stringify(Object.fromEntries(positions)));
}

export function forgetPositions(client) {
  localStorage.removeItem(POSITIONS + client);
}

/** A storage for the library, which keeps the positions of `client` here, but for those that `wanted(stream)` denies. */
export function storageOf(client, wanted) {
  return {
    getItem() {
      const positions = Object.fromEntries([...loadPositions(client)].filter(([stream]) => wanted(stream)));
      return JSON.stringify({ v: 1, client, positions });
    },
    setItem(_, text) {
      savePositions(client, new Map(Object.entries(JSON.parse(text).positions)));
    },
    removeItem() {
      forgetPositions(client);
    },
  };
}
