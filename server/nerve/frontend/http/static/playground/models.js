/* The models page: asks the server every two seconds while somebody can see it, and keeps what it needs
   for four minutes of charts. */

import { ApiError, mayAsk } from "./api.js";
import { Charts, ModelCard, sentence, stateOf } from "./cards.js";
import { Chart } from "./charts.js";
import { counted, el } from "./dom.js";
import { FAMILIES, formats, modelPoint, NOTHING, readTotals, serverPoint } from "./numbers.js";

const EVERY_MS = 2000;
const PATIENCE_MS = 10_000;
/** Points of a chart: so many at most, and room for so many at first. */
const MOST = 120;
const LEAST = 30;
/** Percentiles and means are over so many looks: of one alone there may be too little to tell. */
const LOOKS = 5;
/** Charts of more models than this are folded up at first; on a phone, of more than one. */
const OPEN = 4;
const NARROW = matchMedia("(max-width: 40rem)");
const METRICS = `v1/metrics?${FAMILIES.map((name) => `name=${name}`).join("&")}`;

function serverCharts() {
  const { number, seconds } = formats;
  return [
    new Chart("Requests a second", [
      { key: "requests", label: "answered" }, { key: "errors", label: "failed", tone: "tone-bad" },
    ], number, { least: 1 }),
    new Chart("Time of a request", [
      { key: "latency50", label: "p50" }, { key: "latency99", label: "p99" },
    ], seconds, { least: 0.001 }),
    new Chart("Rows that wait", [{ key: "waiting", label: "" }], number, { least: 1 }),
  ];
}

/**
 * Ask whether to unload a model. Escape and Cancel are no; the keyboard's place is kept.
 * @returns {Promise<boolean>}
 */
function confirmUnload(root, name) {
  const cancel = el("button", { type: "button", autofocus: true }, "Cancel");
  const dialog = el("dialog", {
    class: "confirm", "aria-labelledby": "unload-title", "aria-describedby": "unload-text",
  }, el("form", { on: { submit: (event) => { event.preventDefault(); dialog.close("yes"); } } },
    el("h2", { id: "unload-title" }, `Unload ${name}?`),
    el("p", { id: "unload-text" }, "Requests that it has are still answered, later ones are refused until it is "
      + "loaded again."),
    el("div", { class: "actions" }, el("span", { class: "push" }), cancel,
      el("button", { type: "submit", class: "danger" }, "Unload"))));
  cancel.addEventListener("click", () => dialog.close());
  root.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      resolve(dialog.returnValue === "yes");
      dialog.remove();
    });
  });
}

class ModelsPage {
  constructor(root, api) {
    Object.assign(this, { root, api, server: null, stale: true, timer: null, running: false });
    this.gone = new AbortController();
    this.cards = new Map();
    this.known = new Map();
    this.words = new Map();
    this.looks = [];
    this.serverPoints = [];
    this.modelPoints = new Map();
    this.said = el("p", { class: "hidden", role: "status" });
    this.summary = el("p", { class: "hint" }, "Asking the server…");
    this.trouble = el("div", { class: "notice bad", hidden: true });
    this.note = el("div", { class: "notice", hidden: true });
    this.overall = new Charts(serverCharts(), "the server", true);
    this.whole = el("section", { class: "card model", "aria-labelledby": "all-models", hidden: true },
      el("header", {}, el("h2", { id: "all-models" }, "All models together")), this.overall.element);
    this.list = el("div", { class: "model-list" });
    root.replaceChildren(el("div", { class: "models" },
      el("div", { class: "models-head" }, el("h1", {}, "Models"), this.summary),
      this.said, this.trouble, this.note, this.whole, this.list));
    this.seen = () => (document.hidden ? clearTimeout(this.timer) : this.look());
    document.addEventListener("visibilitychange", this.seen);
    this.keyed = () => this.look();
    this.back = () => { this.stale = true; this.look(); };
    addEventListener("nerve-key", this.keyed);
    addEventListener("nerve-back", this.back);
    this.look();
  }

