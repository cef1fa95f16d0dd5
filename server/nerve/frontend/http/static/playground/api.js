/* Asking the server: paths, the API key, errors. Knows nothing of what is shown. */

const BASE = new URL("../", import.meta.url);
const KEY = "nerve-api-key";
const KEY_WANTED = new Set(["unauthenticated", "access_denied"]);

/** What the server, or the way to it, says of a request that failed. */
export class ApiError extends Error {
  /**
   * @param {number} status of HTTP; 0 where there was no answer.
   * @param {string} message a sentence.
   * @param {string} reason a stable word for programs, "queue_full" for instance.
   * @param {number | null} retryAfterS seconds after which trying again may help.
   */
  constructor(status, message, reason, retryAfterS = null) {
    super(message);
    this.name = "ApiError";
    Object.assign(this, { status, reason, retryAfterS });
  }
}

let askForKey = null;
let asking = null;
let declined = false;
let unkept = null; // the key, where the browser keeps nothing

/** The address of a path of the API ("v1/models"), also below a proxy's prefix. */
export const address = (path) => new URL(path.replace(/^\//, ""), BASE).href;

export const key = {
  get() {
    try {
      return sessionStorage.getItem(KEY) ?? unkept;
    } catch {
      return unkept;
    }
  },
  set(value) {
    declined = false;
    unkept = null;
    try {
      if (value) sessionStorage.setItem(KEY, value);
      else sessionStorage.removeItem(KEY);
    } catch {
      unkept = value; // until the page is left
    }
    dispatchEvent(new Event("nerve-key"));
  },
};

/**
 * Say how a key is asked for.
 *
 * @param {(why: string) => Promise<string | null>} ask null: none was given.
 */
export function onKeyWanted(ask) {
  askForKey = ask;
}

/** Someone pressed a button: a key may be asked for again, though none was given last time. */
export function mayAsk() {
  declined = false;
}

/**
 * Ask, and once more if a key was wanted and given.
 *
 * @param {string} method
 * @param {string} path
 * @param {{body?: unknown, signal?: AbortSignal}} [options] `body` goes as JSON.
 * @returns {Promise<{status: number, body: unknown, headers: Headers}>} `body` is what the JSON
 *   says, null if the answer is empty.
 * @throws {ApiError} any status but 2xx, no answer, or one that is no JSON.
 * @throws {DOMException} AbortError, if the signal came.
 */
export async function request(method, path, options = {}) {
  const used = key.get();
  try {
    return await once(method, path, options, used);
  } catch (error) {
    if (!(error instanceof ApiError) || !KEY_WANTED.has(error.reason) || !askForKey) throw error;
    // Another request may have got one meanwhile.
    const given = key.get() !== used ? key.get() : await wanted(error.message);
    options.signal?.throwIfAborted();
    if (!given) throw error;
    return once(method, path, options, given);
  }
}

export const api = {
  get: (path, options) => request("GET", path, options),
  post: (path, body, options) => request("POST", path, { ...options, body }),
};

async function wanted(why) {
  if (declined) return null;
  asking ??= askOnce(why).finally(() => { asking = null; });
  return asking;
}

/** However many requests wait for it, the key is set once. */
async function askOnce(why) {
  const given = await askForKey(why);
  if (given) key.set(given);
  else declined = true;
  return given;
}

async function once(method, path, { body, signal }, secret) {
  const headers = { Accept: "application/json" };
  if (secret) headers.Authorization = `Bearer ${secret}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response, text;
  try {
    const sent = body === undefined ? undefined : JSON.stringify(body);
    response = await fetch(address(path), { method, headers, body: sent, signal, cache: "no-store" });
    text = await response.text();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "The server does not answer.", "no_answer");
  }
  const parsed = parse(text);
  if (response.ok && parsed === undefined) {
    throw new ApiError(response.status, "The answer is no JSON: it comes from something between this page and the server.", "no_json");
  }
  if (response.ok) return { status: response.status, body: parsed, headers: response.headers };
  throw failure(response, parsed);
}

/** What JSON says; null for nothing, undefined for what is none. */
function parse(text) {
  if (!text) return null;
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function failure(response, body) {
  const says = body !== null && typeof body === "object" ? body : {};
  const message = typeof says.error === "string" ? says.error : `The answer was ${response.status} ${response.statusText}`.trim();
  const reason = typeof says.reason === "string" ? says.reason : response.headers.get("x-nerve-reason") ?? "";
  const seconds = Math.max(0, Number.parseFloat(response.headers.get("retry-after") ?? ""));
  return new ApiError(response.status, message, reason, Number.isFinite(seconds) ? seconds : null);
}
