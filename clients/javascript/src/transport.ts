/** Sends requests, again where that helps, within their time; knows no route and no shape of an answer. */
import { checkTimeout } from "./checks.ts";
import { NerveError } from "./errors.ts";
import { pauseMs } from "./retry.ts";
import type { RetryPolicy } from "./retry.ts";
import { errorOf } from "./wire.ts";
import type { Reply } from "./wire.ts";

/** A request. */
export interface Exchange {
  readonly path: string;
  /** JSON, sent by POST; without it the request is a GET. */
  readonly body?: string;
  readonly priority?: number | undefined;
}

/** Until when a call may go on. */
export class Limit {
  readonly timeoutMs: number;
  readonly signal: AbortSignal | undefined;
  readonly #endMs: number;

  constructor(timeoutMs: number, signal?: AbortSignal, endMs?: number) {
    checkTimeout(timeoutMs);
    this.timeoutMs = timeoutMs;
    this.signal = signal;
    this.#endMs = endMs ?? performance.now() + timeoutMs;
  }

  /** Milliseconds that are left; at most what a timer can wait. */
  leftMs(): number {
    return Math.min(this.#endMs - performance.now(), MAX_TIMER_MS);
  }

  /** The same time, and another signal. */
  with(signal: AbortSignal): Limit {
    return new Limit(this.timeoutMs, signal, this.#endMs);
  }
}

const MAX_TIMER_MS = 2 ** 31 - 1;

export class Transport {
  readonly #root: string;
  readonly #headers: Headers;
  readonly #retry: RetryPolicy;
  readonly #fetch: typeof globalThis.fetch | undefined;

  constructor(
    root: string,
    headers: Headers,
    retry: RetryPolicy,
    fetch: typeof globalThis.fetch | undefined,
  ) {
    this.#root = root;
    this.#headers = headers;
    this.#retry = retry;
    this.#fetch = fetch;
  }

  /**
   * An answer with status 200, tried for as often as the policy says.
   * @throws NerveError; the reason of the limit's signal.
   */
  async send(exchange: Exchange, limit: Limit): Promise<Reply> {
    for (let failed = 1; ; failed++) {
      try {
        return await this.once(exchange, limit);
      } catch (error) {
        if (!(error instanceof NerveError) || !error.temporary) throw error;
        const pause = pauseMs(this.#retry, failed, error.retryAfter, Math.random());
        if (pause === undefined || pause >= limit.leftMs()) throw error;
        await sleep(pause, limit.signal);
      }
    }
  }

  /**
   * An answer with status 200, tried for once.
   * @throws as `send`.
   */
  async once(exchange: Exchange, limit: Limit): Promise<Reply> {
    const { signal } = limit;
    signal?.throwIfAborted();
    const leftMs = limit.leftMs();
    if (leftMs <= 0) throw timedOut(limit);
    // A controller of its own rather than AbortSignal.any: nothing stays behind on a signal that lives long.
    const controller = new AbortController();
    const stop = (): void => controller.abort();
    const timer = setTimeout(stop, leftMs);
    signal?.addEventListener("abort", stop, { once: true });
    try {
      const reply = await this.#exchange(exchange, leftMs, controller.signal);
      if (reply.status === 200) return reply;
      throw errorOf(reply, exchange.path, Date.now());
    } catch (error) {
      if (error instanceof NerveError) throw error;
      signal?.throwIfAborted();
      if (controller.signal.aborted) throw timedOut(limit);
      const message = `no answer from ${this.#root}: ${describe(error)}`;
      throw new NerveError("connection_failed", message, { cause: error });
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", stop);
    }
  }

  async #exchange(exchange: Exchange, leftMs: number, signal: AbortSignal): Promise<Reply> {
    const headers = new Headers(this.#headers);
    headers.set("request-timeout-ms", String(Math.ceil(leftMs)));
    const { path, body, priority } = exchange;
    if (priority !== undefined) headers.set("x-nerve-priority", String(priority));
    if (body !== undefined) headers.set("content-type", "application/json");
    const fetch = this.#fetch ?? globalThis.fetch; // browsers' own must not be called as a method
    const response = await fetch(this.#root + path, {
      method: body === undefined ? "GET" : "POST",
      headers,
      body: body ?? null,
      signal,
    });
    return { status: response.status, headers: response.headers, body: await response.text() };
  }
}

function timedOut(limit: Limit): NerveError {
  return new NerveError("deadline_exceeded", `no answer within ${Math.ceil(limit.timeoutMs)} ms`);
}

/** Node keeps what really happened (ECONNREFUSED) in the cause of fetch's error. */
function describe(error: unknown): string {
  const root = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  if (!(root instanceof Error)) return String(root);
  const code = "code" in root && typeof root.code === "string" ? root.code : "";
  return root.message || code || root.name; // an AggregateError has only a code
}

function sleep(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = (): void => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, ms);
    signal?.addEventListener("abort", stop, { once: true });
    if (signal?.aborted) stop();
  });
}
