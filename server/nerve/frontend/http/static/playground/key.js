/* The dialog that asks for an API key. */

import { key } from "./api.js";

const dialog = document.getElementById("key-dialog");
const input = document.getElementById("key-input");
const forget = document.getElementById("key-forget");
const WHY = "Sent with each request from now on, where the server wants one.";

/**
 * Ask for a key.
 *
 * @param {string} [why] what the server said.
 * @returns {Promise<string | null>} null: the dialog was closed.
 */
export function ask(why = WHY) {
  return new Promise((resolve) => {
    document.getElementById("key-why").textContent = why;
    forget.hidden = !key.get();
    input.value = "";
    dialog.returnValue = "";
    if (!dialog.open) dialog.showModal();
    input.focus();
    const closed = () => {
      resolve(dialog.returnValue || null);
      dialog.returnValue = ""; // a key stays in no element
    };
    dialog.addEventListener("close", closed, { once: true });
  });
}

/** Wire the dialog and the button that opens it. */
export function start() {
  document.getElementById("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    dialog.close(input.value.trim());
    input.value = "";
  });
  document.getElementById("key-cancel").addEventListener("click", () => dialog.close(""));
  forget.addEventListener("click", () => {
    key.set(null);
    dialog.close("");
  });
  const button = document.getElementById("key-button");
  button.addEventListener("click", async () => {
    const given = await ask();
    if (given) key.set(given);
  });
  const show = () => button.classList.toggle("has-key", Boolean(key.get()));
  addEventListener("nerve-key", show);
  show();
}
