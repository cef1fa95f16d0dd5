// Small charts of lines: SVG for the shape, text beside it for the numbers.
// Attributes only, and colours by class: the page's policy allows no style in the document.

import { el } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 240;
const HEIGHT = 64;
let made = 0;

function svg(name, attributes, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/** The next of 1, 2, 5, 10, 20, 50, … so that the scale rests while values move. */
export function roundUp(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  for (const step of [1, 2, 5]) if (value <= step * power * (1 + 1e-9)) return step * power;
  return 10 * power;
}

/**
 * The path of a line, or of the area under it; gaps where there is no value.
 * @param {(number | null)[]} values the newest last
 * @param {number} most values that have room
 * @param {number} top value at the upper edge
 */
export function pathOf(values, most, top, area = false) {
  const step = WIDTH / Math.max(1, most - 1);
  const first = most - values.length;
  const parts = [];
  let run = [];
  const close = () => {
    if (run.length === 1) run.push([run[0][0] + 0.01, run[0][1]]); // alone it would not be seen
    if (run.length === 0) return;
    const line = run.map(([x, y]) => `${x.toFixed(2)} ${y.toFixed(2)}`).join("L");
    const [start, end] = [run[0][0].toFixed(2), run.at(-1)[0].toFixed(2)];
    parts.push(area ? `M${start} ${HEIGHT}L${line}L${end} ${HEIGHT}Z` : `M${line}`);
    run = [];
  };
  values.forEach((value, index) => {
    if (value === null || value === undefined) close();
    else run.push([(first + index) * step, HEIGHT - 2 - (Math.min(value, top) / top) * (HEIGHT - 6)]);
  });
  close();
  return parts.join("");
}

/** A title, the newest values, and their lines. */
export class Chart {
  /**
   * @param {string} title
   * @param {{key: string, label: string, tone?: string}[]} lines which values of a point; the first
   *   one has its area filled; tone is the class of its colour
   * @param {(value: number | null) => string} format
   * @param {{least?: number, note?: (point: object) => string}} more the least scale, and a text that
   *   belongs to the newest point
   */
  constructor(title, lines, format, { least = 0, note = null } = {}) {
    Object.assign(this, { title, lines, format, least, note });
    const id = `chart-${(made += 1)}`;
    this.described = svg("desc", { id: `${id}-text` });
    this.paths = lines.map(({ tone }, index) => svg("path", {
      class: `line ${tone ?? `tone-${index + 1}`}`, "vector-effect": "non-scaling-stroke",
    }));
    this.area = svg("path", { class: `area ${lines[0].tone ?? "tone-1"}` });
    this.values = lines.map(() => el("span", { class: "value" }, "–"));
    this.noted = el("span", { class: "note" });
    this.top = el("span", { class: "top", "aria-hidden": "true" });
    this.element = el("figure", { class: "chart" },
      el("figcaption", {},
        el("span", { class: "title" }, title),
        el("span", { class: "newest" },
          ...lines.map(({ label, tone }, index) => el("span", { class: "entry" },
            el("span", { class: `key ${tone ?? `tone-${index + 1}`}`, "aria-hidden": "true" }),
            label && el("span", { class: "label" }, label), this.values[index])),
          this.noted)),
      el("div", { class: "plot" }, this.top,
        svg("svg", {
          viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img",
          "aria-labelledby": `${id}-title ${id}-text`, focusable: "false",
        },
        Object.assign(svg("title", { id: `${id}-title` }), { textContent: title }),
        this.described, svg("path", {
          class: "base", "vector-effect": "non-scaling-stroke",
          d: `M0 ${HEIGHT - 2}H${WIDTH}M0 4H${WIDTH}`,
        }), this.area, ...this.paths)));
  }

  /**
   * @param {object[]} points the newest last
   * @param {number} most points that have room
   * @param {string} span how long that is, in words
   */
  draw(points, most, span) {
    const rows = this.lines.map(({ key }) => points.map((point) => point?.[key] ?? null));
    const known = rows.flat().filter((value) => value !== null);
    const peak = known.length ? Math.max(...known) : 0;
    const top = roundUp(Math.max(peak, this.least, 1e-9));
    rows.forEach((values, index) => {
      const idle = this.lines[index].tone && !values.some((value) => value > 0); // it would hide others
      this.paths[index].setAttribute("d", idle ? "" : pathOf(values, most, top));
      this.values[index].textContent = this.format(values.at(-1) ?? null);
    });
    this.area.setAttribute("d", pathOf(rows[0], most, top, true));
    this.top.textContent = known.length ? this.format(top) : "";
    this.noted.textContent = this.note && points.at(-1) ? this.note(points.at(-1)) : "";
    this.described.textContent = this.summary(rows, span);
  }

  /** What the lines show, in words. */
  summary(rows, span) {
    const texts = this.lines.map(({ label }, index) => {
      const known = rows[index].filter((value) => value !== null);
      const name = label ? `${label}: ` : "";
      if (known.length === 0) return `${name}nothing yet`;
      const [low, high] = [Math.min(...known), Math.max(...known)];
      return `${name}now ${this.format(rows[index].at(-1))}, `
        + `lowest ${this.format(low)}, highest ${this.format(high)}`;
    });
    return `The last ${span}. ${texts.join("; ")}.`;
  }

  /** A row a line for a table: name, now, mean, lowest, highest. */
  table(points) {
    return this.lines.map(({ key, label }) => {
      const values = points.map((point) => point?.[key] ?? null);
      const known = values.filter((value) => value !== null);
      const mean = known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : null;
      const ends = known.length ? [Math.min(...known), Math.max(...known)] : [null, null];
      const name = label ? `${this.title}, ${label}` : this.title;
      return [name, ...[values.at(-1) ?? null, mean, ...ends].map(this.format)];
    });
  }
}
