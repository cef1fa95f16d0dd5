/** When to try again: decided from numbers alone; waiting is the transport's business. */

/** Exponential back-off with full jitter. */
export interface RetryPolicy {
  /** Most tries of a request, the first one counted; 1 never tries again. Default 4. */
  readonly attempts: number;
  /** Longest random pause before the second try, in milliseconds; it doubles from try to try. Default 100. */
  readonly firstMs: number;
  /** Where doubling ends, in milliseconds. Default 5000. */
  readonly longestMs: number;
  /** If the server asks for a longer pause than this, the error is thrown at once. Default 60000. */
  readonly longestRetryAfterMs: number;
}

export const DEFAULT_RETRY: RetryPolicy = {
  attempts: 4,
  firstMs: 100,
  longestMs: 5_000,
  longestRetryAfterMs: 60_000,
};

/**
 * Milliseconds to wait after the `failed`th try (from 1); undefined to give up.
 *
 * The server's `retryAfter` (seconds) comes on top of the random pause, so that callers who were
 * refused together do not come back together. `draw` is random, 0 to 1.
 */
export function pauseMs(
  policy: RetryPolicy,
  failed: number,
  retryAfter: number | undefined,
  draw: number,
): number | undefined {
  const adviceMs = (retryAfter ?? 0) * 1e3;
  if (failed >= policy.attempts || adviceMs > policy.longestRetryAfterMs) return undefined;
  return adviceMs + draw * Math.min(policy.longestMs, policy.firstMs * 2 ** (failed - 1));
}

/** Seconds that a Retry-After header means, a number or a date; undefined if it says nothing. */
export function retryAfterSeconds(header: string | null, nowUnixMs: number): number | undefined {
  if (header === null) return undefined;
  const seconds = /^\s*\d+(\.\d+)?\s*$/.test(header)
    ? Number(header)
    : (Date.parse(header) - nowUnixMs) / 1e3;
  return Number.isFinite(seconds) ? Math.max(0, seconds) : undefined;
}
