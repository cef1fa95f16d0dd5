/* What went wrong, in the server's words, with what can be done about it. */

import { el, number } from "./dom.js";

const BUSY = new Set([
  "overloaded", "queue_full", "wait_too_long", "server_busy", "rate_limited", "transform_down",
]);
const ADVICE = {
  __proto__: null,
  no_answer: "See whether it still runs. This page goes on by itself when it is back.",
  unauthenticated: "Give a key that this server knows.",
  access_denied: "Give a key that may do this.",
  model_not_found: "Choose another model; this one may have been taken out of the repository.",
  version_not_found: "Choose another version.",
  model_unloaded: "Choose another model, or wait until it is loaded again.",
  text_too_long: "Turn on “Split long text”, or shorten it.",
  body_too_large: "Turn on “Split long text”, or shorten it.",
  server_stopping: "Another server may take over; try again in a moment.",
  deadline_exceeded: "Try again, or with less text.",
};

/** What to do about an error, as a sentence. */
export function advice({ reason, status, retryAfterS }) {
  if (BUSY.has(reason)) {
    const seconds = Math.max(1, Math.ceil(retryAfterS ?? 1));
    return `There is more to do than the server can. Try again in ${seconds === 1 ? "a second" : `${seconds} seconds`}.`;
  }
  if (reason === "model_not_ready") {
    return retryAfterS === null ? "See the Models page for why, or choose another." : "It will be soon; this page waits for it.";
  }
  return ADVICE[reason] ?? (status >= 500 ? "The server's log tells more." : "");
}

/**
 * A notice for an error.
 *
 * @param {Error} error an ApiError, or a fault of this page.
 * @param {HTMLElement[]} buttons what can be done at once.
 */
export function errorNotice(error, ...buttons) {
  const words = advice(error);
  return el("div", { class: "notice bad", role: "alert" },
    el("strong", {}, error.message),
    words ? el("p", {}, words) : null,
    error.reason ? el("p", { class: "hint" }, "Reason: ", el("code", {}, error.reason),
      error.status ? `, status ${error.status}` : null) : null,
    buttons.length ? el("p", { class: "actions" }, ...buttons) : null);
}

/** A notice that a text was cut. `offsets` tells code points, `unread` what was not seen. */
export function cutNotice({ count, pieces, unread, limits, windowless, split }, offsets) {
  const room = limits ? ` The model reads ${number(limits.max_tokens)} tokens at a time.` : "";
  const where = unread.map(({ start, end }) =>
    `${number(offsets.codePoints(start))} to ${number(offsets.codePoints(end))}`);
  const what = pieces === 1 ? "The text was cut." : `${number(count)} of ${number(pieces)} pieces were cut.`;
  const some = where.slice(0, 3).join(", ") + (where.length > 3 ? " and others" : "");
  return el("div", { class: "notice warn", role: "note" },
    el("strong", {}, what + room),
    where.length ? el("p", {}, `Characters ${some} were not read; they are grey below.`) : null,
    !split && windowless ? el("p", {}, "Turn on “Split long text” to have all of it read, or set ",
      el("code", {}, "stride"), " in the model's config.") : null);
}

/** A model that does not answer: loading, failed, or none at all. */
export function modelNotice(model, any) {
  if (!any) {
    return el("div", { class: "notice warn", role: "status" }, el("strong", {}, "This server has no models yet."),
      el("p", {}, "Put one into its model repository; it appears here as soon as the server has seen it."));
  }
  const loading = model.state === "LOADING";
  const words = { LOADING: "is loading", UNLOADING: "is being unloaded" }[model.state] ?? "cannot be used";
  return el("div", { class: loading ? "notice" : "notice warn", role: "status" },
    el("strong", {}, `${model.name} ${words}.`),
    model.reason ? el("p", {}, model.reason) : null,
    el("p", {}, loading ? "This page goes on when it is ready." : "Choose another model, or see the Models page."));
}
