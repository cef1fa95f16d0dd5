/* A model on the models page: its state, what is known of it, how it does, and buttons for it. Draws what
   it is given; asks nothing of the server. */

import { Chart } from "./charts.js";
import { counted, el } from "./dom.js";
import { formats } from "./numbers.js";

/** Reasons that are no faults: somebody wanted it so. */
const UNLOADED = "unloaded";
const NOT_LOADED = /^not loaded: /;

/** What a state is called, and the tone that it is shown in. */
export function stateOf({ state, reason }) {
  if (state === "READY") return reason ? ["Ready but stale", "warn"] : ["Ready", "good"];
  if (state === "LOADING") return ["Loading", "busy"];
  if (state === "UNLOADING") return ["Unloading", "busy"];
  if (!reason || NOT_LOADED.test(reason)) return ["Not loaded", "off"];
  return reason === UNLOADED ? ["Unloaded", "off"] : ["Failed", "bad"];
}

/** The server's words, as they stand on a page. */
export function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** A number of seconds ago, in words. */
function ago(seconds) {
  if (seconds < 90) return `${Math.max(0, Math.round(seconds))} s ago`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min ago`;
  if (seconds < 129600) return `${Math.round(seconds / 3600)} h ago`;
  return `${Math.round(seconds / 86400)} days ago`;
}

function newCharts() {
  const { number, seconds, share } = formats;
  return [
    new Chart("Requests a second", [
      { key: "requests", label: "answered" }, { key: "errors", label: "failed", tone: "tone-bad" },
    ], number, { least: 1 }),
    new Chart("Time of a run", [
      { key: "run50", label: "p50" }, { key: "run99", label: "p99" },
    ], seconds, { least: 0.001 }),
    new Chart("Wait for a run", [
      { key: "wait50", label: "p50" }, { key: "wait99", label: "p99" },
    ], seconds, { least: 0.001 }),
    new Chart("Rows in a batch, mean", [{ key: "rows", label: "" }], number, { least: 1 }),
    new Chart("Tokens a second", [{ key: "tokens", label: "" }], number, {
      least: 1,
      note: ({ padding }) => (padding === null ? "" : `and ${share(padding)} padding`),
    }),
    new Chart("Rows that wait", [{ key: "waiting", label: "" }], number, {
      least: 1, note: ({ waiting, age }) => (waiting ? `for up to ${seconds(age)}` : ""),
    }),
  ];
}

/** Charts with a table of the same numbers. */
export class Charts {
  /** @param {Chart[]} charts @param {string} name whose they are @param {boolean} open at first */
  constructor(charts, name, open) {
    this.charts = charts;
    this.last = null;
    this.live = el("span", { class: "live" });
    this.body = el("tbody");
    const columns = ["", "now", "mean", "lowest", "highest"];
    this.details = el("details", { class: "as-table", on: { toggle: () => this.again() } },
      el("summary", {}, "As a table"),
      wideTable(`${name} in numbers`, el("table", {},
        el("caption", { class: "hidden" }, `${name}, the numbers of the charts`),
        el("thead", {}, el("tr", {}, ...columns.map((each) => (each
          ? el("th", { scope: "col" }, each) : el("td"))))), this.body)));
    this.element = el("details", { class: "charts", open, on: { toggle: () => this.again() } },
      el("summary", {}, "Charts", el("span", { class: "hidden" }, ` of ${name}`), this.live),
      el("div", { class: "chart-grid" }, ...charts.map(({ element }) => element)), this.details);
  }

  draw(points, most, span) {
    this.last = [points, most, span];
    this.again();
  }

  /** The first value of the first two charts. */
  brief(point) {
    if (!point) return "";
    return this.charts.slice(0, 2).map(({ title, lines: [{ key, label }], format }) => (
      `${title}${key === "requests" ? "" : `, ${label}`}: ${format(point[key] ?? null)}`)).join(" · ");
  }

  /** As the last time; of what is folded up the newest numbers. */
  again() {
    if (this.last === null) return;
    const [points, most, span] = this.last;
    this.live.textContent = this.element.open ? `the last ${span}` : this.brief(points.at(-1));
    if (!this.element.open) return;
    for (const chart of this.charts) chart.draw(points, most, span);
    if (!this.details.open) return;
    this.body.replaceChildren(...this.charts.flatMap((chart) => chart.table(points))
      .map(([name, ...values]) => el("tr", {},
        el("th", { scope: "row" }, name), ...values.map((value) => el("td", {}, value)))));
  }
}

/** A table that can be scrolled sideways, by the keyboard too. */
function wideTable(name, table) {
  return el("div", { class: "wide-table", role: "region", "aria-label": name, tabIndex: 0 }, table);
}

function fact(name, value) {
  return value === null || value === undefined || value === ""
    ? null : el("div", {}, el("dt", {}, name), el("dd", {}, String(value)));
}

export class ModelCard {
  /**
   * @param {string} name
   * @param {{charts: boolean, open: boolean, control: null | {load: () => void, unload: () => void}}}
   *   options control null: there are no buttons
   */
  constructor(name, { charts, open, control }) {
    this.name = name;
    const id = `model-${encodeURIComponent(name)}`;
    this.badge = el("span", { class: "badge" });
    this.isDefault = el("span", { class: "pill", hidden: true }, "default");
    this.reason = el("div", { class: "notice", hidden: true });
    this.fault = el("div", { class: "notice bad", hidden: true });
    this.facts = el("dl", { class: "facts" });
    this.labels = el("details", { class: "labels", hidden: true });
    this.count = el("summary"); // stays, as it may have the focus
    this.rows = el("tbody");
    this.versions = this.newVersions();
    this.charts = charts ? new Charts(newCharts(), name, open) : null;
    this.load = el("button", { type: "button", class: "small", on: { click: () => control.load() } });
    this.unload = el("button", {
      type: "button", class: "small", on: { click: () => control.unload() },
    }, "Unload", el("span", { class: "hidden" }, ` ${name}`));
    this.element = el("article", { class: "card model", "aria-labelledby": id },
      el("header", {}, el("h2", { id }, name), this.badge, this.isDefault, el("span", { class: "push" }),
        control && el("div", { class: "actions" }, this.load, this.unload)),
      this.fault, this.reason, this.facts, this.labels, this.versions, this.charts?.element);
    this.busy = null;
  }

  /** @param row of /v1/models @param status of /v1/models/{name}, or null @param totals or undefined */
  draw(row, status, totals, now) {
    const [word, tone] = this.busy ? [this.busy, "busy"] : stateOf(row);
    if (this.badge.textContent !== word) this.badge.textContent = word;
    this.badge.dataset.tone = tone;
    this.isDefault.hidden = !row.default;
    this.drawReason(row, tone);
    this.drawButtons(row);
    const key = JSON.stringify([row, status, [...(totals?.versions ?? [])], Math.floor(now / 10)]);
    if (key === this.drawn) return;
    this.drawn = key;
    this.drawFacts(row, status, totals, now);
    this.drawLabels(status);
    this.drawVersions(status, totals);
  }

  drawReason({ reason, state }, tone) {
    const situation = `${state} ${reason}`;
    if (this.situation !== situation && !this.busy) {
      if (this.situation !== undefined && state === "READY") this.tell(null);
      this.situation = situation;
    }
    const told = this.fault.textContent.toLowerCase().includes(reason.toLowerCase()); // once is enough
    const shown = reason && reason !== UNLOADED && !this.busy && !told ? reason : "";
    this.reason.hidden = !shown;
    if (this.reason.dataset.text === shown) return;
    this.reason.dataset.text = shown;
    this.reason.className = `notice ${tone}`;
    if (tone === "off") {
      this.reason.replaceChildren(el("p", {}, sentence(shown.replace(NOT_LOADED, ""))));
      return;
    }
    const title = state === "READY"
      ? "Something in its folder cannot be loaded; what is loaded answers."
      : "This model cannot be loaded.";
    this.reason.replaceChildren(el("strong", {}, title), el("p", { class: "reason" }, shown));
  }

  drawButtons({ state }) {
    const there = state === "READY" || state === "UNLOADING";
    const word = there ? "Reload" : "Load";
    if (this.load.dataset.word !== word) {
      this.load.dataset.word = word;
      this.load.replaceChildren(word, el("span", { class: "hidden" }, ` ${this.name}`));
    }
    // Not `disabled`, which would lose the keyboard's place.
    for (const button of [this.load, this.unload]) button.ariaDisabled = String(this.busy !== null);
    const gone = !there && document.activeElement === this.unload;
    this.unload.hidden = !there;
    if (gone) this.load.focus();
  }

  drawFacts(row, status, totals, now) {
    const limits = status?.limits;
    const ready = status?.versions.filter(({ state }) => state === "READY") ?? [];
    const of = [...(totals?.versions.values() ?? [])];
    const each = (values) => [...new Set(values.filter((value) => value))].join(", ");
    const loaded = Math.max(0, ...of.map((version) => version.loaded ?? 0));
    const precision = each(of.map((version) => version.precision)).replaceAll("as_it_is", "as in the file");
    this.facts.replaceChildren(...[
      fact(row.versions.length > 1 ? "Versions" : "Version", row.versions.join(", ")),
      fact("Runs on", each(ready.map(({ device }) => device?.toUpperCase()))),
      fact("Precision", precision),
      fact("Text", limits && `${counted(limits.max_tokens, "token", "tokens")}${
        limits.stride === null ? ", cut beyond" : `, in windows that share ${limits.stride}`}`),
      fact("Batch", limits && `${counted(limits.max_batch_size, "row", "rows")}, ${
        counted(limits.max_num_tokens, "token", "tokens")}`),
      fact("Queue", limits && counted(limits.max_queue_size, "row", "rows")),
      fact("Loaded", loaded ? ago(now - loaded) : ""),
      fact("Config", status?.config_override ? "not that of its folder" : ""),
    ].filter((each) => each !== null));
    this.facts.hidden = this.facts.childElementCount < 2; // a number of a version alone tells nothing
  }

  drawLabels(status) {
    const labels = status?.labels;
    this.labels.hidden = !labels;
    const key = labels?.join("\n") ?? "";
    if (!labels || this.labels.dataset.key === key) return;
    this.labels.dataset.key = key;
    this.labels.replaceChildren(el("summary", {}, counted(labels.length, "label", "labels")),
      el("ul", { class: "pills" }, ...labels.map((label) => el("li", { class: "pill" }, label))));
  }

  newVersions() {
    const columns = ["Version", "State", "Precision", "Rows a batch", "Padding", "Reason"];
    return el("details", { class: "versions", hidden: true }, this.count,
      wideTable(`Versions of ${this.name}`, el("table", {},
        el("thead", {}, el("tr", {}, ...columns.map((each) => el("th", { scope: "col" }, each)))),
        this.rows)));
  }

  drawVersions(status, totals) {
    const rows = status?.versions ?? [];
    this.versions.hidden = rows.length < 2;
    if (this.versions.hidden) return;
    const { number, share } = formats;
    const line = ({ version, state, reason, statistics: did }) => {
      const [word, tone] = stateOf({ state, reason });
      const precision = totals?.versions.get(version)?.precision ?? "";
      return el("tr", {}, el("th", { scope: "row" }, version),
        el("td", {}, el("span", { class: "badge", data: { tone } }, word)),
        el("td", {}, precision.replace("as_it_is", "as in the file")),
        el("td", {}, did?.batches ? number(did.mean_batch_size) : "–"),
        el("td", {}, did?.batches ? share(did.padding_waste) : "–"),
        el("td", { class: "reason" }, reason || "–"));
    };
    this.count.textContent = counted(rows.length, "version", "versions");
    this.rows.replaceChildren(...rows.map(line));
  }

  /** Show why a request of the buttons failed; null takes it away. */
  tell(title, message) {
    this.fault.hidden = title === null;
    this.fault.replaceChildren(...(title === null ? []
      : [el("strong", {}, title), el("p", { class: "reason" }, message)]));
  }
}
