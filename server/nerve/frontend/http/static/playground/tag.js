/* The page that tags a text: runs requests, and shows what comes of them. */

import { key, mayAsk } from "./api.js";
import { ask } from "./ask.js";
import { colours } from "./colours.js";
import { Controls } from "./controls.js";
import { counted, el, number } from "./dom.js";
import { editor } from "./editor.js";
import { EXAMPLES } from "./examples.js";
import { ask as askForKey } from "./key.js";
import { cutNotice, errorNotice, modelNotice } from "./notices.js";
import { Offsets, wellFormed } from "./offsets.js";
import { Results } from "./results.js";

const TYPING_MS = 350;
const TYPING_LONG_MS = 1_200;
const LONG_UNITS = 20_000;

let kept = EXAMPLES[0].text; // while other pages are shown; never in the address or on a disk

/**
 * @typedef {object} Result one text and what was found in it so far.
 * @property {string} text
 * @property {object[]} batches see ask.js.
 * @property {object[]} entities of all batches, by start.
 */

class TagPage {
  #stop = null;
  #timer = null;
  #leaving = new AbortController();

  constructor(root, api) {
    this.api = api;
    this.controls = new Controls(api, {
      changed: (rerun) => (rerun ? this.run() : this.#adjusted()),
      failed: (error) => this.#failed(error, () => this.#start()),
    });
    this.editor = editor(kept, {
      changed: (now) => this.#edited(now),
      run: () => { mayAsk(); this.run(); },
    });
    this.results = new Results(() => this.controls.values);
    root.append(el("h1", { class: "hidden" }, "Playground"),
      el("div", { class: "tag" }, this.controls.root, this.editor.root, this.results.root));
    const { signal } = this.#leaving;
    addEventListener("nerve-key", () => this.#start(), { signal });
    addEventListener("nerve-back", () => this.#start(), { signal }); // it may be another server now
    document.addEventListener("visibilitychange", () => { if (!document.hidden) this.controls.refresh(); }, { signal });
    this.#start();
  }

  close() {
    this.#leaving.abort();
    this.#stop?.abort();
    clearTimeout(this.#timer);
    this.controls.close();
    this.results.close();
  }

  #start() {
    this.controls.refresh(true);
  }

  #adjusted() {
    if (!this.controls.model) this.#stop?.abort(); // of a model that is no longer the chosen one
    if (this.#notReady()) this.run();
    else this.results.refilter();
  }

  #edited(now) {
    kept = this.editor.text();
    clearTimeout(this.#timer);
    this.#stop?.abort();
    const wait = kept.length > LONG_UNITS ? TYPING_LONG_MS : TYPING_MS;
    this.#timer = setTimeout(() => this.run(), now ? 0 : wait);
  }

  /** Ask for the text as it is now. */
  async run() {
    clearTimeout(this.#timer);
    this.#stop?.abort();
    const stop = new AbortController();
    this.#stop = stop;
    const text = wellFormed(this.editor.text());
    const notice = this.#notReady();
    if (notice || !text.trim()) {
      this.results.busy(null);
      this.results.clear(...(notice ? [notice] : []));
      return;
    }
    this.results.busy(0);
    try {
      await this.#ask(text, stop.signal);
    } catch (error) {
      if (!stop.signal.aborted) this.#failed(error, () => this.#start());
    } finally {
      if (this.#stop === stop) this.results.busy(null);
    }
  }

  async #ask(text, signal) {
    const values = this.controls.values;
    const result = newResult(text, values);
    const watch = {
      signal,
      onWait: (seconds) => {
        this.results.notices.replaceChildren(el("p", { class: "notice", role: "status" },
          `The server is busy; trying again in ${counted(Math.max(1, Math.ceil(seconds)), "second", "seconds")}.`));
      },
      onBatch: (batch, done, of) => {
        if (!result.batches.length) this.results.begin(result);
        result.add(batch);
        this.results.grow(batch);
        this.results.busy(done / of);
      },
    };
    await ask(this.api, text, values, watch);
    this.#tellCut(result, values);
    if (![...result.answered].every((version) => !version || this.controls.knows(version))) this.controls.refresh();
  }

  #tellCut(result, values) {
    const count = result.batches.reduce((sum, batch) => sum + batch.cut, 0);
    const told = {
      count, pieces: result.pieces, unread: result.batches.flatMap(({ unread }) => unread),
      limits: values.limits, windowless: values.limits?.stride === null, split: values.split,
    };
    this.results.notices.replaceChildren(...(count ? [cutNotice(told, result.offsets)] : []));
  }

  /** A notice, where the chosen model cannot be asked. */
  #notReady() {
    const { model, models } = this.controls;
    if (!models.length) return modelNotice(null, false);
    return model && model.state !== "READY" ? modelNotice(model, true) : null;
  }

  #failed(error, again) {
    if (error.reason === "no_answer") dispatchEvent(new Event("nerve-gone"));
    const buttons = [el("button", { type: "button", class: "small", on: { click: () => { mayAsk(); again(); } } }, "Try again")];
    if (error.status === 401 || error.status === 403) {
      buttons.unshift(el("button", { type: "button", class: "small", on: { click: async () => {
        const given = await askForKey(error.message);
        if (given) key.set(given);
      } } }, "Enter a key"));
    }
    this.results.busy(null);
    this.results.clear(errorNotice(error, ...buttons));
    if (error.reason === "model_not_ready" || error.reason === "model_unloaded") this.controls.refresh();
  }
}

/** @returns {Result} */
function newResult(text, { model, version, strategy, labels, server }) {
  const began = performance.now();
  return {
    text, model, version, strategy, labels, server,
    offsets: new Offsets(text), colour: colours(labels),
    batches: [], entities: [], pieces: 0, tokens: 0, answered: new Set(), tookMs: 0,
    add(batch) {
      this.batches.push(batch);
      for (const found of batch.entities) for (const each of found) this.entities.push(each);
      this.pieces += batch.pieces.length;
      this.tokens += Number(batch.headers.get("x-compute-tokens") ?? 0);
      this.answered.add(batch.headers.get("x-nerve-model-version"));
      this.tookMs = performance.now() - began;
    },
    meta() {
      const versions = [...this.answered].filter(Boolean).join(" and ");
      return [
        `${model} ${versions && `version ${versions}`}`.trim(),
        this.pieces > 1 ? counted(this.pieces, "piece", "pieces") : null,
        this.tokens ? counted(this.tokens, "token", "tokens") : null,
        this.tookMs < 1000 ? `${number(Math.round(this.tookMs))} ms` : `${(this.tookMs / 1e3).toFixed(1)} s`,
      ].filter(Boolean).join(" · ");
    },
  };
}

/**
 * Show the page.
 *
 * @param {HTMLElement} root is empty.
 * @param {object} api see api.js.
 * @returns {() => void} takes it away.
 */
export function mount(root, api) {
  const page = new TagPage(root, api);
  return () => page.close();
}
