/* The entities as a table that can be sorted. */

import { counted, el, number } from "./dom.js";

const ROWS = 200;
const COLUMNS = [
  { name: "Text", value: (row) => row.text, words: true },
  { name: "Label", value: (row) => row.label, words: true },
  { name: "Score", value: (row) => row.score },
  { name: "Start", value: (row) => row.start },
  { name: "End", value: (row) => row.end },
];
const BY_START = 3;

/** Shows rows {text, label, score, start, end, colour}; start and end in code points. */
export class TableView {
  #rows = [];
  #limit = ROWS;
  #sort = { column: BY_START, down: false };

  constructor(root) {
    this.body = el("tbody");
    this.heads = COLUMNS.map(({ name, words }, column) => el("th", { scope: "col", class: words ? "" : "figure" },
      el("button", { type: "button", on: { click: () => this.#sortBy(column) } }, name)));
    this.more = el("button", { type: "button", on: { click: () => this.#showMore() } });
    root.replaceChildren(
      el("table", {},
        el("caption", {}, "Start and end count Unicode code points of the whole text."),
        el("thead", {}, el("tr", {}, ...this.heads)), this.body),
      this.more,
    );
  }

  /** Show these rows, which are by start. */
  show(rows) {
    this.#rows = rows;
    this.#limit = ROWS;
    this.#draw();
  }

  #sortBy(column) {
    this.#sort = { column, down: this.#sort.column === column && !this.#sort.down };
    this.#draw();
  }

  #showMore() {
    const first = this.#limit;
    this.#limit += 5 * ROWS;
    this.#draw();
    const row = this.body.children[first];
    row.tabIndex = -1;
    row.focus();
  }

  #draw() {
    const { column, down } = this.#sort;
    const { value, words } = COLUMNS[column];
    const compare = words ? new Intl.Collator().compare : (a, b) => a - b;
    const rows = [...this.#rows].sort((a, b) => (down ? -1 : 1) * compare(value(a), value(b)));
    this.heads.forEach((head, at) => {
      if (at === column) head.setAttribute("aria-sort", down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    this.body.replaceChildren(...rows.slice(0, this.#limit).map(line));
    this.more.hidden = rows.length <= this.#limit;
    this.more.textContent = `Show more (${counted(rows.length - this.#limit, "row", "rows")} left)`;
  }
}

function line({ text, label, score, start, end, colour }) {
  return el("tr", {},
    el("td", {}, el("bdi", { class: "cell-text" }, text)),
    el("td", {}, el("span", { class: "chip", data: { colour } }, label)),
    el("td", { class: "figure", title: String(score) }, score.toFixed(3)),
    el("td", { class: "figure" }, number(start)),
    el("td", { class: "figure" }, number(end)),
  );
}
