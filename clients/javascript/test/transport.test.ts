/** What the client does when a server or the net fails: against a real server that misbehaves. */
import assert from "node:assert/strict";
import { test } from "node:test";

import { NerveClient, NerveError } from "../src/index.ts";
import type { ClientOptions, ErrorKind } from "../src/index.ts";
import { json, listening } from "./listening.ts";
import type { Answer } from "./listening.ts";

const QUICK = { firstMs: 1 };

/** Run one `extract` against a server; what it gave or threw, and when requests came. */
async function attempt(
  answer: Answer,
  options: ClientOptions = {},
): Promise<{ result: unknown; requests: number; times: number[] }> {
  const times: number[] = [];
  await using server = await listening((response, n) => {
    times.push(performance.now());
    answer(response, n);
  });
  const client = new NerveClient(server.url, { retry: QUICK, ...options });
  const result: unknown = await client.extract("a").catch((error: unknown) => error);
  return { result, requests: server.requests.length, times };
}

function assertError(error: unknown, kind: ErrorKind, facts: Partial<NerveError> = {}): NerveError {
  assert.ok(error instanceof NerveError, String(error));
  assert.equal(error.kind, kind);
  for (const [name, value] of Object.entries(facts)) {
    assert.deepEqual(error[name as keyof NerveError], value, name);
  }
  return error;
}

for (const status of [429, 503]) {
  test(`${status} is tried again`, async () => {
    const { result, requests } = await attempt((response, n) =>
      n < 3 ? json(response, status, { error: "busy" }) : json(response, 200, [[]]),
    );
    assert.deepEqual(result, []);
    assert.equal(requests, 3);
  });
}

for (const status of [400, 404, 413, 422, 424, 500, 504]) {
  test(`${status} is not tried again`, async () => {
    const { result, requests } = await attempt((response) =>
      json(response, status, { error: "no" }),
    );
    assert.ok(result instanceof NerveError);
    assert.equal(result.status, status);
    assert.equal(requests, 1);
  });
}

test("attempts end, and the last error is thrown", async () => {
  const { result, requests } = await attempt(
    (response, n) => json(response, 429, { error: `full ${n}`, error_type: "Overloaded" }),
    { retry: { ...QUICK, attempts: 3 } },
  );
  assertError(result, "overloaded", { status: 429, message: "full 3", reason: "Overloaded" });
  assert.equal(requests, 3);
});

test("retry: false tries once", async () => {
  const { requests } = await attempt((response) => json(response, 503, {}), { retry: false });
  assert.equal(requests, 1);
});

test("the pause is as long as the server asks for", async () => {
  const { result, times } = await attempt((response, n) =>
    n === 1 ? json(response, 503, {}, { "retry-after": "0.2" }) : json(response, 200, [[]]),
  );
  assert.deepEqual(result, []);
  const [first = NaN, second = NaN] = times;
  assert.ok(second - first >= 190, `${second - first} ms`); // clocks are read on two sides
});

test("a pause longer than the time left is not waited for", async () => {
  const { result, requests } = await attempt(
    (response) => json(response, 429, { error: "full" }, { "retry-after": "50" }),
    { timeoutMs: 40_000 },
  );
  assertError(result, "overloaded", { retryAfter: 50 });
  assert.equal(requests, 1);
});

test("a connection that breaks is tried again, before and within the answer", async () => {
  const { result, requests } = await attempt((response, n) => {
    if (n === 1) return response.destroy();
    if (n === 2) {
      response.writeHead(200, { "content-length": "1000" });
      response.write("[[");
      return setImmediate(() => response.destroy());
    }
    return json(response, 200, [[]]);
  });
  assert.deepEqual(result, []);
  assert.equal(requests, 3);
});

test("nobody there: an error that says so", async () => {
  const server = await listening(() => {});
  await server[Symbol.asyncDispose]();
  const client = new NerveClient(server.url, { retry: QUICK });
  const error = await client.extract("a").catch((each: unknown) => each);
  assertError(error, "connection_failed", { status: undefined });
  assert.match(String(error), /ECONNREFUSED/);
  assert.equal(await client.live(), false);
  assert.equal(await client.ready(), false);
});

test("no answer in time", async () => {
  const { result, requests } = await attempt(() => {}, { timeoutMs: 50 });
  assertError(result, "deadline_exceeded", { status: undefined });
  assert.equal(requests, 1);
});

test("an answer that stops in its middle is no answer in time", async () => {
  const { result } = await attempt(
    (response) => {
      response.writeHead(200, { "content-type": "application/json" });
      response.write("[[");
    },
    { timeoutMs: 50 },
  );
  assertError(result, "deadline_exceeded");
});

test("an abort rejects with its reason, and the server sees the caller leave", async () => {
  let arrived = (): void => {};
  const arrival = new Promise<void>((resolve) => (arrived = resolve));
  let left = (): void => {};
  const leaving = new Promise<void>((resolve) => (left = resolve));
  await using server = await listening((response) => {
    response.on("close", left);
    arrived();
  });
  const controller = new AbortController();
  const call = new NerveClient(server.url).extract("a", { signal: controller.signal });
  await arrival;
  controller.abort(new Error("changed my mind"));
  await assert.rejects(call, /changed my mind/);
  await leaving;
});

test("an abort ends a pause between two tries", async () => {
  const controller = new AbortController();
  await using server = await listening((response) => {
    response.on("close", () => setImmediate(() => controller.abort(new Error("enough"))));
    json(response, 503, {}, { "retry-after": "30", connection: "close" });
  });
  const call = new NerveClient(server.url).extract("a", { signal: controller.signal });
  await assert.rejects(call, /enough/);
});

