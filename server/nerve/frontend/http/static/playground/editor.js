/* Where the text comes from: typed, pasted, dropped, a file, an example. */

import { counted, el } from "./dom.js";
import { EXAMPLES } from "./examples.js";
import { Offsets, wellFormed } from "./offsets.js";

const MAX_FILE_BYTES = 10_000_000;
const LONG_UNITS = 200_000; // browsers take seconds to lay out a text area with more
const SHOWN_UNITS = 2_000;

/**
 * The card with the text.
 *
 * @param {string} text to begin with.
 * @param {{changed: (complete: boolean) => void, run: () => void}} told `complete`: nobody is
 *   typing, so nothing need be waited for.
 * @returns {{root: HTMLElement, text: () => string}}
 */
export function editor(text, { changed, run }) {
  const count = el("output", { class: "hint", "aria-label": "Length", for: "text" });
  const fault = el("p", { class: "notice bad", role: "alert", hidden: true });
  const area = el("textarea", {
    id: "text", dir: "auto", spellcheck: false, "aria-describedby": "text-hint text-long text-ends",
    placeholder: "Type or paste text, or drop a file here",
  });
  const long = el("p", { class: "notice", id: "text-long", hidden: true },
    "A long text: only its beginning is shown here. All of it is read. Clear it to write another.");
  const ends = el("p", { class: "notice", id: "text-ends", hidden: true },
    "The lines of this text end with CR LF or CR. Here each end is one character, and offsets count it so.");
  let whole = null; // a long text
  const now = () => whole ?? area.value;
  const measure = () => {
    const all = now();
    const codePoints = new Offsets(all).codePoints(all.length);
    count.textContent = counted(codePoints, "character", "characters");
  };
  const hold = (value) => {
    whole = value.length > LONG_UNITS ? value.replace(/\r\n?/g, "\n") : null; // as in the text area
    area.readOnly = !(long.hidden = whole === null);
    ends.hidden = !value.includes("\r");
    area.value = whole === null ? value : `${wellFormed(whole.slice(0, SHOWN_UNITS))}…`;
    area.scrollTop = 0;
    measure();
  };
  const edited = (complete) => {
    if (area.value.length > LONG_UNITS) hold(area.value);
    measure();
    fault.hidden = true;
    changed(complete);
  };
  const put = (value) => {
    hold(value);
    edited(true);
  };
  area.addEventListener("input", (event) => { if (!event.isComposing) edited(false); });
  area.addEventListener("compositionend", () => edited(false));
  area.addEventListener("paste", (event) => {
    const pasted = event.clipboardData?.getData("text/plain") ?? "";
    if (pasted.length + area.value.length <= LONG_UNITS) return;
    event.preventDefault();
    const before = area.readOnly ? "" : area.value.slice(0, area.selectionStart);
    put(before + pasted + (area.readOnly ? "" : area.value.slice(area.selectionEnd)));
  });
  area.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    run();
  });
  const take = async (file) => {
    try {
      put(await read(file));
    } catch (error) {
      fault.textContent = error.message;
      fault.hidden = false;
    }
  };
  const file = el("input", {
    type: "file", accept: "text/*,.txt,.md,.csv,.json,.jsonl,.log", hidden: true, "aria-label": "File",
    on: { change: () => { if (file.files[0]) take(file.files[0]); file.value = ""; } },
  });
  const button = el("button", { type: "button", class: "primary", on: { click: run } }, "Find entities");
  const root = el("section", { class: "card editor", "aria-labelledby": "text-label" },
    el("div", { class: "card-head" }, el("label", { for: "text", id: "text-label" }, "Text"), count),
    area, long, ends, fault,
    el("div", { class: "examples", role: "group", "aria-label": "Examples" },
      el("span", { class: "hint", "aria-hidden": "true" }, "Try"),
      ...EXAMPLES.map(({ name, lang, text: example }) => el("button", {
        type: "button", class: "small pill", lang, on: { click: () => put(example) },
      }, name))),
    el("div", { class: "actions" },
      button, el("span", { class: "hint keys", id: "text-hint" }, `${command()} Enter`), el("span", { class: "push" }),
      file,
      el("button", { type: "button", class: "quiet", on: { click: () => file.click() } }, "Open file"),
      el("button", { type: "button", class: "quiet", on: { click: () => { put(""); area.focus(); } } }, "Clear")));
  droppable(root, take);
  hold(text);
  return { root, text: now };
}

function command() {
  return /Mac|iPhone|iPad/.test(navigator.platform) ? "⌘" : "Ctrl";
}

function droppable(root, take) {
  const files = (event) => [...(event.dataTransfer?.items ?? [])].some(({ kind }) => kind === "file");
  root.addEventListener("dragover", (event) => {
    if (!files(event)) return; // text is the browser's own affair
    event.preventDefault();
    root.classList.add("dropping");
  });
  root.addEventListener("dragleave", (event) => {
    if (!root.contains(event.relatedTarget)) root.classList.remove("dropping");
  });
  root.addEventListener("drop", (event) => {
    root.classList.remove("dropping");
    if (!event.dataTransfer.files.length) return;
    event.preventDefault();
    take(event.dataTransfer.files[0]);
  });
}

/** The text of a file in UTF-8. */
async function read(file) {
  if (file.size > MAX_FILE_BYTES) {
    throw new Error(`${file.name} has more than 10 MB; “nerve infer --input-file” is for such files.`);
  }
  const bytes = await file.arrayBuffer();
  let text;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new Error(`${file.name} is no text in UTF-8.`);
  }
  if (text.includes("\0")) throw new Error(`${file.name} is no text file.`);
  return text;
}
