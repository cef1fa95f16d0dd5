/* The shell: pages, theme, the API key, and whether the server answers. */

import { address, api, mayAsk, onKeyWanted } from "./api.js";
import * as keyDialog from "./key.js";
import { mount as mountModels } from "./models.js";
import { page } from "./route.js";
import { mount as mountTag } from "./tag.js";

const PAGES = {
  __proto__: null, // "constructor" is no page
  "/": { title: "Playground", mount: mountTag },
  "/models": { title: "Models", mount: mountModels },
};
const OFTEN_MS = 3_000;
const SELDOM_MS = 15_000;

const main = document.getElementById("main");
let shown = null;
let unmount = null;

function show() {
  const wanted = page() in PAGES ? page() : "/";
  const first = shown === null;
  shown = wanted;
  unmount?.();
  main.replaceChildren();
  document.title = `${PAGES[wanted].title} · Nerve`;
  for (const link of document.querySelectorAll("[data-page]")) {
    if (link.dataset.page === wanted) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  unmount = PAGES[wanted].mount(main, api);
  if (!first) main.focus();
}

function startTheme() {
  const select = document.getElementById("theme");
  select.value = document.documentElement.dataset.theme ?? "auto";
  select.addEventListener("change", () => {
    if (select.value === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = select.value;
    try {
      localStorage.setItem("nerve-theme", select.value);
    } catch {
      // It holds until the page is left.
    }
  });
}

/** What /readyz says: [state for the style, words]. It takes no key. */
async function health() {
  try {
    const response = await fetch(address("readyz"), { cache: "no-store" });
    const said = await response.json();
    if (said.ready) return ["ready", "Ready"];
    if (said.reason === "stopping") return ["waiting", "Stopping"];
    const states = Object.values(said.models ?? {});
    return ["waiting", states.includes("LOADING") ? "Loading models" : "Not ready"];
  } catch {
    return ["gone", "Not reachable"];
  }
}

function startState() {
  const line = document.getElementById("server-state");
  let timer = null;
  const look = async () => {
    clearTimeout(timer);
    const [state, words] = document.hidden ? [line.dataset.state, line.textContent] : await health();
    if (line.textContent !== words) line.textContent = words;
    if (state === "ready" && line.dataset.state === "gone") dispatchEvent(new Event("nerve-back"));
    line.dataset.state = state;
    clearTimeout(timer);
    timer = setTimeout(look, state === "ready" ? SELDOM_MS : OFTEN_MS);
  };
  document.addEventListener("visibilitychange", () => { if (!document.hidden) look(); });
  addEventListener("nerve-gone", look);
  look();
}

async function showVersion() {
  try {
    const { body } = await api.get("v1/server");
    document.getElementById("server-version").textContent = `Nerve ${body.version}`;
  } catch {
    // The rest of the page says what is wrong.
  }
}

document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // # is for pages
  main.focus();
});
addEventListener("pointerdown", mayAsk);
addEventListener("hashchange", ({ oldURL }) => {
  // Who comes back finds what was chosen.
  const left = document.querySelector(`[data-page="${shown}"]`);
  if (page() !== shown) left.href = new URL(oldURL).hash || "#/";
  show();
});
addEventListener("nerve-key", showVersion);
onKeyWanted(keyDialog.ask);
keyDialog.start();
startTheme();
startState();
show();
showVersion();
