/** Prometheus' text format, as far as /metrics uses it. No DOM. */

const SAMPLE = /^([A-Za-z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)/;
const LABEL = /([A-Za-z_]\w*)="((?:[^"\\]|\\.)*)"/g;

/** What one answer of /metrics says. Labels are objects from name to value. */
export class Scrape {
  #samples = new Map(); // name -> [{labels, value}]

  constructor(text) {
    for (const line of text.split('\n')) {
      const [, name, labels, value] = SAMPLE.exec(line) ?? [];
      if (name === undefined) continue;
      if (!this.#samples.has(name)) this.#samples.set(name, []);
      this.#samples.get(name).push({ labels: labelsOf(labels ?? ''), value: Number(value) });
    }
  }

  /** The sum over the labels that are `wanted`; null where there is no such metric. A counter may have no sample yet. */
  sum(name, wanted = () => true) {
    const samples = this.#samples.get(name);
    if (!samples) return null;
    return samples.reduce((sum, { labels, value }) => (wanted(labels) ? sum + value : sum), 0);
  }

  /** `[labels, value]` of each sample. */
  samples(name) {
    return (this.#samples.get(name) ?? []).map(({ labels, value }) => [labels, value]);
  }

  /** A histogram's `[upper bound, how many up to it]`, in seconds, over all its labels; the last bound is Infinity. */
  buckets(name) {
    const found = new Map();
    for (const [{ le }, value] of this.samples(`${name}_bucket`)) {
      const bound = le === '+Inf' ? Infinity : Number(le);
      found.set(bound, (found.get(bound) ?? 0) + value);
    }
    return [...found].sort(([some], [other]) => some - other);
  }
}

/**
 * The value below which `share` of the observations lie that came between two scrapes, by a straight line within its
 * bucket; null where none came, or the node was started anew in between.
 */
export function quantile(before, after, name, share) {
  const old = new Map(before.buckets(name));
  const grown = after.buckets(name).map(([bound, count]) => [bound, count - (old.get(bound) ?? 0)]);
  const all = grown.at(-1)?.[1] ?? 0;
  if (all <= 0) return null;
  let [low, below] = [0, 0];
  for (const [bound, count] of grown) {
    if (count >= share * all && count > below) {
      return bound === Infinity ? low : low + ((bound - low) * (share * all - below)) / (count - below);
    }
    [low, below] = [bound, count];
  }
  return null;
}

/** Growth in a second between two scrapes that are `ms` apart; null where the node was started anew in between. */
export function rate(before, after, ms, name, wanted) {
  const [then, now] = [before, after].map((scrape) => scrape.sum(name, wanted) ?? 0);
  return now < then ? null : ((now - then) * 1000) / ms;
}

function labelsOf(text) {
  return Object.fromEntries([...text.matchAll(LABEL)].map(([, name, value]) => [name, value]));
}
