/* What an entity tells when it is pointed at or has the focus; it stays while it is pointed at itself. */

import { el } from "./dom.js";

const GAP = 6;
const STAYS_MS = 120;

/**
 * Watch the marks in an element.
 *
 * @param {HTMLElement} root has the marks.
 * @param {(mark: HTMLElement) => Node[]} describe
 * @returns {{tip: HTMLElement, hide: () => void}} the tooltip, which goes next to `root`.
 */
export function tooltips(root, describe) {
  const tip = el("div", { class: "tip", id: "entity-tip", role: "tooltip", hidden: true });
  let of = null;
  let timer = null;
  const hide = () => {
    of?.removeAttribute("aria-describedby");
    of = null;
    tip.hidden = true;
  };
  const soon = () => {
    clearTimeout(timer);
    timer = setTimeout(() => { if (!root.contains(document.activeElement?.closest("mark"))) hide(); }, STAYS_MS);
  };
  const show = (mark) => {
    clearTimeout(timer);
    if (of === mark) return;
    hide();
    of = mark;
    tip.replaceChildren(...describe(mark));
    tip.hidden = false;
    mark.setAttribute("aria-describedby", tip.id);
    place(tip, mark);
  };
  const found = (event) => event.target.closest?.("mark");
  root.addEventListener("pointerover", (event) => (found(event) ? show(found(event)) : soon()));
  root.addEventListener("pointerleave", soon);
  root.addEventListener("focusin", (event) => found(event) && show(found(event)));
  root.addEventListener("focusout", soon);
  root.addEventListener("scroll", hide);
  root.addEventListener("keydown", (event) => event.key === "Escape" && hide());
  tip.addEventListener("pointerenter", () => clearTimeout(timer));
  tip.addEventListener("pointerleave", soon);
  return { tip, hide };
}

/** Above the first line of the mark, or below it where there is no room. */
function place(tip, mark) {
  const line = mark.getClientRects()[0];
  const { width, height } = tip.getBoundingClientRect();
  const left = Math.min(Math.max(GAP, line.left), document.documentElement.clientWidth - width - GAP);
  const above = line.top - height - GAP;
  tip.style.left = `${left}px`;
  tip.style.top = `${above < GAP ? line.bottom + GAP : above}px`;
}
