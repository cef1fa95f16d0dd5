import assert from "node:assert/strict";
import { test } from "node:test";

import { DEFAULT_RETRY, pauseMs, retryAfterSeconds } from "../src/retry.ts";

test("the longest pause doubles up to its end", () => {
  const policy = { ...DEFAULT_RETRY, attempts: 20 };
  const longest = [1, 2, 3, 6, 7, 19].map((failed) => pauseMs(policy, failed, undefined, 1));
  assert.deepEqual(longest, [100, 200, 400, 3200, 5000, 5000]);
});

test("the pause is a random share of it, on top of what the server asks for", () => {
  assert.equal(pauseMs(DEFAULT_RETRY, 1, undefined, 0), 0);
  assert.equal(pauseMs(DEFAULT_RETRY, 2, undefined, 0.25), 50);
  assert.equal(pauseMs(DEFAULT_RETRY, 2, 3, 0.25), 3050);
});

test("no more tries than allowed, and no pause that is too long", () => {
  assert.equal(pauseMs(DEFAULT_RETRY, 3, undefined, 0), 0);
  assert.equal(pauseMs(DEFAULT_RETRY, 4, undefined, 0), undefined);
  assert.equal(pauseMs(DEFAULT_RETRY, 1, 60, 0), 60_000);
  assert.equal(pauseMs(DEFAULT_RETRY, 1, 61, 0), undefined);
});

test("Retry-After is a number of seconds or a date", () => {
  const now = Date.parse("2026-01-01T00:00:00Z");
  assert.equal(retryAfterSeconds("7", now), 7);
  assert.equal(retryAfterSeconds("Thu, 01 Jan 2026 00:00:05 GMT", now), 5);
  assert.equal(retryAfterSeconds("Thu, 01 Jan 2025 00:00:05 GMT", now), 0);
  assert.equal(retryAfterSeconds("soon", now), undefined);
  assert.equal(retryAfterSeconds(null, now), undefined);
});
