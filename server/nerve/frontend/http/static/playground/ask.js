/* From a text to its entities: pieces, batches, several requests at a time. Shows nothing. */

import { ApiError } from "./api.js";
import { cut, halves } from "./pieces.js";

const BATCH = 32;
const FIRST_BATCH = 4; // twice as many in each of the next ones, so that something is there soon
const BATCH_UNITS = 200_000;
const UTF8_BYTES_A_UNIT = 6; // "\u0000" in JSON
const OPTIONS_BYTES = 300; // of a body without its texts
const AT_ONCE = 3;
const TRIES = 4;
const LONGEST_WAIT_S = 20;
const WINDOWED_TOKENS = 6_000; // the server has windows itself: pieces are for progress only
const SPECIAL_TOKENS = 8;

/**
 * @typedef {{start: number, end: number}} Piece in UTF-16 units of the whole text.
 * @typedef {{start: number, end: number, label: string, score: number, item: object}} Entity
 *   the same; `item` is what the server said, whose offsets count from the start of the piece.
 * @typedef {{pieces: Piece[], entities: Entity[][], headers: Headers, unread: Piece[], cut: number}} Batch
 *   one request; entities by piece. `cut` pieces were too long for the model, `unread` is what it
 *   did not see of them, where that is known.
 */

/** The path of predict_tokens for a model, and for one version of it. */
export function path({ model, version }) {
  const versioned = version ? `/versions/${encodeURIComponent(version)}` : "";
  return `v1/models/${encodeURIComponent(model)}${versioned}/predict_tokens`;
}

/** The pieces that a text goes in; one where it is not to be split. */
export function piecesOf(text, { split, limits, server }) {
  if (!split) return [{ start: 0, end: text.length }];
  const room = limits ? Math.max(8, limits.max_tokens - SPECIAL_TOKENS) : 500;
  const pieces = cut(text, limits && limits.stride !== null ? WINDOWED_TOKENS : room);
  return pieces.flatMap((piece) => fitting(text, piece, bodyBytes(server) - OPTIONS_BYTES));
}

/** What a request may have. */
function bodyBytes(server) {
  const { max_body_bytes: most = Infinity, max_predict_tokens_bytes: here = Infinity } = server?.limits ?? {};
  return Math.min(most, here);
}

/** A piece in so many that each can be sent in a request of its own. */
function fitting(text, piece, bytes) {
  const { start, end } = piece;
  if ((end - start) * UTF8_BYTES_A_UNIT <= bytes) return [piece];
  if (new TextEncoder().encode(JSON.stringify(text.slice(start, end))).length <= bytes) return [piece];
  const smaller = halves(text, piece);
  return smaller.length === 1 ? smaller : smaller.flatMap((each) => fitting(text, each, bytes));
}

/**
 * Find the entities of a text.
 *
 * @param {object} api
 * @param {string} text
 * @param {{model: string, version: string, strategy: string, split: boolean, limits: object | null,
 *   server: object | null}} wanted `limits` are the model's, `server` is what /v1/server says.
 * @param {{signal: AbortSignal, onBatch: (batch: Batch, done: number, of: number) => void,
 *   onWait: (seconds: number) => void}} watch `onBatch` has the batches in the order of the text;
 *   `done` and `of` count UTF-16 units.
 * @throws {ApiError} the first request that failed for good.
 */
export async function ask(api, text, wanted, { signal, onBatch, onWait }) {
  const waiting = batches(piecesOf(text, wanted), wanted.server);
  const stop = new AbortController();
  const either = AbortSignal.any([signal, stop.signal]);
  const done = [];
  let next = 0;
  let given = 0;
  const worker = async () => {
    while (next < waiting.length) {
      const index = next;
      next += 1;
      done[index] = await batch(api, text, waiting[index], { ...wanted, signal: either, onWait });
      while (done[given]) {
        for (const each of done[given]) onBatch(each, each.pieces.at(-1).end, text.length);
        done[given] = true;
        given += 1;
      }
    }
  };
  try {
    await Promise.all(Array.from({ length: AT_ONCE }, worker));
  } finally {
    stop.abort();
  }
}

function batches(pieces, server) {
  const limits = server?.limits ?? {};
  const most = Math.min(BATCH, limits.max_client_batch_size ?? BATCH);
  const units = Math.min(BATCH_UNITS, bodyBytes(server) / UTF8_BYTES_A_UNIT - 1_000);
  const made = [];
  let held = Infinity;
  for (const piece of pieces) {
    const size = piece.end - piece.start;
    if (held + size > units || made.at(-1).length >= Math.min(most, FIRST_BATCH * 2 ** (made.length - 1))) {
      made.push([]);
      held = 0;
    }
    made.at(-1).push(piece);
    held += size;
  }
  return made;
}

/** One batch; several where the model would not read its pieces whole. */
async function batch(api, text, pieces, wanted) {
  const { body, headers } = await post(api, text, pieces, { aggregation_strategy: wanted.strategy }, wanted);
  const cutPieces = Number(headers.get("x-nerve-truncated-inputs") ?? 0);
  if (cutPieces && wanted.split) {
    const smaller = pieces.flatMap((piece) => halves(text, piece));
    if (smaller.length > pieces.length) {
      const all = [];
      for (const each of batches(smaller, wanted.server)) all.push(...await batch(api, text, each, wanted));
      return all;
    }
  }
  const unread = cutPieces ? await notRead(api, text, pieces, wanted) : [];
  return [{ pieces, entities: body.map((items, at) => placed(items, pieces[at])), headers, unread, cut: cutPieces }];
}

function placed(items, piece) {
  return items.map((item) => {
    const [label, score] = Object.entries(item.results)[0];
    return { start: piece.start + item.start, end: piece.start + item.end, label, score, item };
  });
}

/** What of the pieces the model does not see: the server tells every token that it does. */
async function notRead(api, text, pieces, wanted) {
  const tokens = { aggregation_strategy: "none", ignore_labels: [] };
  const { body } = await post(api, text, pieces, tokens, wanted);
  return body.flatMap((items, at) => {
    const { start, end } = pieces[at];
    if (!items.length) return [];
    const read = { start: start + items[0].start, end: start + items.at(-1).end };
    return [{ start, end: read.start }, { start: read.end, end }].filter((each) =>
      text.slice(each.start, each.end).trim());
  });
}

async function post(api, text, pieces, more, wanted) {
  const inputs = pieces.map(({ start, end }) => text.slice(start, end));
  const body = { inputs, ...more, offset_unit: "utf16" };
  for (let tries = 1; ; tries += 1) {
    try {
      return await api.post(path(wanted), body, { signal: wanted.signal });
    } catch (error) {
      const passing = error instanceof ApiError && error.retryAfterS !== null;
      if (!passing || tries === TRIES || error.retryAfterS > LONGEST_WAIT_S) throw error;
      wanted.onWait(error.retryAfterS);
      await pause(Math.max(0.2, error.retryAfterS), wanted.signal);
    }
  }
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const give = () => { clearTimeout(timer); reject(signal.reason); };
    const timer = setTimeout(() => { signal.removeEventListener("abort", give); resolve(); }, seconds * 1e3);
    signal.addEventListener("abort", give, { once: true });
  });
}