  unmount() {
    this.gone.abort();
    clearTimeout(this.timer);
    document.removeEventListener("visibilitychange", this.seen);
    removeEventListener("nerve-key", this.keyed);
    removeEventListener("nerve-back", this.back);
  }

  /** For those who listen to the page; what changes all the time is not said. */
  say(text) {
    this.said.textContent = text;
  }

  async get(path) {
    return (await this.api.get(path, { signal: this.gone.signal })).body;
  }

  /** Ask and draw, and again in a while. */
  async look() {
    clearTimeout(this.timer);
    if (this.running || document.hidden || this.gone.signal.aborted) return;
    this.running = true;
    let wait = EVERY_MS;
    try {
      await this.ask();
      this.told(null);
    } catch (error) {
      if (this.gone.signal.aborted) return;
      if (!(error instanceof ApiError)) reportError(error); // a fault of this page; it goes on
      wait = error.status === 401 || error.status === 403 ? null : PATIENCE_MS;
      this.told(error, wait);
    } finally {
      this.running = false;
    }
    clearTimeout(this.timer);
    if (wait !== null && !document.hidden) this.timer = setTimeout(() => this.look(), wait);
  }

  /** Show what is wrong with the last look. */
  told(error, wait) {
    this.trouble.hidden = error === null;
    const message = error?.reason === "unauthenticated"
      ? "This server wants an API key." : sentence(error?.message ?? "");
    if (this.trouble.dataset.text === message) return;
    this.trouble.dataset.text = message;
    const again = wait === null
      ? el("button", { type: "button", class: "small", on: { click: () => { mayAsk(); this.look(); } } }, "Try again")
      : el("p", {}, "It is asked again in a while.");
    if (this.cards.size === 0) this.summary.textContent = "";
    this.trouble.replaceChildren(el("strong", {}, "The models cannot be shown."), el("p", {}, message), again);
    this.say(message && `The models cannot be shown. ${message}`);
  }

  async ask() {
    if (this.stale) await this.meet();
    const [{ models }, metrics] = await Promise.all([
      this.get("v1/models"), this.server.metrics ? this.get(METRICS) : null,
    ]);
    const totals = metrics && readTotals(metrics);
    if (totals) this.keep(totals);
    await this.askMore(models, totals);
    this.draw(models, totals);
  }

  /** Learn what the server may and has; one that came back may be another. */
  async meet() {
    const server = await this.get("v1/server");
    const same = JSON.stringify(server) === JSON.stringify(this.server);
    Object.assign(this, { server, stale: false });
    if (same) return;
    for (const { element } of this.cards.values()) element.remove();
    for (const map of [this.cards, this.known]) map.clear();
  }

  /** Look closer at models that have changed, and at what each of several versions did. */
  async askMore(models, totals) {
    await Promise.all(models.map(async (row) => {
      const loads = [...(totals?.models.get(row.name)?.versions ?? [])];
      const did = totals ? totals.models.get(row.name)?.run.count : Date.now();
      const key = JSON.stringify([row, loads, row.versions.length > 1 ? did : null]);
      if (this.known.get(row.name)?.key === key) return;
      try {
        const status = await this.get(`v1/models/${encodeURIComponent(row.name)}`);
        this.known.set(row.name, { key, status });
      } catch (error) {
        if (error.status !== 404) throw error; // it has just gone
      }
    }));
  }

  keep(totals) {
    const before = this.looks.at(-1);
    const seconds = before ? totals.time - before.time : 0;
    if (before && Math.abs(seconds) < 0.2) return; // nothing can be told of so short a time
    if (seconds < 0) this.looks = []; // the server's clock was set back
    this.looks = [...this.looks, totals].slice(-LOOKS - 1);
    if (seconds <= 0) return;
    const [earlier] = this.looks;
    const push = (points, point) => [...points, point].slice(-MOST);
    const waiting = [...totals.models.values()].reduce((sum, model) => sum + model.waiting, 0);
    const whole = serverPoint(totals.server, before.server, earlier.server, seconds);
    this.serverPoints = push(this.serverPoints, { ...whole, waiting });
    for (const [name, now] of totals.models) {
      const [was, first] = [before, earlier].map((look) => look.models.get(name) ?? NOTHING);
      const points = this.modelPoints.get(name) ?? [];
      this.modelPoints.set(name, push(points, modelPoint(now, was, first, seconds)));
    }
  }

