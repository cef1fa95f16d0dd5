/** What can go wrong, and which HTTP statuses mean it. */

/**
 * What kind of thing went wrong:
 * - `invalid_request`: an empty text, one that is too long, a wrong option; sending it again does not help
 * - `access_denied`: something before the server, a gateway for instance, wants other credentials
 * - `not_found`: what answers does not serve that path; most often the client's URL is wrong
 * - `model_not_found`: no such model or version, or none was named and there is no default one
 * - `unavailable`: the server or the model cannot answer now
 * - `overloaded`: the server is at a limit right now; `retryAfter` says when to come back
 * - `connection_failed`: nobody answers, or the connection broke; in a browser also: CORS forbids it
 * - `deadline_exceeded`: there was no answer in time
 * - `unsupported`: the server does not know such a call
 * - `server_error`: the server failed, or what answers is no Nerve
 */
export type ErrorKind =
  | "invalid_request"
  | "access_denied"
  | "not_found"
  | "model_not_found"
  | "unavailable"
  | "overloaded"
  | "connection_failed"
  | "deadline_exceeded"
  | "unsupported"
  | "server_error";

/** What is known of an error besides its kind and message. */
export interface ErrorFacts {
  readonly status?: number | undefined;
  readonly reason?: string | undefined;
  readonly retryAfter?: number | undefined;
  readonly cause?: unknown;
}

/** Every failure of a call but one: a call that was aborted rejects with the reason of its signal. */
export class NerveError extends Error {
  override readonly name: string = "NerveError";
  readonly kind: ErrorKind;
  /** HTTP status; undefined if no answer came. */
  readonly status: number | undefined;
  /** The server's own word for it, `model_not_found` or `Overloaded` for instance; else the kind. */
  readonly reason: string;
  /** Seconds after which trying again may help, if the server said so. */
  readonly retryAfter: number | undefined;

  constructor(kind: ErrorKind, message: string, facts: ErrorFacts = {}) {
    super(message, facts.cause === undefined ? undefined : { cause: facts.cause });
    this.kind = kind;
    this.status = facts.status;
    this.reason = facts.reason ?? kind;
    this.retryAfter = facts.retryAfter;
  }

  /** Whether the same call may succeed later. */
  get temporary(): boolean {
    return TEMPORARY.has(this.kind);
  }
}

/** One text of `extractMany` has no result: which, and why. Its facts are those of `error`. */
export class ItemError extends NerveError {
  override readonly name: string = "ItemError";
  /** Place of the text among all, counted from 0. */
  readonly index: number;
  readonly error: NerveError;
  readonly #text: string;

  constructor(index: number, text: string, error: NerveError) {
    super(error.kind, `item ${index}: ${error.message}`, error);
    this.index = index;
    this.error = error;
    this.#text = text;
  }

  /** The text; private in the object, so that who logs the error does not log the text. */
  get text(): string {
    return this.#text;
  }
}

const TEMPORARY: ReadonlySet<ErrorKind> = new Set<ErrorKind>([
  "unavailable",
  "overloaded",
  "connection_failed",
]);

const OF_STATUS: ReadonlyMap<number, ErrorKind> = new Map<number, ErrorKind>([
  [401, "access_denied"],
  [403, "access_denied"],
  [404, "model_not_found"],
  [405, "unsupported"],
  [407, "access_denied"],
  [424, "server_error"], // the model failed
  [429, "overloaded"],
  [501, "unsupported"],
  [503, "unavailable"],
  [504, "deadline_exceeded"],
]);

/** The kind of error that an HTTP status means. */
export function kindOfStatus(status: number): ErrorKind {
  return (
    OF_STATUS.get(status) ?? (status >= 400 && status < 500 ? "invalid_request" : "server_error")
  );
}
