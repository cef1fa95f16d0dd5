/* What is asked for: model, version, strategy, threshold, splitting; and what the server knows of models. */

import { el } from "./dom.js";
import { choices, choose } from "./route.js";

const AGAIN_MS = 2_000;
const KEPT_AFTER_MS = 200;
const STRATEGIES = {
  __proto__: null,
  none: "Tokens as the model sees them",
  simple: "Neighbouring tokens of one kind",
  first: "Words, by their first token",
  average: "Words, by the mean of their tokens",
  max: "Words, by their surest token",
};
const USUAL = "max";

/** The options, and the models behind them. `changed(rerun)` is called when something is chosen. */
export class Controls {
  models = [];
  /** What GET /v1/models/{name} says of the chosen one; null: not known. */
  model = null;
  server = null;
  #timer = null;
  #keeping = null;
  #asking = new AbortController();
  #due = false; // the text is to be read again, as soon as all is known
  #waits = false; // for the model to be ready

  constructor(api, { changed, failed }) {
    Object.assign(this, { api, changed, failed });
    const from = choices();
    const pick = (id, event, ...options) => el("select", { id, on: { change: event } }, ...options);
    this.modelSelect = pick("model", () => this.#modelChosen());
    this.versionSelect = pick("version", () => this.#chosen(true), el("option", { value: "" }, "Default"));
    this.strategySelect = pick("strategy", () => this.#chosen(true),
      ...Object.entries(STRATEGIES).map(([value, title]) => el("option", { value, title }, value)));
    this.strategySelect.value = from.get("strategy") in STRATEGIES ? from.get("strategy") : USUAL;
    const threshold = Number(from.get("threshold"));
    this.slider = el("input", {
      type: "range", id: "threshold", min: "0", max: "1", step: "0.01",
      value: threshold >= 0 && threshold <= 1 ? String(threshold) : "0",
      on: { input: () => this.#chosen(false) },
    });
    this.output = el("output", { for: "threshold" });
    this.splitBox = el("input", { type: "checkbox", id: "split", checked: true, on: { change: () => this.#chosen(true) } });
    this.wanted = { model: from.get("model") ?? "", version: from.get("version") ?? "" };
    this.root = this.#lay();
    this.#showThreshold();
    this.#showStrategy();
  }

  /**
   * Ask the server what it has; again and again while the model is not ready, or the server busy.
   *
   * @param {boolean} rerun what is known has the text read again.
   */
  async refresh(rerun = false) {
    this.#due ||= rerun; // also where another call comes later, and this one to nothing
    clearTimeout(this.#timer);
    this.#asking.abort();
    const { signal } = (this.#asking = new AbortController());
    try {
      await this.#look(signal);
    } catch (error) {
      if (signal.aborted) return;
      this.failed(error);
      if (error.retryAfterS !== null) this.#again(error.retryAfterS * 1e3);
      return;
    }
    const ready = this.model?.state === "READY";
    const rerunNow = this.#due || (ready && this.#waits);
    this.#due = false;
    this.#waits = !ready;
    if (!ready) this.#again(0);
    this.changed(rerunNow);
  }

  #again(afterMs) {
    this.#timer = setTimeout(() => this.refresh(), Math.max(AGAIN_MS, afterMs || 0));
  }

  async #look(signal) {
    const [models, server] = await Promise.all([
      this.api.get("v1/models", { signal }), this.api.get("v1/server", { signal }),
    ]);
    signal.throwIfAborted();
    this.models = models.body.models;
    this.server = server.body;
    this.#showModels();
    const name = this.modelSelect.value;
    const model = name ? (await this.api.get(`v1/models/${encodeURIComponent(name)}`, { signal })).body : null;
    signal.throwIfAborted(); // another model may have been chosen meanwhile
    this.model = model;
    this.#showVersions();
  }

  /** Whether a version that answered is among those that are known. */
  knows(version) {
    return this.model === null || this.model.versions.some((each) => each.version === version);
  }

  close() {
    clearTimeout(this.#timer);
    clearTimeout(this.#keeping);
    this.#asking.abort();
  }

  /** What is chosen. `limits` and `labels` are those of the version that answers. */
  get values() {
    const version = this.model?.versions.find((each) => each.version === this.versionSelect.value);
    const of = version ?? this.model;
    return {
      model: this.modelSelect.value, version: this.versionSelect.value,
      strategy: this.strategySelect.value, threshold: Number(this.slider.value),
      split: this.splitBox.checked, limits: of?.limits ?? null, labels: of?.labels ?? [], server: this.server,
    };
  }

  #modelChosen() {
    this.model = null;
    this.#showVersions(); // those of the other model are none of this one
    this.#chosen(false);
    this.refresh(true);
  }

  #chosen(rerun) {
    this.wanted = { model: this.modelSelect.value, version: this.versionSelect.value };
    this.#showThreshold();
    this.#showStrategy();
    this.#keep();
    this.changed(rerun);
  }

  /** Browsers count changes of the address, and a slider makes many. */
  #keep() {
    clearTimeout(this.#keeping);
    this.#keeping = setTimeout(() => this.#keepNow(), KEPT_AFTER_MS);
  }

  #keepNow() {
    const usual = this.models.find((each) => each.default) ?? this.models[0];
    const { model, version, strategy, threshold } = this.values;
    choose({
      model: model === usual?.name ? "" : model, version,
      strategy: strategy === USUAL ? "" : strategy, threshold: threshold || "",
    });
  }

  #showThreshold() {
    const value = Number(this.slider.value).toFixed(2);
    this.output.textContent = value;
    this.slider.setAttribute("aria-valuetext", value);
  }

  #showStrategy() {
    this.strategyHint.textContent = STRATEGIES[this.strategySelect.value];
  }

  #showModels() {
    const names = this.models.map(({ name }) => name);
    const usual = this.models.find((each) => each.default) ?? this.models.find(({ state }) => state === "READY");
    const chosen = names.includes(this.wanted.model) ? this.wanted.model : usual?.name ?? names[0] ?? "";
    this.modelSelect.replaceChildren(...this.models.map(({ name, state }) =>
      el("option", { value: name }, state === "READY" ? name : `${name} (${state.toLowerCase()})`)));
    this.modelSelect.disabled = !names.length;
    this.modelSelect.value = chosen;
  }

  #showVersions() {
    const versions = this.model?.versions ?? [];
    this.versionSelect.replaceChildren(el("option", { value: "" }, "Default"),
      ...versions.toReversed().map(({ version, state, reason }) => el("option", {
        value: version, disabled: state !== "READY", title: reason,
      }, state === "READY" ? version : `${version} (${state.toLowerCase()})`)));
    this.versionSelect.value = versions.some(({ version }) => version === this.wanted.version) ? this.wanted.version : "";
  }

  #lay() {
    const field = (label, control, ...more) => el("div", { class: "field" }, el("label", { for: control.id }, label), control, ...more);
    this.strategyHint = el("span", { class: "hint", id: "strategy-hint" });
    this.strategySelect.setAttribute("aria-describedby", "strategy-hint");
    return el("section", { class: "card controls", "aria-label": "Options" },
      field("Model", this.modelSelect), field("Version", this.versionSelect),
      field("Strategy", this.strategySelect, this.strategyHint),
      el("div", { class: "field" }, el("div", { class: "field-head" }, el("label", { for: "threshold" }, "Threshold"), this.output), this.slider),
      el("label", { class: "check", title: "Cut at sentence ends into pieces that the model reads whole" },
        this.splitBox, "Split long text"));
  }
}
