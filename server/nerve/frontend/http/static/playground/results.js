/* The card with what was found: legend, text, table, JSON, and the request to take along. */

import { answers, reaches, written } from "./answer.js";
import { address, key } from "./api.js";
import { curl, grpc, python } from "./copies.js";
import { copy, counted, download, el, number } from "./dom.js";
import { TextView } from "./highlight.js";
import { TableView } from "./table.js";
import { tabs } from "./tabs.js";
import { tooltips } from "./tooltip.js";

const SAID_AFTER_MS = 300;
const SHOWN_AGAIN_MS = 150;
const JSON_BLOCK = 20_000;
const JSON_ENTITIES = 5_000; // browsers take seconds for a hundred thousand lines
const DONE_MS = 2_000;

/** Shows one result: see `Result` in tag.js. */
export class Results {
  #result = null;
  #hidden = new Set();
  #tab = "Text";
  #timer = null;
  #frame = null;
  #showing = null;
  #shownAt = -Infinity;

  /** @param {() => object} values what is chosen, see Controls. */
  constructor(values) {
    this.values = values;
    this.summary = el("p", { class: "summary", role: "status", "aria-label": "Result" });
    this.meta = el("p", { class: "hint meta" });
    this.legend = el("div", { class: "legend", role: "group", "aria-label": "Labels", hidden: true });
    this.notices = el("div", { class: "notices" });
    this.progress = el("progress", { max: 1, value: 0, hidden: true, "aria-label": "Progress" });
    const marked = el("div", { class: "marked", role: "group", tabIndex: 0, "aria-label": "Text with entities", "aria-describedby": "marked-hint" });
    this.text = new TextView(marked);
    const { tip, hide } = tooltips(marked, (mark) => this.#tell(mark));
    this.hideTip = hide;
    const table = el("div", { class: "scroll" });
    this.table = new TableView(table);
    this.json = el("pre", { class: "json", tabIndex: 0, "aria-label": "Answer" });
    this.jsonHint = el("p", { class: "hint" });
    const panels = [
      { name: "Text", panel: el("div", { class: "panel" }, marked, tip,
        el("p", { class: "hidden", id: "marked-hint" }, "Left and right arrow keys go from entity to entity.")) },
      { name: "Table", panel: el("div", { class: "panel" }, table) },
      { name: "JSON", panel: el("div", { class: "panel" }, this.jsonHint, this.json) },
    ];
    this.tabs = tabs("Views", panels, (name) => { this.#tab = name; this.#show(); });
    this.copies = this.#copies();
    this.body = el("div", { class: "result-body" }, this.legend, ...panels.map(({ panel }) => panel));
    this.root = el("section", { class: "card results", "aria-label": "Entities", "aria-busy": "false" },
      el("div", { class: "card-head" }, this.tabs.list, this.progress),
      this.notices, el("div", { class: "summary-line" }, this.summary, this.meta), this.body, this.copies);
    this.tabs.choose("Text");
    this.clear();
  }

  /** Show nothing but these notices. */
  clear(...notices) {
    this.#result = null;
    this.hideTip();
    this.text.reset("", () => 0);
    this.notices.replaceChildren(...notices);
    this.summary.textContent = notices.length ? "" : "Entities appear here.";
    this.meta.textContent = "";
    this.body.hidden = this.copies.hidden = this.legend.hidden = true;
  }

  /** Begin with a result that grows. */
  begin(result) {
    this.#result = result;
    this.#shownAt = -Infinity;
    this.hideTip();
    this.notices.replaceChildren();
    this.body.hidden = this.copies.hidden = false;
    this.buttons.gRPC.hidden = !result.server?.grpc.port;
    this.text.reset(result.text, result.colour);
    this.text.filter(this.#wanted());
  }

  /** Another request has its answer. */
  grow(batch) {
    this.text.add(batch.entities.flat(), batch.pieces.at(-1).end, batch.unread);
    this.#soon();
  }

  /** The threshold or the chosen labels are others now. */
  refilter() {
    if (!this.#result) return;
    cancelAnimationFrame(this.#frame);
    this.#frame = requestAnimationFrame(() => {
      this.hideTip();
      this.text.filter(this.#wanted());
      this.#soon();
    });
  }

  /** `share` of the text is done; null: nothing is in progress. */
  busy(share) {
    this.root.setAttribute("aria-busy", String(share !== null));
    this.progress.hidden = share === null;
    if (share) this.progress.value = share;
    else this.progress.removeAttribute("value");
  }

  close() {
    clearTimeout(this.#timer);
    clearTimeout(this.#showing);
    cancelAnimationFrame(this.#frame);
    this.text.close();
  }

  #wanted() {
    const { threshold } = this.values();
    return ({ score, label }) => reaches(score, threshold) && !this.#hidden.has(label);
  }

  /** Soon, but not with each of a thousand answers. */
  #soon() {
    if (performance.now() - this.#shownAt > SHOWN_AGAIN_MS) this.#show();
    else this.#showing ??= setTimeout(() => this.#show(), SHOWN_AGAIN_MS);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#say(), SAID_AFTER_MS);
  }

  #show() {
    clearTimeout(this.#showing);
    this.#showing = null;
    const result = this.#result;
    if (!result) return;
    this.#shownAt = performance.now();
    this.#showLegend();
    if (this.#tab === "Table") {
      const { offsets, text, colour } = result;
      this.table.show(result.entities.filter(this.#wanted()).map(({ start, end, label, score }) => ({
        text: text.slice(start, end), label, score, colour: colour(label),
        start: offsets.codePoints(start), end: offsets.codePoints(end),
      })));
    }
    if (this.#tab === "JSON") this.#showJson();
  }

  #say() {
    const result = this.#result;
    if (!result) return;
    const wanted = this.#wanted();
    const [one, many] = result.strategy === "none" ? ["token", "tokens"] : ["entity", "entities"];
    const shown = result.entities.filter(wanted).length;
    const left = result.entities.length - shown;
    const found = shown ? counted(shown, one, many) : `No ${many}`;
    this.summary.textContent = left ? `${found}, ${number(left)} not shown` : found;
    this.meta.textContent = result.meta();
  }

  #showLegend() {
    const { threshold } = this.values();
    const counts = new Map();
    for (const { label, score } of this.#result.entities) {
      counts.set(label, (counts.get(label) ?? 0) + (reaches(score, threshold) ? 1 : 0));
    }
    this.legend.hidden = !counts.size;
    const known = new Map([...this.legend.children].map((each) => [each.dataset.label, each]));
    const wanted = [...counts.keys()].sort().map((label) => {
      const button = known.get(label) ?? this.#legendButton(label);
      button.lastChild.textContent = number(counts.get(label));
      button.dataset.colour = this.#result.colour(label);
      return button;
    });
    const same = wanted.length === this.legend.children.length && wanted.every((each, at) => each === this.legend.children[at]);
    if (!same) this.legend.replaceChildren(...wanted); // the focus stays where nothing changes
  }

  #legendButton(label) {
    const button = el("button", {
      type: "button", class: "small legend-item", data: { label }, title: "Show or hide", "aria-pressed": String(!this.#hidden.has(label)),
      on: { click: () => {
        if (!this.#hidden.delete(label)) this.#hidden.add(label);
        button.setAttribute("aria-pressed", String(!this.#hidden.has(label)));
        this.refilter();
      } },
    }, el("span", { class: "swatch", "aria-hidden": "true" }), el("span", { class: "legend-label" }, label), " ", el("span", { class: "count" }, ""));
    return button;
  }

  #tell(mark) {
    const { label, score, start, end } = mark.dataset;
    const { offsets } = this.#result;
    const [from, to] = [offsets.codePoints(Number(start)), offsets.codePoints(Number(end))];
    return [
      el("strong", {}, label), " ", el("span", {}, `score ${Number(score).toFixed(3)}`), " ",
      el("span", { class: "soft" }, `characters ${number(from)} to ${number(to)}`),
    ];
  }

  #answer(most = Infinity) {
    return answers(this.#result.batches, this.#wanted(), this.#result.offsets, most).map(written).join("");
  }

  #showJson() {
    const { batches, entities } = this.#result;
    const wanted = this.#wanted();
    const all = entities.reduce((sum, each) => sum + (wanted(each) ? 1 : 0), 0);
    const pieces = batches.reduce((sum, batch) => sum + batch.pieces.length, 0);
    this.jsonHint.textContent = pieces === 1
      ? "The answer to the request as it is copied; offsets count code points."
      : `The answers to ${counted(batches.length, "request", "requests")} with ${number(pieces)} pieces of the text, as they are copied; offsets count code points from the start of each piece.`;
    if (all > JSON_ENTITIES) {
      this.jsonHint.textContent += ` The first ${number(JSON_ENTITIES)} of ${number(all)} are shown; “Download JSON” has all.`;
    }
    const text = this.#answer(JSON_ENTITIES);
    const parts = [];
    for (let at = 0; at < text.length;) {
      const line = text.indexOf("\n", at + JSON_BLOCK);
      const end = line === -1 ? text.length : line + 1;
      parts.push(el("span", { class: "json-block" }, text.slice(at, end)));
      at = end;
    }
    this.json.replaceChildren(...parts);
  }

  /** See `Shown` in copies.js. */
  #asShown() {
    const { text, batches, model, version, strategy, labels, server } = this.#result;
    const present = new Set(this.#result.entities.map(({ label }) => label));
    return {
      model, version, strategy, labels, threshold: this.values().threshold,
      hidden: [...this.#hidden].filter((label) => present.has(label)).sort(),
      batches: batches.map(({ pieces }) => pieces.map(({ start, end }) => text.slice(start, end))),
      keyed: Boolean(server?.keys || key.get()),
    };
  }

  #copies() {
    const base = address("");
    const grpcPlace = () => {
      const { port, tls } = this.#result.server?.grpc ?? {};
      return { hostname: location.hostname, port, tls };
    };
    const as = (name, make) => el("button", { type: "button", class: "small", "aria-label": `Copy as ${name}`, on: {
      click: async () => this.#copied(name, await copy(make(this.#asShown()))),
    } }, name);
    this.buttons = {
      curl: as("curl", (shown) => curl(shown, base)),
      Python: as("Python", (shown) => python(shown, base)),
      gRPC: as("gRPC", (shown) => grpc(shown, grpcPlace())),
    };
    this.copyState = el("span", { class: "hint", role: "status", "aria-label": "Copied" });
    const save = el("button", { type: "button", class: "small quiet", on: {
      click: () => download("entities.json", "application/json", this.#answer()),
    } }, "Download JSON");
    return el("div", { class: "copies", role: "group", "aria-label": "This request" },
      el("span", { class: "hint", "aria-hidden": "true" }, "Copy as"), ...Object.values(this.buttons),
      this.copyState, el("span", { class: "push" }), save);
  }

  #copied(name, done) {
    this.copyState.textContent = done ? `✓ Copied as ${name}` : "The browser did not let it be copied";
    clearTimeout(this.copyTimer);
    this.copyTimer = setTimeout(() => { this.copyState.textContent = ""; }, DONE_MS);
  }
}
