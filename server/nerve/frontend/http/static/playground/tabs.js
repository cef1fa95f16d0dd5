/* Tabs, as the ARIA practices have them: arrow keys choose, Tab goes on to what is chosen. */

import { el } from "./dom.js";

/**
 * A row of tabs with their panels.
 *
 * @param {string} label what the tabs are for.
 * @param {Array<{name: string, panel: HTMLElement}>} tabs
 * @param {(name: string) => void} chosen called with each change.
 * @returns {{list: HTMLElement, choose: (name: string) => void}}
 */
export function tabs(label, tabs, chosen) {
  const list = el("div", { class: "tabs", role: "tablist", "aria-label": label });
  const buttons = tabs.map(({ name, panel }) => {
    const id = name.toLowerCase();
    Object.assign(panel, { id: `panel-${id}` });
    panel.setAttribute("role", "tabpanel");
    panel.setAttribute("aria-labelledby", `tab-${id}`);
    return el("button", {
      type: "button", role: "tab", id: `tab-${id}`, "aria-controls": panel.id,
      on: { click: () => choose(name) },
    }, name);
  });
  const choose = (wanted) => {
    tabs.forEach(({ name, panel }, at) => {
      panel.hidden = name !== wanted;
      buttons[at].setAttribute("aria-selected", String(name === wanted));
      buttons[at].tabIndex = name === wanted ? 0 : -1;
    });
    chosen(wanted);
  };
  list.addEventListener("keydown", (event) => {
    const at = buttons.indexOf(document.activeElement);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: buttons.length - 1 }[event.key];
    if (at === -1 || to === undefined) return;
    event.preventDefault();
    const button = buttons[(to + buttons.length) % buttons.length];
    button.focus();
    choose(button.textContent);
  });
  list.append(...buttons);
  return { list, choose };
}