test("a signal that was aborted before sends nothing", async () => {
  await using server = await listening((response) => json(response, 200, [[]]));
  const call = new NerveClient(server.url).extract("a", { signal: AbortSignal.abort() });
  await assert.rejects(call, { name: "AbortError" });
  assert.equal(server.requests.length, 0);
});

test("one bad part of a call aborts the others", async () => {
  let left = (): void => {};
  const leaving = new Promise<void>((resolve) => (left = resolve));
  await using server = await listening((response, n) => {
    if (n === 1) return void setImmediate(() => json(response, 400, { error: "bad" }));
    return void response.on("close", left); // never answered
  });
  const client = new NerveClient(server.url, { maxTexts: 1 });
  await assert.rejects(client.extract(["a", "b"]), /bad/);
  if (server.requests.length > 1) await leaving;
});

test("what is sent: path, headers and body", async () => {
  await using server = await listening((response) => json(response, 200, [[]]));
  const client = new NerveClient(`${server.url}/prefix/?x=1`, {
    model: "ner",
    version: 2,
    priority: 7,
    headers: { authorization: "Bearer x" },
  });
  await client.extract("a", { threshold: 0.5, labels: ["PER"], timeoutMs: 5_000 });
  await client.extract("a", { model: "a/b", priority: 1, offsetUnit: "byte" });
  await client.predictTokens("a", { rawScores: true, truncate: false, truncationSide: "left" });
  const [first, second, third] = server.requests;
  assert.equal(first?.path, "/prefix/v1/models/ner/versions/2/predict_tokens");
  assert.equal(first.headers["x-nerve-priority"], "7");
  assert.equal(first.headers.authorization, "Bearer x");
  assert.equal(first.headers["content-type"], "application/json");
  const given = Number(first.headers["request-timeout-ms"]);
  assert.ok(Number.isInteger(given) && given > 0 && given <= 5_000, String(given));
  assert.deepEqual(first.body, {
    inputs: ["a"],
    default_aggregation_strategy: "simple",
    offset_unit: "utf16",
    threshold: 0.5,
    labels: ["PER"],
  });
  assert.equal(second?.path, "/prefix/v1/models/a%2Fb/predict_tokens");
  assert.equal(second.headers["x-nerve-priority"], "1");
  assert.deepEqual(third?.body, {
    inputs: ["a"],
    offset_unit: "utf16",
    raw_scores: true,
    truncate: false,
    truncation_direction: "left",
  });
});

test("a time without end is sent as one that the server reads", async () => {
  await using server = await listening((response) => json(response, 200, [[]]));
  await new NerveClient(server.url, { timeoutMs: Infinity }).extract("a");
  assert.match(String(server.requests[0]?.headers["request-timeout-ms"]), /^\d+$/);
});

for (const [what, body] of [
  ["a page", "<html>"],
  ["other JSON", '{"ok": true}'],
  ["too few results", "[]"],
  ["a span without label", '[[{"token": "a", "start": 0, "end": 1, "results": {}}]]'],
] as const) {
  test(`${what} is no answer of this server`, async () => {
    const { result } = await attempt((response) => response.writeHead(200).end(body));
    assertError(result, "server_error", { status: 200, reason: "invalid_answer" });
  });
}

test("an error without a sentence still says where it came from", async () => {
  const { result } = await attempt((response) => response.writeHead(502).end("<html>"));
  assertError(result, "server_error", { message: "HTTP 502 from /predict_tokens" });
});

test("a path that nobody serves is no model that is missing", async () => {
  const { result } = await attempt((response) => response.writeHead(404).end("<html>"));
  const error = assertError(result, "not_found", { status: 404 });
  assert.match(error.message, /^HTTP 404 from \/predict_tokens \(is the URL .* root\?\)$/);
  const { result: named } = await attempt((response) =>
    json(response, 404, {}, { "x-nerve-reason": "not_served" }),
  );
  assertError(named, "not_found", { reason: "not_served" });
  const { result: model } = await attempt((response) =>
    json(response, 404, { error: "no model" }, { "x-nerve-reason": "model_not_found" }),
  );
  assertError(model, "model_not_found", { message: "no model", reason: "model_not_found" });
});

test("options that cannot be right are refused", async () => {
  assert.throws(() => new NerveClient("localhost:8080"), /must begin with http/);
  assert.throws(() => new NerveClient("/nerve"), TypeError); // no page to be relative to
  assert.throws(() => new NerveClient("http://me:secret@localhost"), /credentials/);
  assert.throws(() => new NerveClient("http://localhost", { maxTexts: 0 }), RangeError);
  assert.throws(() => new NerveClient("http://localhost", { headers: { "a b": "c" } }), TypeError);
  const client = new NerveClient("http://localhost");
  assert.throws(() => client.extractMany("one text"), TypeError);
  assert.throws(() => client.extractMany([], { batchSize: 129 }), /1 to 128/);
  assert.throws(() => client.extractMany([], { concurrency: 0.5 }), RangeError);
  await assert.rejects(client.extract("a", { version: 1 }), /needs the name of its model/);
  await assert.rejects(client.extract("a", { timeoutMs: 0 }), TypeError);
});

test("no text, no request", async () => {
  assert.deepEqual(await new NerveClient("http://localhost:1").extract([]), []);
});
