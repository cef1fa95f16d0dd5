/* A text with its entities marked. Long texts are drawn in blocks: what is in sight first. */

import { el } from "./dom.js";

const BLOCK_UNITS = 1_500;
const LONGEST_BLOCK_UNITS = 4_000;
const AT_ONCE_UNITS = 36_000;
const SLICE_MS = 8;
const LONG_LABEL = 24;

/** What is shown of one text; it grows while answers arrive. */
export class TextView {
  #text = "";
  #blocks = [];
  #of = new WeakMap(); // node -> block
  #waiting = []; // entities behind the last block, ascending
  #unread = [];
  #next = 0; // where the next block starts
  #drawn = 0; // blocks before this one are fresh
  #wanted = () => true;
  #colour = () => 0;
  #timer = null;
  #seen = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) if (isIntersecting) this.#draw(this.#of.get(target));
  }, { rootMargin: "400px" });

  /** @param {HTMLElement} root is emptied and filled. */
  constructor(root) {
    this.root = root;
    root.addEventListener("keydown", (event) => this.#move(event));
  }

  /**
   * Begin with another text.
   *
   * @param {string} text
   * @param {(label: string) => number} colour
   */
  reset(text, colour) {
    this.#seen.disconnect();
    clearTimeout(this.#timer);
    this.root.replaceChildren();
    this.#text = text;
    this.#colour = colour;
    this.#blocks = [];
    this.#waiting = [];
    this.#unread = [];
    this.#next = 0;
    this.#drawn = 0;
  }

  /**
   * Add what is known of the next stretch of the text.
   *
   * @param {object[]} entities by start, not overlapping.
   * @param {number} end where the stretch ends; no entity goes on behind it.
   * @param {Array<{start: number, end: number}>} unread what no model saw.
   */
  add(entities, end, unread = []) {
    for (const each of entities) this.#waiting.push(each); // too many for arguments
    this.#unread.push(...unread);
    const whole = end === this.#text.length;
    for (;;) {
      const stop = this.#blockEnd(end);
      if (stop === null) break;
      this.#block(stop);
    }
    if (whole && this.#next < end) this.#block(end);
    this.#later();
  }

  /** Show only what `wanted` holds of. */
  filter(wanted) {
    this.#wanted = wanted;
    this.#seen.disconnect();
    for (const block of this.#blocks) {
      block.fresh = false;
      this.#seen.observe(block.node);
    }
    this.#drawn = 0;
    this.#later();
  }

  /** Stop drawing. */
  close() {
    this.#seen.disconnect();
    clearTimeout(this.#timer);
  }

  /** Behind a line that no entity crosses; null: the block is not yet full. */
  #blockEnd(known) {
    let from = this.#next + BLOCK_UNITS;
    for (;;) {
      const line = from < known ? this.#text.indexOf("\n", from) + 1 : 0;
      const none = line === 0 || line > known;
      if (none && known - this.#next > LONGEST_BLOCK_UNITS) return this.#within(known);
      if (none) return null;
      if (!this.#waiting.some(({ start, end }) => start < line && line < end)) return line;
      from = line;
    }
  }

  /** Where a line that is longer than a block can be cut: behind a space, or where the block is full. */
  #within(known) {
    let at = this.#next + LONGEST_BLOCK_UNITS;
    const space = /\s/g;
    space.lastIndex = at - BLOCK_UNITS;
    const found = space.exec(this.#text);
    if (found && found.index < at) at = found.index + 1;
    const crossed = this.#waiting.find(({ start, end }) => start < at && at < end);
    if (crossed) at = crossed.end;
    if (/[\udc00-\udfff]/.test(this.#text[at] ?? "")) at += 1;
    return Math.min(at, known);
  }

  #block(end) {
    const start = this.#next;
    const held = this.#waiting.findIndex((each) => each.start >= end);
    const entities = this.#waiting.splice(0, held === -1 ? this.#waiting.length : held);
    const node = el("div", { class: "block", dir: "auto" }, this.#text.slice(start, end));
    const block = { start, end, entities, node, fresh: false };
    this.#next = end;
    this.#blocks.push(block);
    this.#of.set(node, block);
    this.root.append(node);
    this.root.classList.toggle("long", this.#next > AT_ONCE_UNITS);
    this.#seen.observe(node);
  }

  /** Draw what is not fresh: few blocks at once, many a few milliseconds at a time. */
  #later() {
    clearTimeout(this.#timer);
    if (this.#next <= AT_ONCE_UNITS) this.#slice(Infinity);
    else this.#timer = setTimeout(() => this.#slice(performance.now() + SLICE_MS), 20);
  }

  #slice(until) {
    while (this.#drawn < this.#blocks.length && performance.now() < until) this.#draw(this.#blocks[this.#drawn++]);
    if (this.#drawn < this.#blocks.length) this.#later();
    else this.#oneStop();
  }

  #draw(block) {
    if (block.fresh) return;
    block.fresh = true;
    this.#seen.unobserve(block.node);
    const parts = [];
    let at = block.start;
    for (const entity of block.entities) {
      if (entity.start < at || entity.end <= entity.start || !this.#wanted(entity)) continue;
      this.#plain(parts, at, entity.start);
      parts.push(this.#mark(entity));
      at = entity.end;
    }
    this.#plain(parts, at, block.end);
    block.node.replaceChildren(...parts);
  }

  #mark(entity) {
    const { start, end, label, score } = entity;
    const data = { label, score, start, end, colour: this.#colour(label) };
    return el("mark", { class: label.length > LONG_LABEL ? "entity long-label" : "entity", tabIndex: -1, data }, this.#text.slice(start, end));
  }

  #plain(parts, start, end) {
    let at = start;
    for (const each of this.#unread) {
      const [from, to] = [Math.max(at, each.start), Math.min(end, each.end)];
      if (from >= to) continue;
      if (at < from) parts.push(this.#text.slice(at, from));
      parts.push(el("span", { class: "unread" }, this.#text.slice(from, to)));
      at = to;
    }
    if (at < end) parts.push(this.#text.slice(at, end));
  }

  /** Tab comes to one entity, arrow keys go on from there. */
  #oneStop() {
    if (!this.root.querySelector('mark[tabindex="0"]')) {
      const first = this.root.querySelector("mark");
      if (first) first.tabIndex = 0;
    }
  }

  #move(event) {
    const steps = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity };
    if (!(event.key in steps) || event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
    const marks = [...this.root.querySelectorAll("mark")];
    const at = marks.indexOf(document.activeElement);
    if (!marks.length || (at === -1 && event.key !== "ArrowRight")) return;
    event.preventDefault();
    const to = marks[Math.min(Math.max(at + steps[event.key], 0), marks.length - 1)];
    for (const mark of this.root.querySelectorAll('mark[tabindex="0"]')) mark.tabIndex = -1;
    to.tabIndex = 0;
    to.scrollIntoView({ block: "nearest" });
    to.focus({ preventScroll: true });
  }
}