  draw(models, totals) {
    const most = Math.max(LEAST, this.serverPoints.length);
    const seconds = most * EVERY_MS / 1000;
    const span = seconds < 120 ? `${seconds} s` : `${Math.floor(seconds / 60)} minutes`;
    const ready = models.filter(({ state }) => state === "READY").length;
    this.drawSummary(models);
    this.whole.hidden = !totals;
    this.overall.draw(this.serverPoints, most, span);
    this.note.hidden = Boolean(totals);
    if (!totals && !this.note.hasChildNodes()) {
      this.note.append(el("strong", {}, "There are no charts."), el("p", {},
        "The metrics of this server have a port of their own (metrics_port)."));
    }
    const now = totals?.time ?? Date.now() / 1000;
    const names = new Set(models.map(({ name }) => name));
    for (const [name, card] of this.cards) {
      if (names.has(name)) continue;
      card.element.remove();
      for (const map of [this.cards, this.known, this.modelPoints]) map.delete(name);
    }
    models.forEach((row, index) => {
      const card = this.card(row.name, ready <= (NARROW.matches ? 1 : OPEN));
      if (this.list.children[index] !== card.element) {
        this.list.insertBefore(card.element, this.list.children[index] ?? null);
      }
      card.row = row;
      card.draw(row, this.known.get(row.name)?.status ?? null, totals?.models.get(row.name), now);
      const points = this.modelPoints.get(row.name) ?? [];
      if (card.charts) {
        card.charts.element.hidden = row.state !== "READY" && points.length === 0;
        card.charts.draw(points, most, span);
      }
    });
  }

  drawSummary(models) {
    const counts = new Map();
    for (const row of models) {
      const [word] = stateOf(row);
      counts.set(word, (counts.get(word) ?? 0) + 1);
      const before = this.words.get(row.name);
      if (before && before !== word) this.say(`${row.name}: ${word}`);
      this.words.set(row.name, word);
    }
    const parts = [...counts].map(([word, count]) => `${count} ${word.toLowerCase()}`);
    this.summary.textContent = models.length === 0
      ? "There is no model in the repository."
      : [counted(models.length, "model", "models"), ...parts].join(" · ");
  }

  card(name, open) {
    if (!this.cards.has(name)) {
      const control = this.server.model_control
        ? { load: () => this.act(name, "load"), unload: () => this.act(name, "unload") } : null;
      const options = { charts: this.server.metrics, open, control };
      this.cards.set(name, new ModelCard(name, options));
    }
    return this.cards.get(name);
  }

  /** Have a model loaded or unloaded; says when it is done, or why not. */
  async act(name, verb) {
    const card = this.cards.get(name);
    if (card.busy || (verb === "unload" && !await confirmUnload(this.root, name))) return;
    card.busy = verb === "load" ? "Loading" : "Unloading";
    card.tell(null);
    this.redraw(card);
    this.say(`${card.busy} ${name}`);
    mayAsk();
    try {
      await this.api.post(`v2/repository/models/${encodeURIComponent(name)}/${verb}`, {});
      this.say(`${name} was ${verb}ed`);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      card.tell(`It could not be ${verb}ed.`, sentence(error.message));
      this.say(`${name} could not be ${verb}ed. ${error.message}`);
    } finally {
      card.busy = null;
      this.redraw(card);
    }
    this.look();
  }

  redraw(card) {
    const status = this.known.get(card.name)?.status ?? null;
    const last = this.looks.at(-1);
    card.draw(card.row, status, last?.models.get(card.name), last?.time ?? Date.now() / 1000);
  }
}

/**
 * Show the page.
 * @param {HTMLElement} root
 * @param {{get: Function, post: Function}} api
 * @returns {() => void} ends it
 */
export function mount(root, api) {
  const page = new ModelsPage(root, api);
  return () => page.unmount();
}
