/** What callers in plain JavaScript may get wrong, refused before anything is sent. */
import type {
  CallOptions,
  ClientOptions,
  ExtractManyOptions,
  ExtractOptions,
  PredictOptions,
  PredictTokensOptions,
  ProbeOptions,
  TextOptions,
} from "./options.ts";
import type { RetryPolicy } from "./retry.ts";

/** The names of a type's options; the compiler sees to it that none is missing. */
type Names<T> = Readonly<Record<keyof T, true>>;

export const PROBE: Names<ProbeOptions> = { timeoutMs: true, signal: true };
const CALL: Names<CallOptions> = {
  ...PROBE,
  model: true,
  version: true,
  priority: true,
  onAnswer: true,
};
export const PREDICT: Names<PredictOptions> = { ...CALL, offsetUnit: true };
const TEXT: Names<TextOptions> = { ...PREDICT, truncate: true, truncationSide: true };
export const EXTRACT: Names<ExtractOptions> = {
  ...TEXT,
  aggregation: true,
  threshold: true,
  labels: true,
};
export const EXTRACT_MANY: Names<ExtractManyOptions> = {
  ...EXTRACT,
  batchSize: true,
  concurrency: true,
  onError: true,
};
export const PREDICT_TOKENS: Names<PredictTokensOptions> = {
  ...TEXT,
  aggregation: true,
  ignoreLabels: true,
  rawScores: true,
};
export const RETRY: Names<RetryPolicy> = {
  attempts: true,
  firstMs: true,
  longestMs: true,
  longestRetryAfterMs: true,
};
export const CLIENT: Names<ClientOptions> = {
  model: true,
  version: true,
  timeoutMs: true,
  priority: true,
  offsetUnit: true,
  retry: true,
  maxTexts: true,
  headers: true,
  fetch: true,
};

/**
 * See that options have no other names than these: a misspelt one would silently do nothing.
 * @throws TypeError
 */
export function checkNames(options: unknown, names: Readonly<Record<string, true>>): void {
  if (typeof options !== "object" || options === null) {
    throw new TypeError(`options: expected an object, got ${kindOf(options)}`);
  }
  const unknown = Object.keys(options).find((name) => !Object.hasOwn(names, name));
  if (unknown === undefined) return;
  throw new TypeError(`unknown option '${unknown}'; there are ${Object.keys(names).join(", ")}`);
}

/** @throws TypeError it is no number of milliseconds; Infinity is one. */
export function checkTimeout(timeoutMs: unknown): void {
  if (typeof timeoutMs === "number" && timeoutMs > 0) return;
  throw new TypeError(`timeoutMs: expected a number above 0, got ${String(timeoutMs)}`);
}

/** @throws RangeError it is no whole number from 1 to `most`. */
export function count(
  name: string,
  value: number,
  most: number = Number.MAX_SAFE_INTEGER,
): number {
  if (Number.isInteger(value) && value >= 1 && value <= most) return value;
  const range = most === Number.MAX_SAFE_INTEGER ? "at least 1" : `1 to ${most}`;
  throw new RangeError(`${name} must be a whole number, ${range}, not ${value}`);
}

/**
 * The texts of a call, one or several, as a list.
 * @throws TypeError they are none, or one cannot be sent; it names the text and the place in it.
 */
export function textsOf(texts: unknown): readonly string[] {
  if (typeof texts !== "string" && !Array.isArray(texts)) {
    throw new TypeError(`texts: expected a string or an array of strings, got ${kindOf(texts)}`);
  }
  const list: readonly unknown[] = typeof texts === "string" ? [texts] : texts;
  return Array.from(list, (item, index) => {
    const text = textAt(item, index);
    const fault = surrogateFault(text);
    if (fault === undefined) return text;
    throw new TypeError(`${typeof texts === "string" ? "text" : `texts[${index}]`}: ${fault}`);
  });
}

/** @throws TypeError the `index`th text is none. */
export function textAt(text: unknown, index: number): string {
  if (typeof text === "string") return text;
  throw new TypeError(`texts[${index}]: expected a string, got ${kindOf(text)}`);
}

/** Where a text has half of a surrogate pair, which UTF-8 has no bytes for; undefined: nowhere. */
export function surrogateFault(text: string): string | undefined {
  const place = /\p{Surrogate}/u.exec(text)?.index;
  if (place === undefined) return undefined;
  return `half of a surrogate pair at ${place}; text.toWellFormed() mends it`;
}

/** @throws TypeError it cannot be iterated, or is one text. */
export function checkIterable(texts: unknown): void {
  if (typeof texts === "string") throw new TypeError("extractMany takes many texts, not one");
  const object: object = Object(texts);
  if (Symbol.iterator in object || Symbol.asyncIterator in object) return;
  throw new TypeError(`texts: expected an iterable of strings, got ${kindOf(texts)}`);
}

/**
 * A server's URL without query and slashes at its end.
 * @throws TypeError it is none.
 */
export function rootOf(url: string | URL): string {
  const page = typeof location === "undefined" ? undefined : location.href;
  const { protocol, username, password, href } = parsed(url, page);
  if (protocol !== "http:" && protocol !== "https:") {
    throw new TypeError(`the server's URL must begin with http or https, ${EXAMPLE}`);
  }
  if (username || password) throw new TypeError("put credentials into headers, not into the URL");
  return href.replace(/[?#].*$/, "").replace(/\/+$/, "");
}

const EXAMPLE = "as in http://localhost:8080";

function parsed(url: string | URL, page: string | undefined): URL {
  try {
    if (url !== undefined && url !== null) return new URL(url, page);
  } catch {
    // told below, in words that help more
  }
  throw new TypeError(`'${url}' is no URL of a server; give all of it, ${EXAMPLE}`);
}

function kindOf(value: unknown): string {
  if (value === null) return "null";
  return Array.isArray(value) ? "array" : typeof value;
}
