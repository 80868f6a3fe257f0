/** A chart of values over time, as SVG: lines with a legend that says what is now, or where one points. */

import { h } from './dom.js';

const HEIGHT = 132;
const LEFT = 44; // room for the numbers
const BOTTOM = 18;
const TOP = 8;
const SPANS_MS = [60_000, 120_000, 300_000]; // the least that all fits into
const BREAK_MS = 10_000; // a line does not go over what was not looked at for so long

const clock = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' });

function s(tag, properties = {}, ...children) {
  const element = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [name, value] of Object.entries(properties)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** The least of 1, 2, 5, 10, 20, … that is not below `value`. */
export function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value * 0.999999);
}

/** A number for people: whole from 100 on, else with three digits that count. */
export function short(value) {
  if (value === null || value === undefined) return '–';
  if (value >= 100_000) return value.toLocaleString('en', { notation: 'compact', maximumSignificantDigits: 3 });
  return value.toLocaleString('en', value >= 100 ? { maximumFractionDigits: 0 } : { maximumSignificantDigits: 3 });
}

export class Chart {
  element;
  #svg;
  #readings = [];
  #when;
  #unit;
  #title;
  #times = [];
  #columns = [];
  #pointed = null; // ms; null: the newest

  /** `series`: names of the lines, up to six. `unit` stands behind numbers. */
  constructor({ title, unit = '', series }) {
    this.#unit = unit;
    this.#title = title;
    this.#svg = s('svg', { class: 'chart', role: 'img', tabindex: '0', height: HEIGHT });
    this.#when = h('span', { class: 'muted when' });
    this.element = h(
      'figure',
      { class: 'card figure-card' },
      h('figcaption', {}, h('h3', {}, title), this.#when),
      this.#svg,
      h('ul', { class: 'legend' }, ...series.map((name, index) => this.#entry(name, index))),
    );
    this.#svg.addEventListener('pointermove', (event) => this.#point(this.#timeAt(event.offsetX)));
    this.#svg.addEventListener('pointerleave', () => this.#point(null));
    this.#svg.addEventListener('blur', () => this.#point(null));
    this.#svg.addEventListener('keydown', (event) => this.#key(event));
  }

  /** `times`: Unix ms, growing; `columns`: for each line a value, or null, at each of them. */
  draw(times, columns) {
    this.#times = times;
    this.#columns = columns;
    this.#paint();
  }

  #entry(name, index) {
    const value = h('span', { class: 'now' }, '–');
    this.#readings.push({ name, value });
    return h('li', { class: `line-${index}` }, h('span', { class: 'swatch', 'aria-hidden': 'true' }), `${name} `, value);
  }

  #key(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
    if (!step || !this.#times.length) return;
    event.preventDefault();
    const next = this.#index() + step;
    this.#point(this.#times[Math.max(0, Math.min(this.#times.length - 1, next))]);
  }

  /** The sample that is pointed at, or the newest. */
  #index() {
    if (this.#pointed === null) return this.#times.length - 1;
    const away = this.#times.map((time) => Math.abs(time - this.#pointed));
    return away.indexOf(Math.min(...away));
  }

  #point(time) {
    this.#pointed = time;
    this.#paint();
  }

  get #span_ms() {
    const age_ms = this.#times.at(-1) - this.#times[0];
    return SPANS_MS.find((span) => span >= age_ms) ?? SPANS_MS.at(-1);
  }

  get #width() {
    return this.#svg.clientWidth;
  }

  #x(time) {
    return this.#width - ((this.#times.at(-1) - time) / this.#span_ms) * (this.#width - LEFT);
  }

  #timeAt(x) {
    return this.#times.at(-1) - ((this.#width - x) / (this.#width - LEFT)) * this.#span_ms;
  }

  #paint() {
    if (!this.#width || !this.#times.length) return; // not shown
    const known = this.#columns.flat().filter((value) => value !== null && value !== undefined);
    const most = roundUp(Math.max(...known, 0) || 1);
    const y = (value) => TOP + (1 - value / most) * (HEIGHT - TOP - BOTTOM);
    const parts = [...this.#grid(most, y)];
    for (const [index, column] of this.#columns.entries()) parts.push(...this.#line(column, index, y));
    const at = this.#index();
    if (this.#pointed !== null) {
      const x = this.#x(this.#times[at]).toFixed(1);
      parts.push(s('line', { class: 'pointed', x1: x, x2: x, y1: TOP, y2: HEIGHT - BOTTOM }));
    }
    this.#svg.setAttribute('viewBox', `0 0 ${this.#width} ${HEIGHT}`);
    this.#svg.replaceChildren(...parts);
    this.#say(at);
  }

  *#grid(most, y) {
    for (const value of [0, most / 2, most]) {
      yield s('line', { class: 'grid', x1: LEFT, x2: this.#width, y1: y(value), y2: y(value) });
      yield s('text', { class: 'axis', x: LEFT - 6, y: y(value) + 4, 'text-anchor': 'end' }, short(value));
    }
    for (const share of [0.8, 0.4]) {
      const ms = share * this.#span_ms;
      const ago = ms < 120_000 ? `${ms / 1000} s ago` : `${ms / 60_000} min ago`;
      yield s('text', { class: 'axis', x: this.#x(this.#times.at(-1) - ms), y: HEIGHT - 4, 'text-anchor': 'middle' }, ago);
    }
    yield s('text', { class: 'axis', x: this.#width, y: HEIGHT - 4, 'text-anchor': 'end' }, 'now');
  }

  /** A path, broken where nothing is known; a value that stands alone is a dot. */
  *#line(column, index, y) {
    const parts = [];
    let last_ms = -Infinity;
    for (const [at, value] of column.entries()) {
      const time = this.#times[at];
      const known = value !== null && value !== undefined;
      if (known && this.#x(time) >= LEFT) {
        if (time - last_ms > BREAK_MS || column[at - 1] === null) parts.push([]);
        parts.at(-1).push([this.#x(time).toFixed(1), y(value).toFixed(1)]);
        last_ms = time;
      }
    }
    for (const points of parts) {
      const [[x, top]] = points;
      if (points.length === 1) yield s('circle', { class: `dot-${index}`, cx: x, cy: top, r: 1.8 });
      else yield s('polyline', { class: `line-${index}`, points: points.map((point) => point.join()).join(' ') });
    }
  }

  #say(at) {
    const words = this.#readings.map(({ name, value }, index) => {
      const now = this.#columns[index]?.[at] ?? null;
      const text = short(now) + (now !== null && this.#unit ? ` ${this.#unit}` : '');
      value.textContent = text;
      return `${name} ${text}`;
    });
    this.#when.textContent = this.#pointed === null ? '' : clock.format(this.#times[at]);
    this.#svg.setAttribute('aria-label', `${this.#title}, ${this.#when.textContent || 'now'}: ${words.join(', ')}`);
  }
}
